"""``add-items``: new items from a table, recommendable at once, in a new checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recbole_genrec.data.items.item_text import render_item_text
from recbole_genrec.data.preparation.own.columns import Columns, check_named, item_column
from recbole_genrec.data.preparation.own.files import stored_name
from recbole_genrec.data.preparation.own.tables import Table, ids_of, read_table, text_of
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.loading import load_model
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.held_runs import held_output


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
        malformed: rows that cannot be read.
        output: the new checkpoint.
        notes: what else people should know about the table.
    """

    read: int
    added: list[str]
    known: int
    without_text: int
    without_id: int
    repeated: int
    malformed: int
    output: Path | None
    notes: list[str] = field(default_factory=list)

    def report(self) -> str:
        """The counts, for people."""
        lines = [f"{self.read:>9,} rows read", f"{len(self.added):>9,} items added"]
        for count, reason in (
            (self.known, "are in the model already"),
            (self.without_text, "have no text and stay out"),
            (self.without_id, "rows have no id"),
            (self.repeated, "rows repeat an item; the first counts"),
            (self.malformed, "rows cannot be read"),
        ):
            if count:
                lines.append(f"{count:>9,} {reason}")
        lines += self.notes
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
    the fitted tokenizer places them. ``import`` stores a column ``Product Name`` as
    ``Product_Name``; both names are found. The files of the dataset are not read: what counts is
    what the checkpoint holds.

    Args:
        checkpoint: of a method of this package.
        items: a CSV, TSV, Parquet or JSON lines file with a column of ids and those of the text.
        output: the new checkpoint (a folder where ``checkpoint`` is one); default
            ``<checkpoint>-items.pth`` beside it. A file that is there is replaced only where it
            was made here too and all items that it had added are in the new one as well.
        item: the column of ids; default guessed.
        **changes: settings to replace.

    Raises:
        ConfigError: the method cannot take in items without training, or knows no item texts; or
            the new checkpoint would replace something else.
        DataError: the table or a column is missing, or a column or an id is unsure.
        ArtefactError: the checkpoint holds a model of RecBole, or the file cannot be written.
        HeldError: another process is going to write the same file.
    """
    checkpoint = local_checkpoint(checkpoint)
    source = Path(checkpoint)
    target = source.with_name(f"{source.stem}-items{source.suffix}")
    if output is not None:
        target = Path(output).expanduser()
    if not target.is_dir():  # an export, which is never replaced
        check_writable(target)
    with held_output(target, "output", logging.getLogger().warning):
        return _add(checkpoint, Path(items).expanduser(), target, item, changes)


def _add(
    checkpoint: str, items: Path, target: Path, item: str | None, changes: dict[str, Any]
) -> AddedItems:
    """What :func:`add_items_of` does; arguments as of it, ``target`` is the new checkpoint."""
    model = load_model(checkpoint, with_data=False, **changes).model
    _check_places_by_text(model, checkpoint)
    fields = model.config.settings.item_text_fields
    if not fields:
        raise ConfigError(
            f"{checkpoint} was trained without item texts (item_text_fields), so a text gives a "
            "new item no place. Train again with the new items in the data."
        )
    table = read_table(items)
    found = columns_of_fields(table, fields)
    known = set(model.item_tokens)
    new, counts = _texts_of(table, item, found, known, model.content.text_kinds)
    if new:
        _check_nothing_lost(target, model, known.union(new))
        added = model.add_items([row.text for row in new.values()], list(new))
        model.content.set_titles(added, [row.title for row in new.values()])
        if Path(checkpoint).is_dir():
            model.save_pretrained(target)
        else:
            model.save(target)
    written = target if new else None
    notes = _notes(table, found)
    return AddedItems(**counts, added=list(new), output=written, notes=notes)


def _check_nothing_lost(target: Path, model: GenRecModel, items: Collection[str]) -> None:
    """Refuse to replace a checkpoint that holds more than added items which the new one has too.

    So a job may write its output again, or go on from it, and no trained model is replaced.

    Args:
        target: where the new checkpoint goes.
        model: the model before the new items.
        items: raw ids of the new checkpoint.

    Raises:
        ConfigError: names the file and what to do.
    """
    if not target.exists():
        return
    name = model.config.settings.model
    dataset = model.config.settings.dataset
    earlier = _items_added_to(target, name, dataset)
    lost = [item for item in earlier if item not in items]
    if earlier and not lost:
        return
    if lost:
        raise ConfigError(
            f"{target} exists and holds {len(lost)} added items that the new file would lack, for "
            f"example {lost[0]!r}. Go on from it with --checkpoint={target}, or name another "
            "--output."
        )
    raise ConfigError(
        f"{target} exists and is no file that add-items made of {name} on {dataset}, so it is not "
        "replaced. Name another --output."
    )


def _items_added_to(file: Path, model: str, dataset: str) -> list[str]:
    """Raw ids of the items that a checkpoint holds beyond those of its training.

    Args:
        file: anything.
        model: name of the method.
        dataset: name of the dataset.

    Returns:
        None of them where the file is no checkpoint of that method on that dataset.
    """
    if file.is_dir():  # an export is never replaced
        return []
    try:
        state = load_checkpoint(file)
    except ArtefactError:
        return []
    config = state.get("config") or {}
    if (config.get("model"), config.get("dataset")) != (model, dataset):
        return []
    return state["other_parameter"]["added"]["tokens"]


def _check_places_by_text(model: GenRecModel, checkpoint: str) -> None:
    """Refuse a method whose items have their places by something else than their texts.

    Raises:
        ConfigError: says what works instead.
    """
    if model.places_by_text:
        return
    tokenizer = getattr(model, "tokenizer", None)
    name = model.config.settings.model
    if tokenizer is not None:
        name += f" with tokenizer: {tokenizer.name}"

    message = (
        f"{checkpoint} holds {name}, which gives items no place by their texts alone, so "
        "add-items has no use for a table of items. Put the interactions of the new items into "
        "the data and train again"
    )
    if model.places_by_users:
        message += (
            ", or call recommend on that data, which adds them where training knew their users. In "
            "Python: model.add_items(texts, ids, users=...), the users in training who chose each "
            "item"
        )
    elif model.config["tokenizer_input"] in ("cf", "graph"):
        message += (
            ". In Python: model.add_items(texts, ids, vectors=...), a vector of each item by the "
            "collaborative model that the tokenizer was fitted to"
        )
    raise ConfigError(f"{message}.")


def columns_of_fields(table: Table, fields: list[str]) -> dict[str, str | None]:
    """The column of a table for each field of the item text; ``None`` where there is none.

    Args:
        table: of new items.
        fields: ``item_text_fields`` of the run.

    Raises:
        DataError: the table has none of them, or two columns for one.
    """
    names = [str(name) for name in table.frame.columns]
    found: dict[str, str | None] = {}
    for name in fields:
        fitting = [column for column in names if name in (column, stored_name(column))]
        if len(fitting) > 1:
            raise DataError(
                f"{table.path} has several columns for the text field {name}: "
                f"{', '.join(map(repr, fitting))}. Leave in one of them."
            )
        found[name] = fitting[0] if fitting else None
    if not any(found.values()):
        raise DataError(
            f"{table.path} has none of the columns that make an item's text ({', '.join(fields)}); "
            f"its columns are {', '.join(names)}."
        )
    return found


class NewText(NamedTuple):
    """What a table says about a new item.

    Attributes:
        text: the fields of its text, in order.
        title: the first of them, or the whole text.
    """

    text: str
    title: str


def _texts_of(
    table: Table,
    item: str | None,
    found: dict[str, str | None],
    known: set[str],
    kinds: dict[str, str],
) -> tuple[dict[str, NewText], dict[str, int]]:
    """Texts of the new items of a table by raw id, and counts of the others."""
    if item is not None:
        check_named(table, item, "item")
    key = item_column(table, Columns(item=item))
    counts = {"known": 0, "without_text": 0, "without_id": 0, "repeated": 0}
    counts["malformed"] = table.dropped.total()
    counts["read"] = len(table.frame) + counts["malformed"]
    cells = {name: table.frame[column].tolist() for name, column in found.items() if column}
    fields = list(found)
    new: dict[str, NewText] = {}
    for row, token in enumerate(ids_of(table, key, "item")):
        values = {name: text_of(column[row]) or "" for name, column in cells.items()}
        text = render_item_text(values, fields, kinds)
        if token is None:
            counts["without_id"] += 1
        elif token in known:
            counts["known"] += 1
        elif token in new:
            counts["repeated"] += 1
        elif not text:
            counts["without_text"] += 1
        else:
            title = render_item_text(values, fields[:1], kinds)
            new[token] = NewText(text, title or text)
    return new, counts


def _notes(table: Table, found: dict[str, str | None]) -> list[str]:
    """Sentences about text columns that are missing, and about rows that cannot be read."""
    notes = []
    missing = [name for name, column in found.items() if column is None]
    if missing:
        names = ", ".join(map(str, table.frame.columns))
        notes.append(
            f"{table.path} has no column {', '.join(missing)}, so the texts of the new items lack "
            f"it; its columns are {names}"
        )
    for reason, count in table.dropped.items():
        notes.append(f"{count:,} rows: {reason}; the first is {table.examples[reason]}")
    return notes
