"""The settings of an imported dataset: those that the import writes, and those of its user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_genrec.settings.parsing import read_yaml

TEXT_FIELDS = "item_text_fields"

WITHOUT_TEXT: dict[str, dict[str, Any]] = {
    "TIGER": {"tokenizer": "cid"},
    "TimelineRec": {"tokenizer": "cid", "item_parts": ["id"]},
}
"""Settings of a dataset whose items have no text: codes that need none."""

MARK = "# Written by recbole-genrec import"


def is_imported(path: Path) -> bool:
    """Whether an import wrote this file of settings."""
    return path.is_file() and path.read_text(encoding="utf-8").startswith(MARK)


def settings_of_import(path: Path, fields: Sequence[str]) -> tuple[str, list[str]]:
    """The text of a file of settings after an import, and the user's keys that stay in it.

    A file that says the same already stays as it is, with its comments.

    Args:
        path: the file, which need not be there.
        fields: the text columns.

    Raises:
        ConfigError: the file that is there is no plain YAML of keys and values.
    """
    earlier: dict[str, Any] = {}
    if path.is_file():
        earlier = read_yaml(path)
    kept = _of_the_user(earlier)
    written: dict[str, Any] = {TEXT_FIELDS: list(fields)}
    if not fields:
        written = _without_text(kept)
    values = {**kept, **written}
    if values == earlier and is_imported(path):
        return path.read_text(encoding="utf-8"), list(kept)
    text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    return f"{MARK}; keys of run may be added.\n{text}", list(kept)


def _of_the_user(settings: dict[str, Any]) -> dict[str, Any]:
    """The keys of a file that no import wrote."""
    kept = {key: value for key, value in settings.items() if key != TEXT_FIELDS}
    if TEXT_FIELDS in settings:
        return kept
    for model, written in WITHOUT_TEXT.items():
        section = kept.get(model)
        if not isinstance(section, dict):
            continue
        added = {key: value for key, value in section.items() if written.get(key) != value}
        if added:
            kept[model] = added
        else:
            del kept[model]
    return kept


def _without_text(kept: dict[str, Any]) -> dict[str, Any]:
    """The sections of :data:`WITHOUT_TEXT`; what the user says in them wins."""
    sections = {}
    for model, written in WITHOUT_TEXT.items():
        section = kept.get(model) or {}  # an empty section is None
        if isinstance(section, dict):
            sections[model] = {**written, **section}
    return sections
