"""Residual k-means.

RQ-VAE's codes (TIGER, arXiv 2305.05065, section 3.1) without a network, hence without collapse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.code_sizes import effective_sizes
from recbole_genrec.tokenizer.quantiser.kmeans import (
    check_rows,
    cluster,
    nearest,
    squared_distances,
)


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
        mean, components: of the PCA, ``[d]`` and ``[d', d]`` with orthonormal rows; ``None``
            without PCA.
    """

    codebooks: tuple[Tensor, ...]
    mean: Tensor | None = None
    components: Tensor | None = None

    @classmethod
    def fit(
        cls,
        x: Tensor,
        sizes: Sequence[int],
        seed: int = 0,
        pca_dim: int | None = None,
        n_init: int = 1,
        max_iter: int = 100,
        bounded: bool = True,
    ) -> ResidualKMeans:
        """Fit on ``x [n, d]``.

        PCA to at most ``pca_dim`` dimensions if given, then k-means level by level on what the
        levels before leave.

        Level l gets at most ``effective_sizes(n, sizes)[l]`` codes, never more than there are
        distinct residuals, and every code is used. Neither the order of the rows nor the number of
        threads changes the result. :class:`DataError` for values that are no finite numbers,
        :class:`ConfigError` for sizes or dimensions below 1.

        With ``bounded=False`` the number of rows does not bound the sizes, for rows that are a part
        of the catalogue.
        """
        if not sizes or min(sizes) < 1 or (pca_dim is not None and pca_dim < 1):
            raise ConfigError(
                "Residual k-means needs codebook_sizes and pca_dim of 1 or more, got "
                f"{list(sizes)} and {pca_dim}."
            )
        check_rows(x)
        rows, counts = torch.unique(x.detach().cpu().double(), dim=0, return_counts=True)
        mean = components = None
        with threadpool_limits(1):
            if pca_dim is not None and len(rows) > 1:
                pca = PCA(min(pca_dim, x.shape[1], len(rows) - 1), random_state=seed).fit(
                    rows.repeat_interleave(counts, 0).numpy()
                )
                # contiguous as after a reload, so that distances are the same to the last bit
                mean, components = (
                    torch.from_numpy(pca.mean_),
                    torch.from_numpy(pca.components_).contiguous(),
                )
            residual, codebooks = cls((), mean, components).project(rows), []
            for size in effective_sizes(len(x), sizes) if bounded else sizes:
                codebook = cluster(residual, counts, size, n_init, seed, max_iter)
                used, codes = torch.unique(nearest(residual, codebook), return_inverse=True)
                codebooks.append(codebook[used])
                residual = residual - codebooks[-1][codes]
        return cls(tuple(codebooks), mean, components)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return tuple(len(codebook) for codebook in self.codebooks)

    def project(self, x: Tensor) -> Tensor:
        """``x [n, d]`` in the space of the codebooks, float64 ``[n, d']``."""
        x = x.detach().cpu().double()
        if self.components is None or self.mean is None:
            return x
        return (x - self.mean) @ self.components.T

    def assign(self, x: Tensor) -> Tensor:
        """Codes of each row, int64 ``[n, L]``; equal rows get equal codes."""
        check_rows(x)
        rows, inverse = torch.unique(x.detach().cpu(), dim=0, return_inverse=True)
        residual, columns = self.project(rows), []
        for codebook in self.codebooks:
            columns.append(nearest(residual, codebook))
            residual = residual - codebook[columns[-1]]
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
        total = chosen[0]
        for vectors in chosen[1:]:
            total = total + vectors
        if self.components is None or self.mean is None:
            return total
        return total @ self.components + self.mean

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        books = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks)}
        if self.components is not None and self.mean is not None:
            books |= {"mean": self.mean, "components": self.components}
        return books

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ResidualKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        n_levels = sum(name.startswith("codebook.") for name in tensors)
        books = tuple(tensors[f"codebook.{level}"] for level in range(n_levels))
        return cls(books, tensors.get("mean"), tensors.get("components"))
