"""The principal directions of vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Directions:
    """A space of d' dimensions in that of the vectors. All tensors are float64.

    Attributes:
        mean: ``[d]``, where the space has its origin.
        components: ``[d', d]``, orthonormal rows.
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, rows: Tensor, n_dims: int, seed: int) -> Directions:
        """The directions of largest variance.

        The result depends on the number of threads; limit them to one.

        Args:
            rows: float64 ``[n, d]``, a row as often as it counts.
            n_dims: d', below n and at most d; 0 leaves the mean alone.
            seed: of everything random.
        """
        mean = torch.from_numpy(rows.numpy().mean(0))
        if not n_dims:
            return cls(mean, rows.new_zeros(0, rows.shape[1]))
        pca = PCA(n_dims, random_state=seed).fit(rows.numpy())
        # contiguous as after a reload, so that distances are the same to the last bit
        return cls(mean, torch.from_numpy(pca.components_).contiguous())

    def project(self, x: Tensor) -> Tensor:
        """``x [n, d]`` in this space, float64 ``[n, d']`` on the CPU."""
        return (x.detach().cpu().double() - self.mean) @ self.components.T

    def restore(self, points: Tensor) -> Tensor:
        """The vectors ``[n, d]`` at ``points [n, d']`` of this space."""
        return points @ self.components + self.mean

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        return {"mean": self.mean, "components": self.components}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Directions:
        """The directions whose :meth:`tensors` are among these."""
        return cls(tensors["mean"], tensors["components"])
