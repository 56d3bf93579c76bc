"""``add-items``: new items from a table, recommendable at once, in a new checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_genrec.data.item_text import render_item_text
from recbole_genrec.data.preparation.own.columns import Columns, item_column
from recbole_genrec.data.preparation.own.tables import read_table, text_of
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.loading import load_model
from recbole_genrec.storage.atomic import check_writable


@dataclass(frozen=True)
class AddedItems:
    """What ``add_items_of`` did.

    Attributes:
        read: rows of the table.
        added: raw ids of the items that are recommendable now.
        known: items that the model had.
        without_text: items whose columns of text are empty; they stay out.
        without_id: rows without an id.
        repeated: further rows of an item.
        output: the new checkpoint.
    """

    read: int
    added: list[str]
    known: int
    without_text: int
    without_id: int
    repeated: int
    output: Path | None

    def report(self) -> str:
        """The counts, for people."""
        lines = [f"{self.read:>9,} rows read", f"{len(self.added):>9,} items added"]
        for count, reason in (
            (self.known, "are in the model already"),
            (self.without_text, "have no text and stay out"),
            (self.without_id, "rows have no id"),
            (self.repeated, "rows repeat an item; the first counts"),
        ):
            if count:
                lines.append(f"{count:>9,} {reason}")
        if self.output is None:
            lines.append("Nothing was written.")
        else:
            lines.append(f"Written to {self.output}")
        return "\n".join(lines)


def add_items_of(
    checkpoint: str,
    items: str | Path,
    output: str | Path | None = None,
    item: str | None = None,
    **changes: Any,
) -> AddedItems:
    """Add the items of a table to a model; nothing is trained.

    Their texts are made of the columns that made the texts of the run (``item_text_fields``), and
    the fitted tokenizer places them.

    Args:
        checkpoint: of a method of this package.
        items: a CSV, TSV, Parquet or JSON lines file with a column of ids and those of the text.
        output: the new checkpoint (a folder where ``checkpoint`` is one); default
            ``<checkpoint>-items.pth`` beside it.
        item: the column of ids; default guessed.
        **changes: settings to replace.

    Raises:
        ConfigError: the method cannot take in items without training, or knows no item texts.
        DataError: the table or a column is missing.
        ArtefactError: the checkpoint holds a model of RecBole, or the file cannot be written.
    """
    checkpoint = local_checkpoint(checkpoint)
    source = Path(checkpoint)
    target = source.with_name(f"{source.stem}-items{source.suffix}")
    if output is not None:
        target = Path(output).expanduser()
    check_writable(target)
    model = load_model(checkpoint, **changes).model
    fields = model.config["item_text_fields"]
    if not fields:
        raise ConfigError(
            f"{checkpoint} was trained without item texts (item_text_fields), so a text gives a "
            "new item no place. Train again with the new items in the data."
        )
    texts, counts = _texts_of(Path(items).expanduser(), item, fields, set(model.item_tokens))
    if texts:
        model.add_items(list(texts.values()), list(texts))
        if source.is_dir():
            model.save_pretrained(target)
        else:
            model.save(target)
    written = target if texts else None
    return AddedItems(**counts, added=list(texts), output=written)


def _texts_of(
    file: Path, item: str | None, fields: list[str], known: set[str]
) -> tuple[dict[str, str], dict[str, int]]:
    """Texts of the new items of a table by raw id, and counts of the others."""
    table = read_table(file)
    columns = Columns(item=item)
    key = item_column(table, columns)
    missing = [field for field in fields if field not in table.frame]
    if len(missing) == len(fields):
        raise DataError(
            f"{file} has none of the columns that make an item's text ({', '.join(fields)}); its "
            f"columns are {', '.join(map(str, table.frame.columns))}."
        )
    counts = {"known": 0, "without_text": 0, "without_id": 0, "repeated": 0}
    counts["read"] = len(table.frame) + table.dropped.total()
    counts["without_id"] += table.dropped.total()
    present = [field for field in fields if field in table.frame]
    texts: dict[str, str] = {}
    for row, raw in enumerate(table.frame[key].tolist()):
        token = text_of(raw)
        cells = {field: text_of(table.frame[field].iloc[row]) or "" for field in present}
        text = render_item_text(cells, fields)
        if token is None:
            counts["without_id"] += 1
        elif token in known:
            counts["known"] += 1
        elif token in texts:
            counts["repeated"] += 1
        elif not text:
            counts["without_text"] += 1
        else:
            texts[token] = text
    return texts, counts
