"""Random code tables and a small generator with random weights for tests of the search."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = (6, 5, 4)


def random_codes(
    sizes: tuple[int, ...] = SIZES, n: int = 40, seed: int = 0, unique: bool = True
) -> Tensor:
    """A random code table with ``n`` items; row 0 is the padding item."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randint(size, (8 * n,), generator=generator) for size in sizes], 1)
    if unique:
        rows = rows.unique(dim=0)[torch.randperm(len(rows.unique(dim=0)), generator=generator)]
    return torch.cat([torch.zeros(1, len(sizes), dtype=torch.int64), rows[:n]])


class ToyDecoder:
    """Recurrent: ``h_child = tanh(W h_parent + E[level, code])``, values = output layer of the
    level; one random first state per user.

    ``joint``: log-softmax over the codes of all levels together, ``level``: over the level's own
    codes, ``renormalised``: raw logits.
    """

    def __init__(
        self,
        users: int,
        sizes: tuple[int, ...],
        score_type: str = "level",
        scale: float = 2.0,
        seed: int = 0,
        dim: int = 8,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.sizes, self.score_type, self.device = sizes, score_type, torch.device("cpu")
        self.offsets = [sum(sizes[:level]) for level in range(len(sizes))]
        self.embedding, self.recurrent = draw(sum(sizes), dim), draw(dim, dim) / dim**0.5
        self.output = draw(sum(sizes), dim) * scale
        self.prompt = torch.tanh(draw(users, 1, dim))
        self.calls = 0

    @property
    def batch_size(self) -> int:
        return len(self.prompt)

    def start(self) -> Tensor:
        self.state, self.level, self.calls = self.prompt, 0, self.calls + 1
        return self._values()

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        assert codes.dtype == parents.dtype == torch.int64 and codes.shape == parents.shape
        parent = self.state.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.state.shape[-1]))
        self.state = torch.tanh(
            parent @ self.recurrent.T + self.embedding[codes + self.offsets[self.level]]
        )
        self.level, self.calls = self.level + 1, self.calls + 1
        return self._values()

    def select(self, rows: Tensor) -> ToyDecoder:
        chosen = object.__new__(type(self))
        vars(chosen).update(vars(self), prompt=self.prompt[rows])
        return chosen

    def _values(self) -> Tensor:
        first, last = self.offsets[self.level], self.offsets[self.level] + self.sizes[self.level]
        if self.score_type == "joint":
            return (self.state @ self.output.T).log_softmax(-1)[..., first:last]
        logits = self.state @ self.output[first:last].T
        return logits.log_softmax(-1) if self.score_type == "level" else logits


class SparingDecoder(ToyDecoder):
    """Answers live queries only, with NaN for the others."""

    takes_live = True

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        values = super().step(codes, parents)
        return values if live is None else values.masked_fill(~live.unsqueeze(-1), torch.nan)


def assert_dead_queries_change_nothing(decoder, sizes: tuple[int, ...]) -> None:
    """The values of live queries are the same whether or not the decoder knows which are dead;
    some users have no live one at last.
    """
    generator, plan = torch.Generator().manual_seed(0), []
    live = torch.ones(decoder.batch_size, 1, dtype=torch.bool)
    for level, size in enumerate(sizes[:-1]):
        parents = live.float().multinomial(7, replacement=True, generator=generator)
        live = torch.rand(parents.shape, generator=generator) < 0.6
        live[:, 0] = True
        if level + 2 == len(sizes):
            live[0] = False
        plan.append((torch.randint(size, parents.shape, generator=generator), parents, live))
    decoder.start()
    expected = [decoder.step(codes, parents)[live] for codes, parents, live in plan]
    decoder.start()
    for (codes, parents, live), values in zip(plan, expected, strict=True):
        torch.testing.assert_close(
            decoder.step(codes, parents, live)[live], values, atol=1e-5, rtol=0
        )


def reference_scores(
    decoder: ToyDecoder, codes: Tensor, items: list[int], catalogue: list[int]
) -> Tensor:
    """Scores ``[B, len(items)]``, item by item in plain Python; ``renormalised`` counts the
    children within ``catalogue``.
    """
    rows = codes.tolist()
    scores = torch.zeros(decoder.batch_size, len(items), dtype=torch.float64)
    for column, item in enumerate(items):
        for level, code in enumerate(rows[item]):
            if level == 0:
                values = decoder.start()
            else:
                previous = torch.full((decoder.batch_size, 1), rows[item][level - 1])
                values = decoder.step(previous, torch.zeros_like(previous))
            values = values[:, 0].double()
            if decoder.score_type == "renormalised":
                legal = sorted(
                    {
                        rows[other][level]
                        for other in catalogue
                        if rows[other][:level] == rows[item][:level]
                    }
                )
                values = values - values[:, legal].logsumexp(-1, keepdim=True)
            scores[:, column] += values[:, code]
    return scores


class CountOperators(TorchDispatchMode):
    """Counts the tensor operators that run inside it."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))
