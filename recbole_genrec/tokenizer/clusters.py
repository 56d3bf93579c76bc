"""A coarse cluster of similar items and a place in it: two codes an item."""

from __future__ import annotations

import math
from typing import Literal

from recbole_genrec.settings.declaration import key
from recbole_genrec.tokenizer.code_sizes import effective_sizes
from recbole_genrec.tokenizer.rkmeans_tokenizer import RKMeansSettings, RKMeansTokenizer

ITEMS_EACH = 750
"""Items of a cluster on average, where the catalogue is neither small nor very large."""

FEWEST = 8
"""Clusters of a small catalogue."""


class ClustersSettings(RKMeansSettings):
    """Keys of ``tokenizer: clusters``."""

    codebook_sizes: list[int] | Literal["auto"] = key(  # type: ignore[assignment]
        "clusters, one number; auto = one for 750 items, at least 8, at most the root of the "
        "number of items",
        ge=1,
        affects="tokenizer",
    )


class ClustersTokenizer(RKMeansTokenizer):
    """k-means clusters of item vectors; the extra code counts the items of each.

    After the first code an item competes with all others of its cluster. With more and finer
    levels it competes with few, which a tree of codes learns by heart (ours, unpublished; figures
    in ``docs/above-sasrec.md``).
    """

    name = "clusters"
    settings_class = ClustersSettings
    settings: ClustersSettings

    @classmethod
    def auto_sizes(cls, *counts: int) -> list[int]:
        """A number of clusters; the first count is that of the items."""
        n_items = counts[0]
        few = min(n_items // ITEMS_EACH, math.isqrt(n_items))
        return list(effective_sizes(n_items, [max(FEWEST, few)]))
