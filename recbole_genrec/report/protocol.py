"""The protocol of a test in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recbole_genrec.report.evaluated_data import data_text
from recbole_genrec.settings.protocol_values import evaluation_modes, history_masked


def protocol_text(result: Mapping[str, Any]) -> str:
    """How a run was tested: its split, what is ranked, and how long histories are.

    Args:
        result: the content of its result file; ``config`` and ``candidates`` are read.
    """
    config = result["config"]
    eval_args = config.get("eval_args") or {}
    words = [*_split(eval_args), *_ranked(result)]
    if eval_args.get("order") is not None:
        words.append(f"order {eval_args['order']}")
    if config.get("MAX_ITEM_LIST_LENGTH") is not None:
        words.append(f"histories of up to {config['MAX_ITEM_LIST_LENGTH']} items")
    return ", ".join(words)


def whole_protocol(result: Mapping[str, Any]) -> str:
    """The protocol, whether the history is masked, and what was filtered or added before the test.

    Args:
        result: as in :func:`protocol_text`.
    """
    config = result["config"]
    words = [protocol_text(result), f"history masked: {masked_text(config)}"]
    if data_text(config):
        words.append(data_text(config))
    return ", ".join(words)


def masked_text(config: Mapping[str, Any]) -> str:
    """Whether the items of a user's history leave the ranking: ``yes`` or ``no``."""
    return "yes" if history_masked(config) else "no"


def protocol_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the rows of a table were tested; one sentence where all were tested alike.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.
    """
    runs: dict[str, list[str]] = {}
    for row in rows:
        if row["test"]:
            runs.setdefault(row["protocol"], []).append(row["run"])
    if len(runs) == 1:
        return [f"Test split under {text}." for text in runs]
    return [f"Test split of {', '.join(names)} under {text}." for text, names in runs.items()]


def _split(eval_args: Mapping[str, Any]) -> Iterator[str]:
    """The words for a split."""
    split = eval_args.get("split") or {}
    if "LS" in split:
        yield f"leave one out ({split['LS']})"
        return
    for name, value in split.items():
        yield f"{name}: {value}"
    if split and eval_args.get("group_by"):
        yield f"grouped by {eval_args['group_by']}"


def _ranked(result: Mapping[str, Any]) -> Iterator[str]:
    """The words for what is ranked; results of earlier versions do not count the candidates."""
    config = result["config"]
    modes = evaluation_modes(config.get("eval_args") or {})
    candidates = result.get("candidates")
    if candidates is not None:
        yield f"{candidates['items']:,} items of a file are ranked"
    elif config.get("candidate_file"):
        yield "the items of a file are ranked"
    elif modes["test"] == "full":
        yield "all items are ranked"
    if modes["test"] != "full":
        yield f"mode {modes['test']}"
    if modes["valid"] != modes["test"]:
        yield f"validation in mode {modes['valid']}"
