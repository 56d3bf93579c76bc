"""The rows behind a loader, which RecBole keeps to itself."""

from __future__ import annotations

from typing import Any


def dataset_of(loader: Any) -> Any:
    """RecBole's dataset that a loader makes batches of.

    Args:
        loader: one of RecBole's.
    """
    return loader._dataset
