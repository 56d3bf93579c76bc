"""Checks of a whole configuration: its names, its values, and what a method says to them."""

from __future__ import annotations

from recbole_genrec.data.rows.evaluation_rows import check_ratio_rows
from recbole_genrec.data.rows.training_rows import MASKED, training_rows
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.outside import is_outside
from recbole_genrec.model.registry import GENERATORS, is_generative, needs_tokenizer
from recbole_genrec.settings.aliases import advice
from recbole_genrec.settings.classification import RECBOLE_ARGUMENTS, computed_keys
from recbole_genrec.settings.protocol_values import VALIDATION_LOSS
from recbole_genrec.settings.recbole_values import check_recbole_values
from recbole_genrec.settings.rules import check_value, check_values


def check_settings(config) -> None:
    """Check names and values of a ``GenRecConfig``.

    Raises:
        ConfigError: an unknown key, a bad value, or a combination that cannot work.
    """
    _check_names(config)
    values = config.final_config_dict
    if needs_tokenizer(config.model_class):
        check_value(config.declarations["tokenizer"], values.get("tokenizer"))
    check_values(config.declarations, values)
    check_recbole_values(values)

    check_ratio_rows(config)
    _check_training_without_history(config.model_class, values)
    _check_validation_loss(config.model_class, values)
    _check_loss_at_every_position(config)

    if is_generative(config.model_class):
        if values["train_neg_sample_args"]["distribution"] != "none":
            raise ConfigError(
                "A generative model takes no negative samples: set train_neg_sample_args: ~."
            )
        if values.get("transform") is not None:
            raise ConfigError(
                f"transform: {values['transform']} changes the histories in a batch, which the "
                "methods of this package read as they are. Leave it out."
            )
        config.model_class.check_config(values)
        config.model_class.check_settings(config.view(config.model_class.settings_class))
    elif values.get("candidate_file") is not None:
        raise ConfigError(
            "candidate_file restricts the search of our generative models; "
            f"{config.model} ranks all items. Leave it out."
        )


def _check_training_without_history(model_class: type, values: dict) -> None:
    """Refuse ``exclude_history_in_training`` for a loss in which items do not all compete."""
    able = getattr(model_class, "trains_without_history", False)
    if not values.get("exclude_history_in_training") or able:
        return
    name = model_class.__name__
    reason = "its loss is no softmax over items or codes that this package computes"
    if not is_generative(model_class):
        reason = "RecBole computes its loss"
    raise ConfigError(
        f"exclude_history_in_training: {name} cannot leave items of the history out of a training "
        f"step, because {reason}. Leave the key out, or set it for one model of several, as in "
        "--TIGER.exclude_history_in_training=True. exclude_history leaves them out of the lists "
        "of every model."
    )


def _check_validation_loss(model_class: type, values: dict) -> None:
    """Refuse ``valid_metric: loss`` for models whose loss RecBole computes."""
    if str(values["valid_metric"]).lower() != VALIDATION_LOSS or is_generative(model_class):
        return
    raise ConfigError(
        f"valid_metric: loss is for the methods of this package; {model_class.__name__} is "
        "RecBole's, and its loss may need items that its validation rows lack. Name a metric, or "
        "set the key for one model of several, as in --LETTER.valid_metric=loss."
    )


def _check_loss_at_every_position(config) -> None:
    """Refuse RecBole's loss of pairs where every position of a row is a target."""
    rows = training_rows(config)
    if is_generative(config.model_class) or config.model in MASKED or rows == "all":
        return
    if config.final_config_dict.get("loss_type") == "BPR":
        raise ConfigError(
            f"train_rows: {rows} trains {config.model} with a softmax over all items at every "
            "position; loss_type: BPR draws negatives for one target a row. Use "
            f"--{config.model}.train_rows=all."
        )


def _check_names(config) -> None:
    """Refuse keys of the user that nothing reads."""
    generative = is_generative(config.model_class)
    known = set(config.declarations) - computed_keys()
    known |= RECBOLE_ARGUMENTS | set(config.internal_config_dict) | {"model", "dataset"}
    # a model of RecBole's kind from outside does not say which keys it has
    says_nothing = is_outside(config.model_class) and not generative
    for name in config.external_config_dict:
        if name not in known and not says_nothing:
            hint = advice(name, known)
            raise ConfigError(f"Unknown key {name!r} for {config.model}.{hint}")

    several = bool(config.declarations["generator"].choices)
    if generative and "generator" in config.external_config_dict and not several:
        others = ", ".join(dict.fromkeys(model for model, _ in GENERATORS))
        raise ConfigError(
            f"generator: {config.model} has one of its own; {others} offer several. "
            "Leave it out, or write Model.generator."
        )
