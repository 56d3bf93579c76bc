"""The tokens of an item: one from its collaborative vector, N from its text (arXiv 2502.10833)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_genrec.decoding.precision import at_least_float32
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.tokenizer.quantiser.rqvae import relu_network


class AutoEncoder(nn.Module):
    """One auto-encoder for all semantic tokens; its latent is cut into N of them.

    Args:
        d_text: width of the text vectors.
        layers: widths between text vector and latent; the decoder mirrors them.
        n_tokens: N.
        d_token: d, width of a token.
        dropout: after each hidden layer.
    """

    def __init__(
        self, d_text: int, layers: Sequence[int], n_tokens: int, d_token: int, dropout: float = 0.0
    ):
        super().__init__()
        widths = [d_text, *layers, n_tokens * d_token]
        self.n_tokens = n_tokens
        self.encoder = relu_network(widths, dropout)
        self.decoder = relu_network(widths[::-1], dropout)

    def encode(self, texts: Tensor) -> Tensor:
        """Text vectors ``[n, d_text]`` -> tokens ``[n, N, d]``."""
        latent = self.encoder(texts)  # [n, N * d]
        return latent.unflatten(1, (self.n_tokens, -1))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, N, d]`` -> text vectors ``[n, d_text]``."""
        return self.decoder(tokens.flatten(1))


class ItemTokens(nn.Module):
    """The set identifier of each item: its collaborative token first, then its semantic ones.

    Args:
        d_token: d, width of a token.
        d_cf: width of the collaborative vectors; 0 = no collaborative token.
        auto_encoder: gives the semantic tokens; ``None`` = there are none.
    """

    def __init__(self, d_token: int, d_cf: int, auto_encoder: AutoEncoder | None = None):
        super().__init__()
        self.auto_encoder = auto_encoder
        self.cf_projection: nn.Linear | None = None
        if d_cf:
            self.cf_projection = nn.Linear(d_cf, d_token)

    @property
    def n_cf(self) -> int:
        """Collaborative tokens of an item, 0 or 1."""
        return int(self.cf_projection is not None)

    @property
    def n_sem(self) -> int:
        """Semantic tokens of an item."""
        if self.auto_encoder is None:
            return 0
        return self.auto_encoder.n_tokens

    def forward(self, cf: Tensor, texts: Tensor) -> Tensor:
        """The tokens of n items.

        Args:
            cf: collaborative vectors ``[n, d_cf]``.
            texts: text vectors ``[n, d_text]``.

        Returns:
            ``[n, Q, d]``, Q = 1 + N with all of them.
        """
        tokens = []
        if self.cf_projection is not None:
            tokens.append(self.cf_projection(cf).unsqueeze(1))  # [n, 1, d]
        if self.auto_encoder is not None:
            tokens.append(self.auto_encoder.encode(texts))  # [n, N, d]
        return torch.cat(tokens, dim=1)

    def reconstruction_loss(self, tokens: Tensor, texts: Tensor, history: Tensor) -> Tensor:
        """L_AE: mean squared error over the items of all histories.

        An item counts as often as it occurs; targets and padding do not count.

        Args:
            tokens: tokens of n items, ``[n, Q, d]``.
            texts: their text vectors ``[n, d_text]``.
            history: rows of ``tokens``, ``[B, T]``, 0 = padding.

        Returns:
            A scalar; 0 without semantic tokens, and in a batch without histories.
        """
        if self.auto_encoder is None:
            return tokens.new_zeros(())
        occurrences = history.flatten().bincount(minlength=len(tokens))  # [n]
        occurrences[0] = 0
        items = occurrences.nonzero().squeeze(1)  # [m]
        rebuilt = self.auto_encoder.decode(tokens[items, self.n_cf :])  # [m, d_text]
        errors = at_least_float32(rebuilt - texts[items]).square().mean(1)  # [m]
        count = max(int(occurrences.sum()), 1)
        loss = (errors * occurrences[items]).sum() / count
        return balanced(loss, count)


# --- items without a training interaction ---------------------------------------------------------


def fill_cold(vectors: Tensor, known: Tensor, tokens: Sequence[str], policy: str) -> Tensor:
    """Collaborative vectors with those of cold items as ``cold_cf`` says.

    Args:
        vectors: ``[n, d]``, row 0 = padding.
        known: bool ``[n]``, which items have a vector.
        tokens: raw ids of the n items.
        policy: as in :func:`cold_vectors`.

    Returns:
        ``[n, d]``, row 0 zero.
    """
    filled = vectors.clone()
    cold = [tokens[item] for item in (~known).nonzero().squeeze(1).tolist()]
    filled[~known] = cold_vectors(vectors[known], cold, policy)
    filled[0] = 0
    return filled


def cold_vectors(known: Tensor, tokens: Sequence[str], policy: str) -> Tensor:
    """The collaborative vectors of cold items, ``[n, d]``.

    Args:
        known: vectors of items with training interactions, ``[m, d]``.
        tokens: raw ids of the n items, which the noise follows.
        policy: ``zero``, ``mean`` of the known ones, or ``keep``: what training leaves of a random
            start, noise of the length that known vectors have.
    """
    width = known.shape[1]
    if policy == "zero":
        return known.new_zeros(len(tokens), width)
    if policy == "mean":
        return known.mean(0).expand(len(tokens), -1)
    noise = torch.empty(len(tokens), width)
    for row, token in zip(noise, tokens, strict=True):
        seed = int.from_bytes(hashlib.sha256(token.encode()).digest()[:4], "big")
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return noise.to(known) * known.square().mean().sqrt()
