"""Keys that were set and do nothing: each is named in a warning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_genrec.data.file_filter import BY_FILES, asks_for_filter
from recbole_genrec.data.rows.evaluation_rows import holds_out_several
from recbole_genrec.data.rows.training_rows import training_rows
from recbole_genrec.settings.filters import NO_FILTER
from recbole_genrec.settings.plain import as_list
from recbole_genrec.settings.search_keys import SearchKeys
from recbole_genrec.settings.tokenizer_keys import (
    ALIASES,
    CodeKeys,
    CollaborativeKeys,
    FitKeys,
)

CODE_KEYS = ("tokenizer", *CodeKeys.declared(), *FitKeys.declared())
OF_EVERY_LIST = ("exclude_history", "search_batch_size", "dense_scores", "candidate_file")
"""Keys of the search that other models read too, or refuse."""
CONTENT_KEYS = ("backbone", "text_encoder", "text_pooling", *CollaborativeKeys.declared())
USUAL_SPLIT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}


def idle_keys(config) -> list[str]:
    """A sentence for each key that was set and does nothing in this run."""
    sentences = _beside_split_files(config) + _of_columns(config) + _of_collisions(config)
    if config.settings.valid_users and not config.settings.is_sequential:
        sentences.append(
            f"valid_users does nothing for {config.settings.model}, which is not sequential."
        )
    if config.settings.item_vectors and not getattr(config.model_class, "generative", False):
        sentences.append(
            f"item_vectors does nothing for {config.settings.model}, which reads no content of "
            "items."
        )
    n_targets = config.settings.batch_targets
    counts_targets = n_targets and training_rows(config) != "all"
    is_chosen = config.is_chosen("train_batch_size") and not config.is_stored
    if counts_targets and is_chosen:
        sentences.append(
            f"train_batch_size does nothing beside batch_targets: {n_targets}, which counts "
            "targets instead of rows. Give another batch_targets, or batch_targets: 0."
        )
    several = holds_out_several(config.final_config_dict)
    if config.settings.ratio_rows == "interactions" and not several:
        sentences.append(
            "ratio_rows does nothing here: leave-one-out holds out the same rows for every model."
        )
    return sentences


def unread_keys(configs: Sequence[Any]) -> list[str]:
    """Sentences about keys that a command gives, and that none of its models reads.

    Args:
        configs: the settings of each model of the command.
    """
    unread = [_unread(config) for config in configs]
    read = set()
    for config, reasons in zip(configs, unread, strict=True):
        read |= config.external_config_dict.keys() - reasons.keys()
    sentences = []
    for config, reasons in zip(configs, unread, strict=True):
        keys_of: dict[str, list[str]] = {}
        for key, reason in reasons.items():
            if key not in read and _is_given(config, key):
                keys_of.setdefault(reason, []).append(key)
        for reason, keys in keys_of.items():
            verb = "does" if len(keys) == 1 else "do"
            sentences.append(
                f"{', '.join(keys)} {verb} nothing for {config.settings.model}, {reason}."
            )
    return sentences


def _unread(config) -> dict[str, str]:
    """Keys that the model of a run does not read, and why; of our models and RecBole's alone."""
    reasons: dict[str, str] = {}
    if "model_class" in config.final_config_dict:
        return reasons  # a class from outside
    search = [key for key in SearchKeys.declared() if key not in OF_EVERY_LIST]
    if not getattr(config.model_class, "needs_tokenizer", False):
        reasons |= dict.fromkeys([*CODE_KEYS, *search], "which has no codes")
    elif not getattr(config.model_class, "searches_codes", False):
        reasons |= dict.fromkeys(search, "which ranks all items, without a search")
    if not getattr(config.model_class, "generative", False):
        reasons |= dict.fromkeys(CONTENT_KEYS, "which reads no content of items")
    return reasons


def _is_given(config, key: str) -> bool:
    """Whether the user gave a key for this model; other keys of a dataset's file are for all."""
    of_section = f"dataset/{config.settings.dataset}.yaml, {config.settings.model}"
    in_section = config.places.get(key) == of_section and config.is_chosen(key)
    return key in config.external_config_dict or in_section


def _beside_split_files(config) -> list[str]:
    """Filters and splits beside ``benchmark_filename``."""
    sentences = []
    if config.settings.benchmark_filename is not None:
        for key, neutral in NO_FILTER.items():
            if config[key] not in (None, neutral):
                sentences.append(f"{key} does nothing beside benchmark_filename: filter the files.")
        for part, usual in USUAL_SPLIT.items():
            if config.settings.eval_args.get(part) != usual:
                sentences.append(
                    f"eval_args: {part} does nothing beside benchmark_filename: the files are the "
                    "split."
                )
    return sentences


def _of_collisions(config) -> list[str]:
    """Keys of policies that ``collision`` does not name.

    A size of the extra token is named whoever set it, because its default is none; the other keys
    where the user chose them, because they have values beside all policies.
    """
    if config.is_stored or not {"collision", "extra_token_size"} <= config.declarations.keys():
        return []
    names = as_list(config["collision"])
    policies = [policy for name in names for policy in ALIASES.get(name, [name])]
    idle = []
    if "extra_token" not in policies:
        if config["extra_token_size"] is not None:
            idle.append(("extra_token_size", "extra_token"))
        idle.append(("dedup_spare", "extra_token"))
    if "sinkhorn" not in policies:
        idle.append(("sinkhorn_rounds", "sinkhorn"))
    return [
        f"{key} does nothing, because collision is {', '.join(names)}, without {policy}. Put "
        f"{policy} into collision, or leave {key} out."
        for key, policy in idle
        if key == "extra_token_size" or config.is_chosen(key)
    ]


def _of_columns(config) -> list[str]:
    """What ``load_col`` keeps from doing anything."""
    name = config.settings.dataset
    sentences = []
    load = config.settings.load_col
    if isinstance(load, dict):
        asked = asks_for_filter(config)
        if asked and not {"item", "user"} & load.keys():
            sentences.append(
                f"{BY_FILES} does nothing: there is neither {name}.item nor {name}.user beside the "
                ".inter file, or load_col leaves them out."
            )
        elif asked and config.settings.benchmark_filename is not None:
            sentences.append(
                f"{BY_FILES} does nothing beside benchmark_filename: filter the files."
            )
        for ending, columns in (config["unload_col"] or {}).items():
            taken = load.get(ending, ())
            idle = [column for column in columns if taken != "*" and column not in taken]
            if idle:
                sentences.append(
                    f"unload_col does nothing for {', '.join(idle)}: load_col does not take them."
                )
    return sentences
