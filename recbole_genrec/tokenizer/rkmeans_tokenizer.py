"""Residual k-means on item vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import key
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans
from recbole_genrec.tokenizer.vector_tokenizer import FittedQuantiserTokenizer, VectorSettings

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class RKMeansSettings(VectorSettings):
    """Keys of ``tokenizer: rkmeans``."""

    pca_dim: int | None = key("dimensions that k-means sees; null = all", ge=1, affects="tokenizer")
    kmeans_rows: int = key(
        "items that the centroids are learned from, drawn with the seed; 0 = all",
        ge=0,
        affects="tokenizer",
        default=0,
        neutral=0,
    )


class RKMeansTokenizer(FittedQuantiserTokenizer):
    """Residual k-means, no training (our default)."""

    name = "rkmeans"
    quantiser_class = ResidualKMeans
    settings_class = RKMeansSettings
    settings: RKMeansSettings

    @property
    def revision(self) -> int:
        """1 of centroids from some items, whose number once bounded the sizes."""
        return int(self.settings.kmeans_rows > 0)

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """k-means, level by level, on what the levels before leave.

        Raises:
            ConfigError: ``kmeans_rows`` are fewer than the codes of a level.
        """
        n_rows = self.settings.kmeans_rows
        sizes = self.fitted_sizes(len(x))
        if 0 < n_rows < len(x):
            if n_rows < max(sizes):
                raise ConfigError(
                    f"kmeans_rows: {n_rows} items cannot give a level of {max(sizes)} codes. Use "
                    f"--kmeans_rows={max(sizes)} or more, or 0 for all items."
                )
            generator = np.random.default_rng(self.seed)
            rows = generator.choice(len(x), n_rows, replace=False)
            x = x[torch.from_numpy(np.sort(rows))]
        self.quantiser = ResidualKMeans.fit(x, sizes, self.seed, self.settings.pca_dim)
