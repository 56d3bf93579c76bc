"""Decoders along the codes of one item, from one state (RQ-Transformer, arXiv 2203.01941, depth transformer; the MLP is our choice)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.live_queries import LiveQueries


class DepthMLP(nn.Module):
    """``s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])``; the state before level l, normalised, gives the logits of level l.

    Args:
        sizes: alphabet size of each level.
        d: width. dropout: after the code embeddings and inside the MLPs.
    """

    def __init__(self, sizes: Sequence[int], d: int, dropout: float, *_):
        super().__init__()
        self.first = [sum(sizes[:level]) for level in range(len(sizes))]
        self.embedding = nn.Parameter(torch.randn(sum(sizes), d) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in sizes)
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * d, 2 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * d, d)
            )
            for _ in sizes[1:]
        )

    def begin(self, states: Tensor) -> Tensor:
        """What a query carries at the root, from the states ``[..., d]``."""
        return states

    def read(self, carried: Tensor, level: int) -> Tensor:
        """State ``[..., d]`` for the logits of ``level``."""
        return self.norms[level](carried)

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """What a query carries after ``codes [...]`` of ``level``."""
        embedded = self.dropout(nn.functional.embedding(codes + self.first[level], self.embedding))
        return carried + self.mlps[level](torch.cat([carried, embedded], dim=-1))

    def teach(self, states: Tensor, codes: Tensor) -> Iterator[Tensor]:
        """Teacher forcing: states for the logits of each level, from ``states [P, d]`` and ``codes [P, L]``."""
        carried = self.begin(states)
        for level in range(len(self.first)):
            yield self.read(carried, level)
            if level + 1 < len(self.first):
                carried = self.advance(carried, codes[:, level], level)


class DepthTransformer(DepthMLP):
    """A causal transformer over ``[h, D_1[c_1], D_2[c_2], ...]``; a query carries this short sequence.

    Args:
        sizes, d, dropout: as :class:`DepthMLP`. n_heads, n_layers: of the transformer.
    """

    def __init__(self, sizes: Sequence[int], d: int, dropout: float, n_heads: int, n_layers: int):
        super().__init__(sizes, d, dropout)
        self.mlps = None
        self.position = nn.Parameter(torch.randn(len(sizes), d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, n_heads, 4 * d, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)

    def begin(self, states: Tensor) -> Tensor:
        """``[..., d]`` -> ``[..., 1, d]``."""
        return (states + self.position[0]).unsqueeze(-2)

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The last state of the carried sequence ``[..., level + 1, d]``."""
        return self.norms[level](self._run(carried)[..., -1, :])

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """Append the embedding of ``codes [...]``."""
        embedded = (
            self.dropout(nn.functional.embedding(codes + self.first[level], self.embedding))
            + self.position[level + 1]
        )
        return torch.cat([carried, embedded.unsqueeze(-2)], dim=-2)

    def teach(self, states: Tensor, codes: Tensor) -> Iterator[Tensor]:
        """As the base, in one pass."""
        carried = self.begin(states)
        for level in range(len(self.first) - 1):
            carried = self.advance(carried, codes[:, level], level)
        for norm, state in zip(self.norms, self._run(carried).unbind(-2), strict=True):
            yield norm(state)

    def _run(self, carried: Tensor) -> Tensor:
        length = carried.shape[-2]
        mask = torch.ones(length, length, dtype=torch.bool, device=carried.device).triu(1)
        return self.layers(carried.flatten(0, -3), mask=mask, is_causal=True).view_as(carried)


class TimelineDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``): a query carries one vector (or a sequence of at most L), no cache.

    Args:
        depth: the decoder along the codes, in evaluation mode.
        states: ``[B, d]``, one for each user.
        log_probs: ``(states [..., d], level, prefixes [...]) -> float32 [..., V_level]``.
        child: ``(prefixes [...], codes [...], level) -> [...]``, numbers of the longer prefixes; the empty prefix is 0.
        root: what :meth:`start` answers, where it is known.
    """

    takes_live = True

    def __init__(
        self,
        depth: DepthMLP,
        states: Tensor,
        log_probs: Callable[[Tensor, int, Tensor], Tensor],
        child: Callable[[Tensor, Tensor, int], Tensor],
        root: Tensor | None = None,
    ):
        self.depth, self.states, self.log_probs, self.child, self.root = (
            depth,
            states,
            log_probs,
            child,
            root,
        )
        self.batch_size, self.device = len(states), states.device
        self.start()

    def start(self) -> Tensor:
        """Back to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self.level, self.carried = 0, self.depth.begin(self.states.unsqueeze(1))
        self.prefixes = torch.zeros(self.batch_size, 1, dtype=torch.long, device=self.device)
        self.root = self._answer(self.carried, self.prefixes) if self.root is None else self.root
        return self.root

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        """Append ``codes [B, Q]`` to the queries ``parents [B, Q]`` of the previous block; ``[B, Q, V_next]``.

        ``live`` bool ``[B, Q]``: queries whose answer matters.
        """
        some, rows = (
            LiveQueries(live),
            torch.arange(self.batch_size, device=self.device).unsqueeze(1),
        )
        codes, parents, rows = (
            some.take(each) for each in (codes, parents, rows.expand_as(parents))
        )
        carried = self.depth.advance(self.carried[rows, parents], codes, self.level)
        prefixes = self.child(self.prefixes[rows, parents], codes, self.level)
        self.level, self.carried, self.prefixes = (
            self.level + 1,
            some.put(carried),
            some.put(prefixes),
        )
        return some.put(self._answer(carried, prefixes))

    def _answer(self, carried: Tensor, prefixes: Tensor) -> Tensor:
        return self.log_probs(self.depth.read(carried, self.level), self.level, prefixes)

    def select(self, rows: Tensor) -> TimelineDecoder:
        """A decoder at the root for some of the users."""
        return TimelineDecoder(
            self.depth, self.states[rows], self.log_probs, self.child, self.root[rows]
        )
