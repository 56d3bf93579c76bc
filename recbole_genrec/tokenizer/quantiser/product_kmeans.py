"""Optimised product quantisation: k-means in parts of a rotated space.

Product quantisation (Jegou, Douze, Schmid, TPAMI 2011) cuts a vector into M parts and clusters each
part by itself. Its optimised form (Ge, He, Ke, Sun, "Optimized Product Quantization", CVPR 2013)
learns a rotation before the cut. The codes stand side by side: none depends on another.
"""

from __future__ import annotations

from collections.abc import Sequence
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

SAMPLE = 65_536
"""Distinct rows that are fitted to; of more rows a sample is drawn (our choice)."""
START_ITERATIONS = 10
"""Iterations of the k-means that the alternation starts from (our choice)."""
LAST_ITERATIONS = 25
"""Most iterations of the k-means after the last rotation (our choice)."""


@dataclass(frozen=True, eq=False)
class ProductKMeans:
    """A fitted quantiser of M parallel codes. All tensors are float64.

    Attributes:
        rotation: orthonormal ``[d, d]``; a row vector is rotated by ``x @ rotation``.
        codebooks: M tensors ``[K_m, d_m]``, one for each part of the rotated vectors.
    """

    rotation: Tensor
    codebooks: tuple[Tensor, ...]

    @classmethod
    def fit(cls, x: Tensor, sizes: Sequence[int], seed: int = 0, rounds: int = 20) -> ProductKMeans:
        """Fit on vectors.

        A round assigns codes, moves the centroids to the means of their rows, and takes the
        rotation that brings the vectors nearest to their centroids (Ge et al., section 3.1, the
        non-parametric form). The rotation starts from the principal directions, shared out so that
        all parts have similar variance (section 3.2).

        Every code is used. The order of the rows does not change the result.

        Args:
            x: ``[n, d]``.
            sizes: codes of each part, at most.
            seed: of everything random.
            rounds: alternations of codes and rotation; 0 = product quantisation without rotation.

        Raises:
            ConfigError: more parts than dimensions, or a size below 1.
            DataError: values that are no finite numbers.
        """
        check_rows(x)
        n_dims = x.shape[1]
        if not sizes or min(sizes) < 1 or len(sizes) > n_dims:
            raise ConfigError(
                f"codebook_sizes {list(sizes)}: product quantisation cuts vectors of {n_dims} "
                f"dimensions into one part a code. Give 1 to {n_dims} sizes of 1 or more."
            )
        rows, counts = torch.unique(x.detach().cpu(), dim=0, return_counts=True)
        rows, counts = _sampled(rows.float(), counts, seed)
        widths = part_widths(n_dims, len(sizes))
        with threadpool_limits(1):
            rotation = torch.eye(n_dims)
            if rounds:
                rotation = balanced_directions(rows, counts, widths)
            codebooks = []
            subvectors = (rows @ rotation).split(widths, dim=1)
            for part, size in zip(subvectors, sizes, strict=True):
                codebook = cluster(part, counts, size, seed, max_iter=START_ITERATIONS)
                codebooks.append(codebook.float())
            for _ in range(rounds):
                subvectors = (rows @ rotation).split(widths, dim=1)
                codebooks = [
                    _lloyd(part, counts, book)[0]
                    for part, book in zip(subvectors, codebooks, strict=True)
                ]
                rotation = nearest_rotation(rows, _decoded(subvectors, codebooks), counts)
            subvectors = (rows @ rotation).split(widths, dim=1)
            codebooks = [
                _converged(part, counts, book)
                for part, book in zip(subvectors, codebooks, strict=True)
            ]
        return cls(rotation.double(), tuple(book.double() for book in codebooks))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each part."""
        return tuple(len(codebook) for codebook in self.codebooks)

    def subvectors(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rotated vectors, cut: ``x [n, d]`` -> M tensors float64 ``[n, d_m]``."""
        rotated = x.detach().cpu().double() @ self.rotation
        return rotated.split([book.shape[1] for book in self.codebooks], dim=1)

    def assign(self, x: Tensor) -> Tensor:
        """Codes of each row, int64 ``[n, M]``; equal rows get equal codes."""
        check_rows(x)
        rows, inverse = torch.unique(x.detach().cpu(), dim=0, return_inverse=True)
        columns = [
            nearest(part, book)
            for part, book in zip(self.subvectors(rows), self.codebooks, strict=True)
        ]
        return torch.stack(columns, dim=1)[inverse]

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Squared distances of each part to its codes, M tensors float64 ``[n, K_m]``."""
        return [
            squared_distances(part, book)
            for part, book in zip(self.subvectors(x), self.codebooks, strict=True)
        ]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Vectors float64 ``[n, d]`` that ``codes [n, M]`` stand for."""
        chosen = [
            book[column] for book, column in zip(self.codebooks, codes.unbind(1), strict=True)
        ]
        return torch.cat(chosen, dim=1) @ self.rotation.T

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        books = {f"codebook.{part}": codebook for part, codebook in enumerate(self.codebooks)}
        return {**books, "rotation": self.rotation}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ProductKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        n_parts = len(tensors) - 1
        books = tuple(tensors[f"codebook.{part}"] for part in range(n_parts))
        return cls(tensors["rotation"], books)


def part_widths(n_dims: int, n_parts: int) -> list[int]:
    """Dimensions of each part, which differ by one at most."""
    width, rest = divmod(n_dims, n_parts)
    return [width + 1] * rest + [width] * (n_parts - rest)


def balanced_directions(rows: Tensor, counts: Tensor, widths: Sequence[int]) -> Tensor:
    """Principal directions, ordered so that the parts have similar products of variances.

    The next direction of largest variance goes to the part whose product is the smallest so far
    and which has room (Ge et al., section 3.2, eigenvalue allocation). The variances are scaled so
    that the smallest is e: every direction makes a product larger, whatever the unit of the rows.

    Args:
        rows: ``[n, d]``.
        counts: how often each row occurs ``[n]``.
        widths: dimensions of each part.

    Returns:
        Orthonormal ``[d, d]``; its columns are the directions.
    """
    weights = (counts / counts.sum()).double().unsqueeze(1)
    centred = rows.double() - (weights * rows.double()).sum(0)
    variances, directions = torch.linalg.eigh(centred.T @ (weights * centred))  # ascending
    smallest = variances[-1] * torch.finfo(torch.float32).eps
    logs = variances.clamp_min(smallest).log()
    logs = logs - logs.min() + 1
    members: list[list[int]] = [[] for _ in widths]
    products = [0.0] * len(widths)
    for direction in reversed(range(len(variances))):
        with_room = [part for part, width in enumerate(widths) if len(members[part]) < width]
        part = min(with_room, key=products.__getitem__)
        members[part].append(direction)
        products[part] += float(logs[direction])
    order = [direction for part in members for direction in part]
    return directions[:, order].float()


def nearest_rotation(rows: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """The rotation that brings rows nearest to their targets (orthogonal Procrustes problem).

    Args:
        rows: ``[n, d]``.
        targets: ``[n, d]``.
        counts: weight of each row ``[n]``.

    Returns:
        Orthonormal ``[d, d]``; ``rows @ rotation`` is nearest to ``targets`` in squared distance.
    """
    products = (rows * counts.unsqueeze(1)).T @ targets  # [d, d]
    left, _, right = torch.linalg.svd(products.double())
    return (left @ right).float()


def _sampled(rows: Tensor, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    if len(rows) <= SAMPLE:
        return rows, counts
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:SAMPLE]
    return rows[chosen], counts[chosen]


def _lloyd(points: Tensor, counts: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """One step of k-means.

    Args:
        points: ``[n, d_m]``.
        counts: weight of each point ``[n]``.
        centroids: ``[K, d_m]``.

    Returns:
        Means of the points of each centroid ``[K, d_m]``, where a centroid without points stays as
        it is, and the centroid of each point before the step ``[n]``.
    """
    codes = nearest(points, centroids)
    weights = counts.to(points)
    mass = points.new_zeros(len(centroids)).index_add(0, codes, weights)
    total = torch.zeros_like(centroids).index_add(0, codes, points * weights.unsqueeze(1))
    is_used = mass > 0
    moved = centroids.clone()
    moved[is_used] = total[is_used] / mass[is_used].unsqueeze(1)
    return moved, codes


def _converged(points: Tensor, counts: Tensor, centroids: Tensor) -> Tensor:
    """Centroids after further steps of k-means, those in use alone."""
    before = None
    for _ in range(LAST_ITERATIONS):
        centroids, codes = _lloyd(points, counts, centroids)
        if before is not None and torch.equal(codes, before):
            break
        before = codes
    return centroids[nearest(points, centroids).unique()]


def _decoded(subvectors: Sequence[Tensor], codebooks: Sequence[Tensor]) -> Tensor:
    """What the nearest codes of each part stand for, ``[n, d]``."""
    chosen = [book[nearest(part, book)] for part, book in zip(subvectors, codebooks, strict=True)]
    return torch.cat(chosen, dim=1)
