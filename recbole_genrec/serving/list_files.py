"""Tables of lists in files: Parquet, CSV, TSV or JSON lines, joined from parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.storage.atomic import atomic_write

TYPES = {
    "user_id": pa.string(),
    "rank": pa.int32(),
    "item_id": pa.string(),
    "title": pa.string(),
    "score": pa.float64(),
    "certified": pa.bool_(),
    "codes": pa.string(),
}
FORMATS = (".parquet", ".csv", ".tsv", ".jsonl")


def check_format(output: Path) -> None:
    """Refuse a file whose ending names no format.

    Raises:
        ConfigError: names the endings.
    """
    if output.suffix not in FORMATS:
        raise ConfigError(
            f"--output={output} must end in {', '.join(FORMATS)}, which says how it is written."
        )


def write_part(path: Path, tables: list[pd.DataFrame]) -> None:
    """Write the lists of some users as one Parquet file, or leave nothing behind."""
    frame = pd.concat(tables, ignore_index=True)
    schema = pa.schema([(name, TYPES[name]) for name in frame.columns])
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def join_parts(files: Iterable[Path], output: Path) -> int:
    """Write the rows of all parts, in their order, to one file; one part at a time is in memory.

    Args:
        files: Parquet files of :func:`write_part`.
        output: a file of a format in :data:`FORMATS`.

    Returns:
        The number of rows.

    Raises:
        ArtefactError: a part is missing or damaged, or the file cannot be written.
    """
    with atomic_write(output) as temporary:
        if output.suffix == ".parquet":
            return _write_parquet(files, temporary)
        return _write_text(files, temporary, output.suffix)


def _write_parquet(files: Iterable[Path], target: Path) -> int:
    writer = None
    count = 0
    for part in files:
        table = _read(part)
        if writer is None:
            writer = pq.ParquetWriter(target, table.schema)
        writer.write_table(table.cast(writer.schema))
        count += table.num_rows
    if writer is not None:
        writer.close()
    return count


def _write_text(files: Iterable[Path], target: Path, ending: str) -> int:
    count = 0
    with open(target, "w", encoding="utf-8", newline="") as stream:
        for number, part in enumerate(files):
            rows = _read(part)
            count += rows.num_rows
            _write_rows(rows, stream, ending, header=number == 0)
    return count


def _write_rows(rows: pa.Table, stream: IO[str], ending: str, header: bool) -> None:
    if ending == ".jsonl":
        for row in rows.to_pylist():
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    separator = "," if ending == ".csv" else "\t"
    rows.to_pandas().to_csv(stream, sep=separator, index=False, header=header, lineterminator="\n")


def join_shards(shards: list[Path], output: Path) -> None:
    """Write the rows of finished files of shards to one file of the same format."""
    if output.suffix == ".parquet":
        join_parts(shards, output)
        return
    has_header = output.suffix != ".jsonl"
    with atomic_write(output) as temporary, open(temporary, "wb") as stream:
        for number, shard in enumerate(shards):
            with open(shard, "rb") as source:
                if has_header and number > 0:
                    source.readline()
                shutil.copyfileobj(source, stream)


def _read(part: Path) -> pa.Table:
    try:
        return pq.read_table(part)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtefactError(
            f"{part} cannot be read ({error}). Delete it and give the command again that makes it."
        ) from error
