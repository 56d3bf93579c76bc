"""What the networks with codebooks share.

How they assign codes, and how unused codes come back into use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recbole_genrec.tokenizer.quantiser.kmeans import CHUNK, check_rows
from recbole_genrec.tokenizer.quantiser.residual_kmeans import residual_path


class CodebookNetwork(nn.Module):
    """An autoencoder whose latents are quantised by L codebooks.

    A subclass sets the attributes. Each codebook quantises what those before it leave, unless the
    subclass writes another :meth:`path`.

    Attributes:
        encoder: maps ``x [n, D]`` to the latents.
        decoder: maps the sum of one code of each codebook, ``[n, d]``, back to ``[n, D]``.
        codebooks: L parameters ``[K_l, d]``.
        sizes: K_l.
    """

    encoder: nn.Module
    decoder: nn.Module
    codebooks: nn.ParameterList
    sizes: tuple[int, ...]

    def path(
        self, latent: Tensor, books: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Quantise by one codebook after another.

        Yields for each codebook the points ``[n, d]`` that it quantises, their squared distances
        ``[n, K_l]`` and nearest codes ``[n]``.
        """
        return residual_path(latent, books)

    def assign(self, x: Tensor) -> Tensor:
        """Nearest codes of some vectors.

        A function of weights and row alone: computed in float64 and in evaluation mode, so that
        neither batch size nor order nor the network's mode matters.

        Args:
            x: ``[n, D]``.

        Returns:
            int64 ``[n, L]`` on the device of ``x``.

        Raises:
            DataError: values that are no finite numbers.
        """
        check_rows(x)
        chunks = []
        for path in self.paths(x):
            codes = [codes for *_, codes in path]
            chunks.append(torch.stack(codes, dim=1))
        return torch.cat(chunks).to(x.device)

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Squared distances of the points that :meth:`assign` quantises to all codes.

        L tensors float64 ``[n, K_l]``.
        """
        chunks = [[distances for _, distances, _ in path] for path in self.paths(x)]
        return [torch.cat(level).to(x.device) for level in zip(*chunks, strict=True)]

    @torch.no_grad()
    def reconstruct(self, codes: Tensor) -> Tensor:
        """What ``codes [n, L]`` stand for, ``[n, D]``."""
        return self.decoder(
            sum(book[column] for book, column in zip(self.codebooks, codes.unbind(1), strict=True))
        )

    @torch.no_grad()
    def revive_dead_codes(self, x: Tensor, generator: torch.Generator) -> list[int]:
        """Move the codes that no row of ``x [n, D]`` uses to points of random rows.

        Returns how many, for each codebook.

        ``generator`` lives on the CPU. Optimisers keep their state of the moved codes.
        """
        check_rows(x)
        paths = [[(points, codes) for points, _, codes in path] for path in self.paths(x)]
        moved = []
        for book, chunks in zip(self.codebooks, zip(*paths, strict=True), strict=True):
            points, codes = (torch.cat(tensors) for tensors in zip(*chunks, strict=True))
            dead = torch.nonzero(torch.bincount(codes, minlength=len(book)) == 0).flatten()
            # every row once before any row twice
            order = torch.randperm(len(x), generator=generator)
            rows = order.repeat(-(-len(dead) // len(x)))[: len(dead)]
            book[dead] = points[rows.to(points.device)].to(book.dtype)
            moved.append(len(dead))
        return moved

    @torch.no_grad()
    def paths(self, x: Tensor) -> Iterator[Iterator[tuple[Tensor, Tensor, Tensor]]]:
        """:meth:`path` of ``x [n, D]``, chunk by chunk, in float64 and in evaluation mode."""
        weights = {name: value.double() for name, value in self.encoder.state_dict().items()}
        books = [book.detach().double() for book in self.codebooks]
        widest = max(*self.sizes, *(value.shape[0] for value in weights.values() if value.dim()))
        mode = self.encoder.training
        for chunk in x.split(max(1, CHUNK // widest)):
            latent = functional_call(
                self.encoder.eval(), weights, (chunk.to(books[0].device).double(),)
            )
            self.encoder.train(mode)
            yield self.path(latent, books)


def random_codebooks(sizes: Sequence[int], width: int) -> nn.ParameterList:
    """Codebooks ``[K_l, width]`` drawn uniformly between ``-1 / K_l`` and ``1 / K_l``."""
    return nn.ParameterList(
        torch.empty(size, width).uniform_(-1 / size, 1 / size) for size in sizes
    )
