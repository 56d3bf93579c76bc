"""``recbole-genrec import``: tables of one's own to ``dataset/NAME``, with a count of what is lost.

Interactions stand in the order of time; rows of one user at one time stay in the order of the
files. Rows are dropped in this order: unreadable, rating, repeated pairs, k-core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_genrec.data.files.cell_values import RESERVED
from recbole_genrec.data.preparation.cleaning import keep_core
from recbole_genrec.data.preparation.own.columns import (
    Columns,
    find_interaction_columns,
    is_interactions,
    item_column,
    use_one_name,
)
from recbole_genrec.data.preparation.own.files import check_target, write_dataset
from recbole_genrec.data.preparation.own.item_texts import text_columns
from recbole_genrec.data.preparation.own.tables import Table, ids_of, read_table, text_of
from recbole_genrec.data.preparation.own.times import finer_ranks, read_times
from recbole_genrec.errors import ConfigError, DataError

REPEATED = ("keep", "first", "last")
IDS = ("user_id", "item_id")


@dataclass
class ImportedData:
    """What an import read, dropped and wrote.

    Attributes:
        name: of the dataset.
        folder: where it lies.
        rows: rows of interactions that were read.
        users: users that are left.
        items: items that are left in interactions.
        interactions: rows that are left.
        described: items with a text.
        texts: columns of the item text.
        dropped: rows that were dropped, by reason, in the order of the steps.
        notes: what else people should know.
        examples: the first row of a reason.
    """

    name: str
    folder: Path
    rows: int = 0
    users: int = 0
    items: int = 0
    interactions: int = 0
    described: int = 0
    texts: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)

    def report(self) -> str:
        """The counts, for people."""
        lines = [f"{'interactions read':<52}{self.rows:>12,}"]
        for reason, count in self.dropped.items():
            lines.append(f"  dropped: {reason:<42}{count:>11,}")
            if reason in self.examples:
                lines.append(f"    first: {self.examples[reason]}")
        lines.append(f"{'interactions written':<52}{self.interactions:>12,}")
        lines.append(f"{'users':<52}{self.users:>12,}")
        lines.append(f"{'items':<52}{self.items:>12,}")
        if self.texts:
            lines.append(f"{'items with a text':<52}{self.described:>12,}")
            lines.append(f"item text: {', '.join(self.texts)}")
        else:
            lines.append(
                "item text: none; TIGER and TimelineRec take --tokenizer=cid, which needs none"
            )
        lines += self.notes
        lines.append(
            f"Written to {self.folder}. Next: recbole-genrec run --model=TimelineRec "
            f"--dataset={self.name}"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class ImportOptions:
    """How tables are read and what is left out.

    Attributes:
        k_core: users and items need so many interactions; 0 = no such filter.
        repeated: of equal pairs of user and item, ``keep`` all, the ``first`` or the ``last``.
        min_rating: the lowest rating that counts; ``None`` = all.
        time_format: how times are written, as for Python's ``strptime``.
        encoding: of text files.
        separator: what stands between columns of text files.
    """

    k_core: int = 0
    repeated: str = "keep"
    min_rating: float | None = None
    time_format: str | None = None
    encoding: str = "utf-8"
    separator: str | None = None


def import_tables(
    files: Sequence[str | Path],
    name: str,
    columns: Columns | None = None,
    options: ImportOptions | None = None,
    data_path: str | Path = "dataset",
) -> ImportedData:
    """Make a dataset of tables.

    Args:
        files: tables of interactions (with a column of users) and of items, in any order.
        name: of the dataset.
        columns: what the columns mean; what is left out is guessed.
        options: how tables are read and what is left out.
        data_path: folder of all datasets.

    Raises:
        ConfigError: a wrong option or name, a file that is named twice, or settings of an earlier
            import that cannot be read.
        DataError: a file or a column is missing, nothing is left, or times cannot be understood.
    """
    options = options or ImportOptions()
    columns = replace(columns) if columns is not None else Columns()
    columns.guesses = []
    _check(options)
    result = ImportedData(name, check_target(name, data_path))
    paths = [Path(file).expanduser() for file in files]
    _refuse_repeated_files(paths)
    tables = [read_table(path, options.encoding, options.separator) for path in paths]
    use_one_name(tables, columns)
    events = [table for table in tables if is_interactions(table, columns)]
    others = [table for table in tables if not is_interactions(table, columns)]
    if not events:
        listed = "; ".join(
            f"{table.path.name}: {', '.join(table.frame.columns)}" for table in tables
        )
        raise DataError(
            f"No file has a column of users, so none holds interactions ({listed}). Say "
            "--user=COLUMN."
        )
    find_interaction_columns(events[0], columns)
    frame = _interactions(events, columns, options, result)
    frame = _chosen(frame, columns, options, result)
    texts = _item_texts(events, others, columns, result)
    _describe(frame, texts, result)
    kept = write_dataset(result.folder, name, frame, texts, result.texts)
    if kept:
        result.notes.append(f"kept in {name}.yaml: {', '.join(kept)}")
    result.notes = [*columns.guesses, *result.notes]
    return result


def _check(options: ImportOptions) -> None:
    if options.repeated not in REPEATED:
        raise ConfigError(f"--duplicates={options.repeated} must be one of {', '.join(REPEATED)}.")
    if options.k_core < 0:
        raise ConfigError(f"--k_core={options.k_core} must be at least 0; 0 = no such filter.")


def _interactions(
    tables: Sequence[Table], columns: Columns, options: ImportOptions, result: ImportedData
) -> pd.DataFrame:
    """Ids, times and ratings of all tables, without rows that cannot be read."""
    frames = []
    times: list[object] = []
    for number, table in enumerate(tables):
        for role in ("user", "item"):
            _check_same(table, tables[0], getattr(columns, role), role)
        result.rows += len(table.frame) + table.dropped.total()
        result.dropped.update(table.dropped)
        result.examples = {**table.examples, **result.examples}
        frame = pd.DataFrame(
            {
                "user_id": ids_of(table, str(columns.user), "user"),
                "item_id": ids_of(table, str(columns.item), "item"),
                "place": [f"{table.path.name}, line {line}" for line in table.lines],
                "table": number,
            },
            dtype=object,
        )
        if columns.rating in table.frame:
            frame["rating"] = pd.to_numeric(table.frame[columns.rating], errors="coerce")
        frames.append(frame)
        if columns.time is not None:
            _check_same(table, tables[0], columns.time, "time")
            times += table.frame[columns.time].tolist()
    frame = pd.concat(frames, ignore_index=True)
    frame["timestamp"] = np.arange(1, len(frame) + 1, dtype=np.float64)
    frame["finer"] = 0
    frame["has_time"] = True
    if columns.time is not None:
        frame["has_time"] = [text_of(time) is not None for time in times]
        frame["timestamp"] = read_times(times, options.time_format)
        frame["finer"] = finer_ranks(times)
    for column in IDS:
        frame = _without(frame, frame[column].isna(), f"no {column.removesuffix('_id')}", result)
        unusable = frame[column].isin(RESERVED)
        frame = _without(frame, unusable, f"{column} that means a missing value", result)
    for number, table in enumerate(tables):
        _check_times(frame[frame["table"] == number], table, columns)
    before = len(frame)
    frame = _without(frame, frame["timestamp"].isna(), "no time that can be read", result)
    if 2 * len(frame) < before:
        raise DataError(
            f"{before - len(frame):,} of {before:,} rows have no time in {columns.time}. Name "
            "another column with --time, or complete it."
        )
    return frame


def _check_times(frame: pd.DataFrame, table: Table, columns: Columns) -> None:
    """Check that most times of a file can be read; cells without one do not count.

    Raises:
        DataError: more than half cannot.
    """
    frame = frame[frame["has_time"]]
    unread = frame["timestamp"].isna()
    if 2 * unread.sum() <= len(frame):
        return
    example = frame["place"][unread].iloc[0]
    raise DataError(
        f"{unread.sum():,} of {len(frame):,} times in {columns.time} of {table.path} cannot be "
        f"read ({example}). All files need one form of times. Say how they are written, for "
        "example --time_format='%d/%m/%Y %H:%M'."
    )


def _check_same(table: Table, first: Table, column: str | None, role: str) -> None:
    if column not in table.frame:
        raise DataError(
            f"{table.path} has no column {column!r}, which holds the {role}s in {first.path}. "
            f"Files of interactions need the same columns; for two names of one say "
            f"--{role}={column},OTHER."
        )


def _without(
    frame: pd.DataFrame, bad: pd.Series, reason: str, result: ImportedData
) -> pd.DataFrame:
    """The rows that are not bad; the others are counted, and the first is kept as an example."""
    count = int(bad.sum())
    if not count:
        return frame
    result.dropped[reason] += count
    result.examples.setdefault(reason, str(frame["place"][bad].iloc[0]))
    return frame[~bad]


def _chosen(
    frame: pd.DataFrame, columns: Columns, options: ImportOptions, result: ImportedData
) -> pd.DataFrame:
    """The rows in the order of time, after the filters that were asked for."""
    if options.min_rating is not None:
        if "rating" not in frame:
            raise DataError("--min_rating needs a column of ratings. Say --rating=COLUMN.")
        low = ~(frame["rating"] >= options.min_rating)
        reason = f"{columns.rating} below {options.min_rating:g}, or none"
        frame = _without(frame, low, reason, result)
        result.examples.pop(reason, None)
    users = pd.factorize(frame["user_id"])[0]
    finer, times = (frame[name].to_numpy() for name in ("finer", "timestamp"))
    order = np.lexsort([finer, times, users])  # stable
    frame = frame.iloc[order]

    repeated = frame.duplicated(list(IDS))
    if options.repeated == "keep":
        if repeated.any():
            result.notes.append(
                f"{int(repeated.sum()):,} interactions repeat an earlier item of their user and "
                "stay; --duplicates=first drops them"
            )
    else:
        if options.repeated == "last":
            repeated = frame.duplicated(list(IDS), keep="last")
        reason = f"repeated item of a user ({options.repeated} kept)"
        frame = _without(frame, repeated, reason, result)
        result.examples.pop(reason, None)
    if options.k_core > 0:
        before = len(frame)
        frame = keep_core(frame, options.k_core)
        result.dropped[f"users or items below the {options.k_core}-core"] += before - len(frame)
    if frame.empty:
        raise DataError(
            f"Nothing is left of {result.rows:,} interactions: "
            f"{', '.join(f'{count:,} {reason}' for reason, count in result.dropped.items())}."
        )
    return frame


def _refuse_repeated_files(paths: Sequence[Path]) -> None:
    """Check that no file is named twice: its rows would count twice.

    Raises:
        ConfigError: one is.
    """
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"{path} is named twice. Name every file once.")
        seen.add(path.resolve())


def _item_texts(
    events: Sequence[Table], others: Sequence[Table], columns: Columns, result: ImportedData
) -> dict[str, dict[str, str]]:
    """Text columns by item id; the first row of an item that has a text wins, column by column."""
    tables = others or events
    ids = [
        str(columns.item) if table in events else item_column(table, columns) for table in tables
    ]
    roles = (columns.user, columns.item, columns.time, columns.rating)
    taken = {name for name in (*roles, *ids) if name is not None}
    event_item = None if others else columns.item
    result.texts = text_columns(tables, columns, taken, event_item)
    texts: dict[str, dict[str, str]] = {}
    repeated = 0
    for table, key in zip(tables, ids, strict=True):
        present = [name for name in result.texts if name in table.frame]
        cells = [table.frame[name].tolist() for name in present]
        for row, item in enumerate(ids_of(table, key, "item")):
            if item is None:
                continue
            known = texts.setdefault(item, {})
            repeated += bool(known) and table not in events
            for name, values in zip(present, cells, strict=True):
                value = text_of(values[row])
                if value is not None:
                    known.setdefault(name, value)
    if repeated:
        result.notes.append(f"{repeated:,} items have several rows; the first text counts")
    for table in others:
        for reason, count in table.dropped.items():
            result.notes.append(f"{table.path.name}: {count:,} rows dropped, {reason}")
    return texts


def _describe(frame: pd.DataFrame, texts: dict[str, dict[str, str]], result: ImportedData) -> None:
    """Count what is left."""
    items = set(frame["item_id"])
    result.users = frame["user_id"].nunique()
    result.items = len(items)
    result.interactions = len(frame)
    result.described = sum(bool(texts.get(item)) for item in items)
    if result.texts:
        _describe_texts(items, texts, result)
    few = int((frame["user_id"].value_counts() < 3).sum())
    if few:
        result.notes.append(
            f"{few:,} users have fewer than 3 interactions; they are trained on, not tested"
        )


def _describe_texts(
    items: set[str], texts: dict[str, dict[str, str]], result: ImportedData
) -> None:
    """Say which items lack a text, and which texts belong to items without interactions."""
    missing = result.items - result.described
    if missing:
        result.notes.append(f"{missing:,} items have no text; theirs is 'item'")
    cold = len(texts.keys() - items)
    if cold:
        result.notes.append(
            f"{cold:,} items of the tables have no interaction; run --catalogue=item_file takes "
            "them into the lists, add-items adds them later"
        )
