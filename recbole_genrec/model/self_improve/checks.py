"""Whether self-improvement can work: the method's functions, the settings, the number of ids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.self_improve.schedule import refresh_epochs

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving
    from recbole_genrec.settings.shared_keys import SharedSettings

# What a method defines besides its loss and ``item_logits``: the codes of an item from its content.
CONTRACT = ("alignment_loss", "item_decoder")


def check_method(method: type) -> None:
    """Refuse a method that cannot code an item from its content.

    Args:
        method: class of the model, of this package or another.

    Raises:
        ConfigError: names the functions that the method does not define.
    """
    missing = [name for name in CONTRACT if getattr(method, name, None) is None]
    if missing:
        functions = " and ".join(f"{name}(items)" for name in missing)
        raise ConfigError(
            "self_improve: True needs a method that generates discrete codes and can code an item "
            f"from its content; {method.__name__} does not define {functions}. "
            f"Leave self_improve out for {method.__name__}."
        )


def check_settings(method: type[SelfImproving], settings: SharedSettings) -> None:
    """Refuse settings of self-improvement that cannot work.

    Args:
        method: class of the model.
        settings: the settings of the run.

    Raises:
        ConfigError: names the keys and what to change.
    """
    refresh_epochs(settings)
    if method.has_text_prompt() and not settings.item_text_fields:
        raise ConfigError(
            f"{method.__name__} codes an item from its words: self_improve: True needs item texts "
            "(item_text_fields)."
        )
    _check_words(method, settings)
    if settings.si_max_candidates < settings.si_num_candidates:
        raise ConfigError(
            f"si_max_candidates {settings.si_max_candidates} is below "
            f"si_num_candidates {settings.si_num_candidates}."
        )
    if settings.si_reinit_unused and settings.fsdp:
        raise ConfigError(
            "si_reinit_unused: True changes rows of whole weights, and fsdp: True shares these out "
            "among processes. Leave one of them out."
        )
    if settings.si_control and settings.si_fixed_levels:
        raise ConfigError(
            "si_control: shuffled passes whole codes on, so it cannot keep first levels; "
            "set si_fixed_levels: 0."
        )


def _check_words(method: type[SelfImproving], settings: SharedSettings) -> None:
    """Refuse words that a method cannot read or write."""
    name = method.__name__
    wanted = settings.si_embed_text
    if method.has_text_prompt() and wanted == "soft":
        raise ConfigError(
            f"si_embed_text: soft is for methods without a text prompt; {name} reads the words of "
            "an item. Leave it out."
        )
    if wanted == "text" and not method.has_text_prompt():
        if not method.reads_prefix_words:
            raise ConfigError(
                f"si_embed_text: text: {name} reads one vector for an item. Use si_embed_text: "
                "soft."
            )
        if not settings.item_text_fields:
            raise ConfigError(
                "si_embed_text: text needs item texts (item_text_fields); without them use "
                "si_embed_text: soft."
            )
    if not settings.si_back_weight:
        return
    weight = method.own_tasks.get("si_back_weight")
    if weight is not None:
        raise ConfigError(
            f"si_back_weight: {name} has the task codes -> words already. Raise {weight} and leave "
            "si_back_weight out."
        )
    if getattr(method, "description_loss", None) is None:
        raise ConfigError(f"si_back_weight: {name} writes no words. Use si_back_weight: 0.")
    if not method.has_text_prompt() and wanted != "text":
        raise ConfigError(
            f"si_back_weight: {name} writes words only where it reads them. Set si_embed_text: "
            "text, or si_back_weight: 0."
        )


def check_code_space(model: SelfImproving, settings: SharedSettings) -> None:
    """Refuse codes that leave a refresh no choice.

    Args:
        model: the model to improve.
        settings: the settings of the run.

    Raises:
        ConfigError: all levels are fixed, or there are not more ids than items.
    """
    n_levels = len(model.level_sizes)
    if settings.si_rounds and settings.si_fixed_levels >= n_levels:
        raise ConfigError(
            f"si_fixed_levels: {settings.si_fixed_levels} fixes all {n_levels} levels of the "
            "codes, so no refresh could change one. Use fewer, or si_rounds: 0."
        )
    n_ids = math.prod(model.level_sizes) - len(model.reserved_codes())
    n_items = len(model.codes) - 1
    if n_ids <= n_items:
        raise ConfigError(
            "self_improve: True needs more ids than items, but sizes "
            f"{list(model.level_sizes)} give {n_ids} for {n_items} items. "
            "Raise codebook_sizes or dedup_spare."
        )


def warn_about_schedule(model: SelfImproving, settings: SharedSettings) -> None:
    """Log settings that work but are likely to harm.

    Args:
        model: the model to improve.
        settings: the settings of the run.
    """
    if not settings.si_rounds:
        return
    weight = model.own_tasks.get("si_align_weight")
    if not model.alignment_weight:
        model.logger.warning(
            f"With {weight or 'si_align_weight'}: 0 nothing teaches the model to code an item: its "
            "refreshes will be random."
        )
    _say_unread_weight(model, weight)
    patience = settings.stopping_step * settings.eval_step
    needed = settings.si_interval + 1
    if settings.eval_step and patience < needed:
        model.logger.warning(
            "Validation can dip after a refresh of the codes: "
            f"stopping_step {settings.stopping_step} x eval_step {settings.eval_step} = "
            f"{patience} epochs of patience are fewer than si_interval + 1 = {needed}."
        )


def _say_unread_weight(model: SelfImproving, weight: str | None) -> None:
    """Say that ``si_align_weight`` is not read where the method has the task.

    Args:
        model: the model to improve.
        weight: what weighs the task there.
    """
    if weight is None or model.config.is_stored or not model.config.is_chosen("si_align_weight"):
        return
    model.logger.warning(
        f"si_align_weight does nothing on {type(model).__name__}: the task item -> codes is in its "
        f"own loss, once, and {weight} weighs it."
    )


def self_improvement_line(settings: SharedSettings) -> dict[str, str]:
    """The line of :func:`description` where the switch is on.

    Args:
        settings: the settings of the run.
    """
    if not settings.self_improve:
        return {}
    return {"self-improvement": description(settings)}


def description(settings: SharedSettings) -> str:
    """When the codes are refreshed, for the summary that is printed when a run starts.

    Args:
        settings: the settings of the run.
    """
    epochs = ", ".join(map(str, refresh_epochs(settings))) or "none"
    control = ""
    if settings.si_control:
        control = f", CONTROL: {settings.si_control}"
    return f"our interpretation; refresh before epochs {epochs}{control}"
