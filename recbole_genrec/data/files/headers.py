"""Header lines of RecBole's files: names and types of columns, and which of them are loaded."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from recbole_genrec.data.files.atomic_files import TYPES, AtomicFile
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.rules import did_you_mean

_SEPARATOR = re.compile(rf"[^:]+:(?:{'|'.join(TYPES)})(\W+?)\w+:(?:{'|'.join(TYPES)})")
NUMBERS = {"int", "integer", "long", "double", "number", "numeric", "real", "int64", "float64"}
SEQUENCES = ("list", "seq", "array")


def read_header(file: AtomicFile, roles: dict[str, str]) -> dict[str, str]:
    """Names and types of the columns of an interaction file, in its order.

    Args:
        file: the file.
        roles: the type that a column must have, by its name: those of ids and times.

    Raises:
        DataError: a column has no type, one that RecBole does not know, or a name twice.
    """
    check_separator(file)
    where = _line_of(file)
    cells = [cell.split(":") for cell in file.columns]
    names = [cell[0].strip() for cell in cells]
    _check_names(where, names, roles, file.separator)
    corrected = file.separator.join(
        f"{name}:{roles.get(name) or _likely_type(name, cell)}"
        for name, cell in zip(names, cells, strict=True)
    )
    advice = (
        f"Each column of the header is written name:type; the types are {', '.join(TYPES)}: token "
        f"for ids, float for times. Write: {corrected}"
    )
    kinds = {}
    for name, cell in zip(names, cells, strict=True):
        if len(cell) == 1:
            raise DataError(f"{where}: column {name!r} has no type. {advice}")
        kinds[name] = ":".join(cell[1:]).strip()
        if kinds[name] not in TYPES:
            raise DataError(f"{where}: column {name!r} has the type {kinds[name]!r}. {advice}")
    for name, kind in roles.items():
        if name in kinds and kinds[name] != kind:
            raise DataError(
                f"{where}: column {name!r} has the type {kinds[name]}; {_REASONS[kind]} Write: "
                f"{corrected}"
            )
    return kinds


def header_kinds(file: AtomicFile) -> dict[str, str]:
    """RecBole's type of each column of a file of features, by name, in its order.

    A column without a type is a token.

    Args:
        file: the file.

    Raises:
        DataError: another separator stands in the header, a name stands in it twice, or a type is
            none of RecBole's.
    """
    check_separator(file)
    where = _line_of(file)
    kinds: dict[str, str] = {}
    for cell in file.columns:
        name, _, kind = cell.strip().partition(":")
        if name in kinds:
            raise DataError(f"{where}: there are several columns {name!r}. Rename one.")
        kinds[name] = kind.strip() or "token"
        if kinds[name] not in TYPES:
            raise DataError(
                f"{where}: column {name!r} has the type {kinds[name]!r}; the types are "
                f"{', '.join(TYPES)}. If the type shows several columns, {file.separator!r} does "
                "not stand between them: --field_separator names what does."
            )
    return kinds


def _line_of(file: AtomicFile) -> str:
    """Where the header stands, for messages."""
    return f"{file.path}, line {file.header_line}"


def check_separator(file: AtomicFile) -> None:
    """Refuse a header that is written with another separator, and name it.

    Raises:
        DataError: something else stands between columns.
    """
    written = _SEPARATOR.match(file.separator.join(file.columns))
    if written and written.group(1) != file.separator:
        raise DataError(
            f"{_line_of(file)}: the columns are separated by {written.group(1)!r}, not by "
            f"{file.separator!r}. Give --field_separator={written.group(1)!r}; the files of a "
            "dataset (.inter, .item) need one separator, so write anew those that have another."
        )


def _check_names(where: str, names: list[str], roles: dict[str, str], separator: str) -> None:
    """Refuse a header without any column that is needed, or with one twice."""
    if not any(name in names for name in roles):
        hint = "the first line of the file is no header"
        case = {name.lower(): name for name in names}
        written = [case[name.lower()] for name in roles if name.lower() in case]
        if written:
            hint = f"{', '.join(written)} are meant: capital letters count"
        elif len(names) == 1:
            hint = f"{separator!r} does not stand in it; --field_separator names what does"
        raise DataError(
            f"{where}: there is no column {' or '.join(map(repr, roles))}; the columns are "
            f"{', '.join(map(ascii, names))}. Perhaps {hint}. Name your columns with "
            "--USER_ID_FIELD, --ITEM_ID_FIELD and --TIME_FIELD (and --load_col)."
        )
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: there are several columns {name!r}. Rename one.")


_REASONS = {
    "token": "ids are read as they are written, so its type must be token.",
    "float": "the order of events is the order of its numbers, so its type must be float "
    "(numbers, or dates such as 2024-05-31 or 2024-05-31T12:00:00).",
    "token_seq": "a history is a sequence of ids, so its type must be token_seq.",
}


def check_columns(config, key: str) -> dict[str, Collection[str]]:
    """``load_col`` or ``unload_col``: lists of columns by the ending of a file; ``"*"`` for all.

    Raises:
        ConfigError: it is written in another way.
    """
    value = config[key]
    if value is None:
        return {}
    form = f'Write --{key}="{{inter: [user_id, item_id, timestamp]}}".'
    if not isinstance(value, dict):
        raise ConfigError(
            f"{key} is {value!r}; it must list columns by the ending of a file. {form}"
        )
    for ending, columns in value.items():
        everything = columns == "*" and key == "load_col"
        names = isinstance(columns, (list, tuple)) and all(isinstance(c, str) for c in columns)
        if not everything and not names:
            raise ConfigError(
                f"{key}: {ending} is {columns!r}; it must be a list of column names. {form}"
            )
        endings = ("inter", "item", "user", "kg", "link", "net")
        if ending not in (*endings, *(config["additional_feat_suffix"] or ())):
            hint = did_you_mean(str(ending), endings)
            raise ConfigError(f"{key} names {ending!r}; files end in {', '.join(endings)}.{hint}")
    return value


def check_alias(config, key: str) -> list[str]:
    """The columns that ``alias_of_user_id`` or ``alias_of_item_id`` names.

    Raises:
        ConfigError: it is no list of names.
    """
    value = config[key]
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{key} is {value!r}; it must be a list of columns: --{key}=[column].")
    return list(value)


def loaded_columns(
    path: Path, kinds: dict[str, str], load: Collection[str] | None, optional: Collection[str]
) -> list[str]:
    """The columns of a file that are loaded, in its order.

    Args:
        path: the file, for messages.
        kinds: its columns.
        load: names that ``load_col`` lists; None for all.
        optional: names that may be missing in the file.

    Raises:
        DataError: ``load_col`` names a column that the file does not have.
    """
    if load is None:
        return list(kinds)
    for name in load:
        if name not in kinds and name not in optional:
            hint = did_you_mean(name, kinds)
            raise DataError(
                f"{path}, line 1: load_col names the column {name!r}, which is not there; the "
                f"columns are {', '.join(kinds)}.{hint}"
            )
    return [name for name in kinds if name in load]


def _likely_type(name: str, cell: list[str]) -> str:
    """The type that a column most likely means."""
    written = cell[1].strip().lower() if len(cell) > 1 else ""
    if written in TYPES:
        return written
    sequence = written.endswith(SEQUENCES) or name.endswith("_list")
    number = written in NUMBERS or name in ("timestamp", "time", "rating")
    if name.endswith("_id"):
        number = False
    if number:
        return "float_seq" if sequence else "float"
    return "token_seq" if sequence else "token"
