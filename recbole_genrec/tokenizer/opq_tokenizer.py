"""Parallel codes of item vectors by optimised product quantisation, as in RPG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from recbole_genrec.settings.declaration import key
from recbole_genrec.tokenizer.quantiser.product_kmeans import ProductKMeans
from recbole_genrec.tokenizer.vector_tokenizer import FittedQuantiserTokenizer, VectorSettings

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class OPQSettings(VectorSettings):
    """Keys of ``tokenizer: opq``."""

    opq_rounds: int = key(
        "alternations of codes and rotation; 0 = product quantisation without a rotation",
        ge=0,
        affects="tokenizer",
    )


class OPQTokenizer(FittedQuantiserTokenizer):
    """Many codes an item, each of its own part of a rotated vector (RPG, arXiv 2506.05781, 2.2)."""

    name = "opq"
    quantiser_class = ProductKMeans
    settings_class = OPQSettings
    settings: OPQSettings
    codes_are_path = False
    revision = 1

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Rotation and codebooks."""
        sizes = self.fitted_sizes(len(x))
        self.quantiser = ProductKMeans.fit(x, sizes, self.seed, self.settings.opq_rounds)
