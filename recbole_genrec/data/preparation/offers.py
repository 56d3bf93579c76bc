"""A dataset that is known and not there is made in a run, as RecBole downloads its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_genrec.data.known_datasets import RECIPES


def prepare_if_missing(config: Any, files: Sequence[Path]) -> None:
    """Make the dataset of a run where ``prepare`` knows it and its files are missing.

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
