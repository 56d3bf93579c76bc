"""``recbole-genrec prepare``.

The benchmark datasets, from their public sources to RecBole's atomic files.

Equal (user, item) pairs are dropped, the earliest kept, *before* the k-core (as LC-Rec does; the
order changes the counts), so the written file is a true k-core. Times are positions 1, 2, ... in
the user's sequence, because RecBole's float32 cannot hold Unix seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_genrec.data.known_datasets import RECIPES, Recipe, place_of_own_data
from recbole_genrec.data.preparation.cleaning import (
    clean_categories,
    clean_price,
    clean_text,
    in_time_order,
    keep_core,
    positions,
)
from recbole_genrec.data.preparation.readers import read_items, read_raw_interactions
from recbole_genrec.data.preparation.sources import (
    download,
    find_files,
    recbole_folder,
    recbole_url,
    unpacked,
)
from recbole_genrec.data.preparation.writing import INTERACTIONS, write_table
from recbole_genrec.errors import DataError
from recbole_genrec.settings.rules import did_you_mean

logger = getLogger(__name__)


_SAME = "OK: the counts are the published ones."
_OTHER = (
    "WARNING: the counts differ from the published ones. The source is another edition of the data "
    "or was filtered otherwise; the files are usable, but results on them are not comparable with "
    "published tables."
)


@dataclass(frozen=True)
class PreparedDataset:
    """What was written to ``folder``.

    ``text_items`` counts the items with a text row, ``fields`` the text columns written.
    """

    name: str
    folder: Path
    users: int
    items: int
    interactions: int
    text_items: int
    fields: tuple[str, ...]
    published: tuple[int, int, int]

    @property
    def as_published(self) -> bool:
        """Whether the three counts equal the published ones."""
        return (self.users, self.items, self.interactions) == self.published

    def report(self) -> str:
        """A table of counts beside the published ones, and what a difference means."""
        counts = (self.users, self.items, self.interactions)
        lines = [f"{self.name:<20}{'prepared':>12}{'published':>12}{'difference':>12}"]
        for name, count, published in zip(
            ("users", "items", "interactions"), counts, self.published, strict=True
        ):
            lines.append(f"{name:<20}{count:>12,}{published:>12,}{count - published:>+12,}")
        text = "none: use a tokenizer that needs no text"
        if self.fields:
            text = f"{', '.join(self.fields)} for {self.text_items:,} items"
        remark = _OTHER
        if self.as_published:
            remark = _SAME
        lines += [f"item text: {text}", f"written to {self.folder}", remark]
        return "\n".join(lines)


def prepare_dataset(
    name: str, data_path: str | Path = "dataset", source: str | Path | None = None
) -> PreparedDataset:
    """Write ``<data_path>/<name>/<name>.inter`` and ``.item``, each atomically.

    Args:
        name: a key of ``RECIPES``.
        data_path: folder of all datasets.
        source: a folder, zip archive or file with RecBole's atomic files, or with Amazon's review
            (and metadata) files.

    Raises:
        DataError: unknown name, no network, or a source that is missing, damaged or inside the
            folder to be written.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise DataError(
            f"`{name}` is no dataset that can be prepared: {', '.join(RECIPES)}."
            f"{did_you_mean(name, RECIPES)} {place_of_own_data('NAME', Path(data_path, 'NAME'))}."
        )
    target = Path(data_path).expanduser() / name
    source = None if source is None else Path(source).expanduser()
    if source is not None and source.resolve().is_relative_to(target.resolve()):
        raise DataError(
            f"--source={source} lies in {target}, where the prepared files are written. Move it "
            "elsewhere first."
        )
    with (
        tempfile.TemporaryDirectory(prefix="recbole-genrec-") as scratch,
        unpacked(_fetch(name, source, scratch), Path(scratch)) as folder,
    ):
        files = find_files(folder, recipe.hint)
        frame = in_time_order(read_raw_interactions(files.interactions))
        if files.items is not None and recipe.known_items_only:
            known = read_items(files.items, set(frame["item_id"]), {})
            frame = frame[frame["item_id"].isin(known.keys())]
        frame = keep_core(frame, recipe.core)
        if frame.empty:
            raise DataError(
                f"{files.interactions}: nothing is left after the {recipe.core}-core filter. Is "
                "this the whole dataset?"
            )
        rows = _item_rows(files.items, list(frame["item_id"].unique()), recipe)
    fields = tuple(field for field in recipe.fields if _has_text(rows, field))
    n_texts = 0
    if fields:
        n_texts = len(rows)
        types = {field: recipe.fields[field].type for field in fields}
        cells = ([item, *(row[field] for field in types)] for item, row in rows.items())
        write_table(target / f"{name}.item", {"item_id": "token", **types}, cells)
    else:
        logger.warning("%s: the source has no item text; no .item file is written", name)
        (target / f"{name}.item").unlink(missing_ok=True)
    steps = positions(frame["user_id"]).tolist()
    events = zip(frame["user_id"], frame["item_id"], map(str, steps), strict=True)
    write_table(target / f"{name}.inter", INTERACTIONS, events)
    counts = (frame["user_id"].nunique(), frame["item_id"].nunique(), len(frame))
    return PreparedDataset(name, target, *counts, n_texts, fields, recipe.published)


def prepare_if_missing(config: Any, files: Sequence[Path]) -> None:
    """Make the dataset of a run where its files are missing, as RecBole downloads its own.

    Args:
        config: a ``GenRecConfig``.
        files: its files of interactions; nothing happens when one of them is there.

    Raises:
        DataError: it cannot be downloaded; the message says what to fetch.
    """
    name = config.settings.dataset
    if name not in RECIPES or config.settings.benchmark_filename is not None:
        return
    if any(file.is_file() for file in files):
        return
    getLogger().info(f"{files[0]} does not exist; {name} is downloaded and prepared.")
    report = prepare_dataset(name, Path(config.settings.data_path).parent).report()
    getLogger().info(report)


def _has_text(rows: dict[str, dict[str, str]], field: str) -> bool:
    return any(row[field] for row in rows.values())


def _fetch(name: str, source: Path | None, scratch: str) -> Path:
    """The given source, RecBole's own copy of ml-100k, or a fresh download in ``scratch``."""
    if source is not None:
        return source
    if name == "ml-100k":
        return recbole_folder() / "dataset_example" / "ml-100k"
    download(recbole_url(RECIPES[name].recbole_name), Path(scratch), name)
    return Path(scratch)


def _item_rows(path: Path | None, items: list[str], recipe: Recipe) -> dict[str, dict[str, str]]:
    """Cleaned text columns by item id, in the order of ``items``.

    Items that the source does not describe are left out.
    """
    if path is None:
        return {}
    raw = read_items(
        path, set(items), {field: spec.sources for field, spec in recipe.fields.items()}
    )
    rows = {}
    for item in items:
        if item in raw:
            rows[item] = {
                field: _clean(raw[item][field], spec.clean) for field, spec in recipe.fields.items()
            }
    return rows


def _clean(value: object, how: str) -> str:
    if how == "categories":
        categories = value if isinstance(value, list) else str(value)
        return clean_categories(categories)
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return clean_price(text) if how == "price" else clean_text(text)
