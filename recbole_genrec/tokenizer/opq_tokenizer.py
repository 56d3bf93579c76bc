"""Parallel codes of item vectors by optimised product quantisation, as in RPG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from recbole_genrec.settings.declaration import key
from recbole_genrec.tokenizer.quantiser.product_kmeans import ProductKMeans
from recbole_genrec.tokenizer.vectors import VectorSettings, VectorTokenizer

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class OPQSettings(VectorSettings):
    """Keys of ``tokenizer: opq``."""

    opq_rounds: int = key(
        "alternations of codes and rotation; 0 = product quantisation without a rotation",
        ge=0,
        affects="tokenizer",
    )


class OPQTokenizer(VectorTokenizer):
    """Many codes an item, each of its own part of a rotated vector (RPG, arXiv 2506.05781, 2.2)."""

    name = "opq"
    settings_class = OPQSettings
    settings: OPQSettings
    codes_are_path = False

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Rotation and codebooks."""
        settings = self.settings
        self.quantiser = ProductKMeans.fit(
            x, settings.codebook_sizes, self.seed, settings.opq_rounds
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scaling, rotation and codebooks."""
        tensors, meta = super().state()
        return {**tensors, **self.quantiser.tensors()}, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        scale = ("centre", "factor")
        self.quantiser = ProductKMeans.from_tensors(
            {name: value for name, value in tensors.items() if name not in scale}
        )
