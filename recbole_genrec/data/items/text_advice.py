"""What to do where items need texts and ``item_text_fields`` names no columns."""

from __future__ import annotations

from pathlib import Path

from recbole_genrec.data.files.atomic_files import FileFormat
from recbole_genrec.data.items.item_table import NO_TEXT_NEEDED, item_columns
from recbole_genrec.settings.parsing import parse_value

TEXT_KINDS = ("token", "token_seq")


def advice_without_fields(path: str | Path, item_field: str, file_format: FileFormat) -> str:
    """Sentences about the text columns that the ``.item`` file has, and about other methods.

    Args:
        path: the ``.item`` file, which need not be there.
        item_field: name of the item id column.
        file_format: how the file is written.

    Raises:
        DataError: the file is there and its header cannot be read.
    """
    if not Path(path).is_file():
        return (
            f"There is no item file {path}; write one with a column of texts "
            f'({item_field}:token and title:token_seq) and add --item_text_fields="[title]", '
            f"{NO_TEXT_NEEDED}."
        )
    kinds = item_columns(path, file_format)
    kinds.pop(item_field, None)
    texts = [name for name, kind in kinds.items() if kind in TEXT_KINDS]
    if texts:
        listed = ", ".join(texts)
        argument = f"[{listed}]"
        if parse_value(argument) != texts:  # a name such as 2024 needs quotes
            argument = str(texts)
        return (
            f"The text columns of {path} are {listed}: choose from them, as in "
            f'--item_text_fields="{argument}", {NO_TEXT_NEEDED}.'
        )
    others = ", ".join(f"{name}:{kind}" for name, kind in kinds.items()) or "none"
    vectors = [name for name, kind in kinds.items() if kind == "float_seq"]
    return (
        f"{path} has no column of texts (type {' or '.join(TEXT_KINDS)}) beside the ids; its other "
        f"columns: {others}. Add one, {NO_TEXT_NEEDED}.{_about_vectors(path, vectors)}"
    )


def _about_vectors(path: str | Path, columns: list[str]) -> str:
    """What can be done with columns of numbers."""
    if not columns:
        return ""
    source = path if len(columns) == 1 else "FILE"
    return (
        " Models that read vectors (TIGER, LETTER, LCRec, TimelineRec, SETRec) take numbers "
        f"such as those of {', '.join(columns)} in place of texts: --item_vectors={source}."
    )
