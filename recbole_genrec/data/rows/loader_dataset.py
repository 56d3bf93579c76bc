"""The rows behind a loader, and loaders of some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def dataset_of(loader: Any) -> Any:
    """RecBole's dataset that a loader makes batches of, which it keeps to itself.

    Args:
        loader: one of RecBole's.
    """
    return loader._dataset


def part_of(config, loader, rows: torch.Tensor):
    """An evaluation loader of some rows of another one.

    Args:
        config: settings of the run.
        loader: of an evaluation.
        rows: numbers int64 ``[n]``, or which rows, bool ``[rows of the loader]``.
    """
    data = dataset_of(loader)
    subset = data.copy(data.inter_feat[rows])
    return type(loader)(config, subset, loader._sampler, shuffle=False)


def drawn_rows(n_rows: int, count: int, seed: int) -> torch.Tensor:
    """Numbers of rows, drawn with the seed and ascending, int64 ``[count]``."""
    drawn = np.random.default_rng(seed).choice(n_rows, count, replace=False)
    return torch.from_numpy(np.sort(drawn))
