"""Which datasets can be had, and what to do about one that is not there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_genrec.data.preparation.recipes import RECIPES
from recbole_genrec.settings.rules import nearest


def how_to_get(name: str, folder: str | Path) -> str:
    """What to do about a dataset whose files are missing.

    Args:
        name: of the dataset.
        folder: where its files were looked for.
    """
    move = "or point --data_path at the folder that holds the dataset's folder."
    if name in RECIPES:
        return f"Make it with 'recbole-genrec prepare {name}', {move}"
    near = nearest(name, {*RECIPES, *datasets_in(Path(folder).parent)} - {name})
    hint = f"Did you mean {near[0]}? " if near else ""
    return (
        f"{hint}Data of your own need no preparation: put {name}.inter, with a line of column "
        f"names like user_id:token, item_id:token and timestamp:float, into {folder}, {move}"
    )


def datasets_in(folder: Path) -> Sequence[str]:
    """Names of the datasets whose files lie below ``folder``."""
    if not folder.is_dir():
        return []
    return [path.parent.name for path in folder.glob("*/*.inter")]


def prepare_if_missing(config: Any, files: Sequence[Path]) -> None:
    """Make a dataset that ``prepare`` knows, as RecBole downloads its own in a run.

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
    from recbole_genrec.data.preparation.prepare import prepare_dataset

    logging.getLogger().info(f"{files[0]} does not exist; {name} is downloaded and prepared.")
    report = prepare_dataset(name, Path(config.settings.data_path).parent).report()
    logging.getLogger().info(report)
