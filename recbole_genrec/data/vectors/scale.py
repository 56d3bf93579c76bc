"""The scale of the columns of vectors: a mean and a factor each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.errors import DataError

CONSTANT = 1e-6
"""A column counts as constant when its deviation is below this share of its root mean square, or of
the lower quartile of the deviations of the others (our choice, unpublished: float32 rounding makes
constant columns differ in the last digit, and fills columns that should be zero).
"""


@dataclass(frozen=True, eq=False)
class Scale:
    """``(x - centre) * factor`` for each column.

    Attributes:
        centre: float64 ``[D]``.
        factor: float64 ``[D]``; 0 for a constant column.
    """

    centre: Tensor
    factor: Tensor

    @classmethod
    def of(cls, x: np.ndarray, standardize: bool = True) -> Scale:
        """The scale that gives each column of ``x`` zero mean and unit variance.

        Args:
            x: ``[n, D]``, real rows only, without that of the padding item.
            standardize: with False the scale leaves vectors as they are.

        Raises:
            DataError: ``x`` holds values that are not finite.
        """
        if not standardize:
            return cls(torch.zeros(x.shape[1]).double(), torch.ones(x.shape[1]).double())
        x = np.asarray(x, dtype=np.float64)
        if not np.isfinite(x).all():
            bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise DataError(
                f"Embeddings cannot be standardised: row {bad} holds values that are not finite. "
                "Compute them again."
            )
        centre = x.mean(axis=0)
        deviation = (x - centre).std(axis=0)
        varies = deviation > CONSTANT * np.sqrt(np.mean(x**2, axis=0))
        if varies.any():
            usual = np.quantile(deviation[varies], 0.25, method="lower")
            varies &= deviation > CONSTANT * usual
        factor = np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)
        return cls(torch.from_numpy(centre), torch.from_numpy(factor))

    @property
    def width(self) -> int:
        """D, the number of columns."""
        return len(self.centre)

    def apply(self, vectors: np.ndarray | Tensor) -> Tensor:
        """``vectors [n, D]`` in this scale, float32 on the CPU."""
        rows = torch.as_tensor(vectors).detach().cpu()
        return ((rows - self.centre) * self.factor).float()

    def undo(self, scaled: Tensor) -> Tensor:
        """The vectors that ``scaled [n, D]`` stand for, float64; a constant column is its mean."""
        deviation = torch.where(self.factor == 0, 0.0, 1 / self.factor)
        return scaled * deviation + self.centre

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        return {"centre": self.centre, "factor": self.factor}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Scale:
        """The scale whose :meth:`tensors` are among these."""
        return cls(tensors["centre"], tensors["factor"])


def standardised(vectors: np.ndarray, n_fitted: int) -> np.ndarray:
    """Item vectors in the :class:`Scale` of rows 1 to ``n_fitted`` - 1, float32.

    Args:
        vectors: ``[n_items, D]``; row 0, the padding item, becomes zero.
        n_fitted: rows that give the scale, the padding item among them.
    """
    scaled = Scale.of(vectors[1:n_fitted]).apply(vectors)
    scaled[0] = 0
    return scaled.numpy()
