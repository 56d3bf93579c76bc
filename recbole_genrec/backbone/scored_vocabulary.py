"""Log-probabilities of codes from the states of a language model, and codes of new items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import cached_log_probs


class ScoredVocabulary(nn.Module):
    """What vocabularies of codes share.

    Log-probabilities are computed in float32, whatever autocast says.

    Codes that no item had in training have learned nothing but to be unlikely. When a new item
    takes one, :meth:`start_codes` lets it be read as the mean of the used codes of its level, and
    be as likely as they are on average (our choice, unpublished). Its row stays in the table as it
    is, so the normaliser and with it the scores of all other items do not move by a bit.

    A vocabulary sets the attributes below.

    Attributes:
        output_table: the rows of the output layer ``[n_outputs, d]``.
        level_sizes: alphabet size of each level.
        first: row of the first code of each level.
        scale: factor on the states before the output layer.
        unused: of each level the codes that no item had in training; empty until new items came.
    """

    output_table: Tensor
    level_sizes: tuple[int, ...]
    first: list[int]
    scale: float

    def __init__(self) -> None:
        super().__init__()
        self.unused: list[Tensor] = []

    def start_codes(self, unused: Sequence[Tensor]) -> None:
        """Let new items take codes that no item had in training.

        Args:
            unused: of each level these codes.
        """
        self.unused = list(unused)

    def tokens(self, codes: Tensor) -> Tensor:
        """Tokens of codes ``[..., L']`` (the first L' levels): their rows in the tables."""
        first = self.first[: codes.shape[-1]]
        return codes + torch.tensor(first, dtype=torch.long, device=codes.device)

    def log_probs(
        self,
        hidden: Tensor,
        level: int,
        score_type: str,
        temperature: float = 1.0,
        words: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of one level's codes.

        Args:
            hidden: states ``[..., d]``.
            level: whose codes follow.
            score_type: ``joint`` normalises over all rows of the output layer; ``level`` and
                ``renormalised`` over the level. The search renormalises the latter over the legal
                children, which does not depend on this constant.
            temperature: divides the logits.
            words: output rows ``[V, d]`` of tokens outside this vocabulary that compete with the
                codes under ``joint``.

        Returns:
            float32 ``[..., level_sizes[level]]``.
        """
        start = self.first[level]
        count = self.level_sizes[level]
        rows = self.output_table
        layers = [rows]
        if score_type != "joint":
            layers = [rows.narrow(0, start, count)]
            start = 0
        elif words is not None:
            layers = [words, rows]
            start += len(words)
        n_classes = sum(map(len, layers))
        with torch.autocast(hidden.device.type, enabled=False):
            states = hidden.float() * self.scale
            layers = [layer.float() for layer in layers]
            log_probs = cached_log_probs(states, layers, start, count, n_classes, temperature)
        return self.with_started(log_probs, level)

    def with_started(self, log_probs: Tensor, level: int) -> Tensor:
        """Log-probabilities ``[..., V_level]`` of a level, those of unused codes replaced."""
        for number, used, unused in self._started_levels():
            if number == level:
                mean = log_probs[..., used].mean(-1, keepdim=True)
                columns = mean.expand(*log_probs.shape[:-1], len(unused))
                log_probs = log_probs.index_copy(-1, unused.to(log_probs.device), columns)
        return log_probs

    def started(self, table: Tensor) -> Tensor:
        """An input table ``[n, d]`` with the rows of unused codes replaced."""
        for level, used, unused in self._started_levels():
            start = self.first[level]
            mean = table[used.to(table.device) + start].mean(0)
            rows = mean.expand(len(unused), -1)
            table = table.index_copy(0, unused.to(table.device) + start, rows)
        return table

    def _started_levels(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Levels with unused codes, their used and their unused codes."""
        for level, unused in enumerate(self.unused):
            if not len(unused):
                continue
            is_used = torch.ones(self.level_sizes[level], dtype=torch.bool, device=unused.device)
            is_used[unused] = False
            yield level, is_used.nonzero().squeeze(1), unused
