"""Residual k-means.

RQ-VAE's codes (TIGER, arXiv 2305.05065, section 3.1) without a network, hence without collapse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.kmeans import (
    check_rows,
    cluster,
    nearest,
    squared_distances,
)
from recbole_genrec.tokenizer.quantiser.pca import Directions


def residual_path(
    points: Tensor, codebooks: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Walk through ``codebooks``: at each level take the nearest code and subtract it.

    The codebooks are L tensors ``[K_l, d]``.

    Yields for each level the residual of ``points [n, d]`` that enters it ``[n, d]``, its squared
    distances ``[n, K_l]`` and the codes ``[n]``, the first of equally near ones.
    """
    for codebook in codebooks:
        distances = squared_distances(points, codebook)
        codes = distances.argmin(1)
        yield points, distances, codes
        points = points - codebook[codes]


@dataclass(frozen=True, eq=False)
class ResidualKMeans:
    """A fitted quantiser of L levels. All tensors are float64; d' = PCA dimensions or d.

    Attributes:
        codebooks: L tensors ``[K_l, d']``.
        directions: the space of the codebooks; ``None`` without PCA.
    """

    codebooks: tuple[Tensor, ...]
    directions: Directions | None = None

    @classmethod
    def fit(
        cls,
        x: Tensor,
        sizes: Sequence[int],
        seed: int = 0,
        pca_dim: int | None = None,
    ) -> ResidualKMeans:
        """PCA where it is asked for, then k-means level by level on what the levels before leave.

        Every code is used. Neither the order of the rows nor the number of threads changes the
        result.

        Args:
            x: ``[n, d]``.
            sizes: codes of each level, at most, and never more than there are distinct residuals.
            seed: of everything random.
            pca_dim: dimensions of the PCA, at most; ``None`` for no PCA.

        Raises:
            ConfigError: sizes or dimensions below 1.
            DataError: no rows, or values that are no finite numbers.
        """
        if not sizes or min(sizes) < 1 or (pca_dim is not None and pca_dim < 1):
            raise ConfigError(
                "Residual k-means needs codebook_sizes and pca_dim of 1 or more, got "
                f"{list(sizes)} and {pca_dim}."
            )
        check_rows(x)
        rows, counts = torch.unique(x.detach().cpu().double(), dim=0, return_counts=True)
        directions = None
        codebooks = []
        with threadpool_limits(1):
            if pca_dim is not None and len(rows) > 1:
                n_dims = min(pca_dim, x.shape[1], len(rows) - 1)
                directions = Directions.fit(rows.repeat_interleave(counts, 0), n_dims, seed)
            residual = cls((), directions).project(rows)
            for size in sizes:
                codebook = cluster(residual, counts, size, seed)
                used, codes = torch.unique(nearest(residual, codebook), return_inverse=True)
                codebooks.append(codebook[used])
                residual = residual - codebooks[-1][codes]
        return cls(tuple(codebooks), directions)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return tuple(len(codebook) for codebook in self.codebooks)

    def project(self, x: Tensor) -> Tensor:
        """``x [n, d]`` in the space of the codebooks, float64 ``[n, d']``."""
        if self.directions is None:
            return x.detach().cpu().double()
        return self.directions.project(x)

    def assign(self, x: Tensor) -> Tensor:
        """Codes of each row, int64 ``[n, L]``; equal rows get equal codes."""
        check_rows(x)
        rows, inverse = torch.unique(x.detach().cpu(), dim=0, return_inverse=True)
        residual = self.project(rows)
        columns = []
        for codebook in self.codebooks:
            codes = nearest(residual, codebook)
            columns.append(codes)
            residual = residual - codebook[codes]
        return torch.stack(columns, dim=1)[inverse]

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Squared distances of the residual that enters each level on the way of :meth:`assign`.

        L tensors float64 ``[n, K_l]``.
        """
        return [distances for _, distances, _ in residual_path(self.project(x), self.codebooks)]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Vectors float64 ``[n, d]`` that ``codes [n, l]`` of the first levels stand for."""
        chosen = [
            codebook[column]
            for codebook, column in zip(self.codebooks, codes.unbind(1), strict=False)
        ]
        total = sum(chosen[1:], chosen[0])
        return total if self.directions is None else self.directions.restore(total)

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        books = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks)}
        if self.directions is not None:
            books |= self.directions.tensors()
        return books

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ResidualKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        n_levels = sum(name.startswith("codebook.") for name in tensors)
        books = tuple(tensors[f"codebook.{level}"] for level in range(n_levels))
        directions = Directions.from_tensors(tensors) if "mean" in tensors else None
        return cls(books, directions)
