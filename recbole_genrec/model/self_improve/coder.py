"""A generator as the tokenizer of its own items: it proposes codes from an item's content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.decoding import (
    AdjustedDecoder,
    CodeDecoder,
    grammar_tuples,
    sampled_tuples,
    tuple_scores,
)

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving


class ItemCoder:
    """Codes items by their content, with the weights and codes of a model as they stand.

    All tensors that the methods take and return are on the CPU. Row r stands for item r + 1.

    Args:
        model: a model in evaluation mode.
        generator: draws everything that is random, on the CPU.

    Attributes:
        codes: the present codes int64 ``[N, L]`` of the real items.
    """

    def __init__(self, model: SelfImproving, generator: torch.Generator):
        self.model = model
        self.settings = model.settings
        self.sizes = model.level_sizes
        self.generator = generator
        self.codes = model.codes[1:].cpu()

    def propose(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Candidates for the codes of items, found as ``si_decode`` says.

        Args:
            rows: rows of the items ``[n]``.
            width: K, the number of candidates per item.

        Returns:
            Codes ``[n, K, L]`` and their fits ``[n, K]``, best first; a fit of -inf marks an
            empty place.
        """
        codes = []
        scores = []
        for batch in rows.split(self.settings.si_batch_size):
            batch_codes, batch_scores = self._candidates(self._decoder(batch), width)
            codes.append(batch_codes)
            scores.append(batch_scores)
        return torch.cat(codes).cpu(), torch.cat(scores).cpu() / len(self.sizes)

    def fit(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean log-probability per code of one code tuple per item.

        Args:
            codes: code tuples ``[n, L]``.
            rows: rows of the items ``[n]``; default all.

        Returns:
            Fits ``[n]``, in nats.
        """
        if rows is None:
            rows = torch.arange(len(codes))
        size = self.settings.si_batch_size
        device = self.model.codes.device
        scores = [
            tuple_scores(self._decoder(batch_rows), batch_codes.to(device))
            for batch_rows, batch_codes in zip(rows.split(size), codes.split(size), strict=True)
        ]
        return torch.cat(scores).cpu() / len(self.sizes)

    def ranked(self, row: int, prefix: tuple[int, ...]) -> list[int]:
        """All codes of the level after ``prefix``, the most likely first.

        Args:
            row: row of the item.
            prefix: its first codes.
        """
        decoder = self._decoder(torch.tensor([row]))
        parent = torch.zeros(1, 1, dtype=torch.int64, device=decoder.device)
        log_probs = decoder.start()  # [1, 1, V_0]
        for code in prefix:
            log_probs = decoder.step(torch.full_like(parent, code), parent)
        return log_probs[0, 0].argsort(descending=True, stable=True).tolist()

    def _candidates(self, decoder: CodeDecoder, width: int) -> tuple[Tensor, Tensor]:
        mode = self.settings.si_decode
        if mode == "sample":
            temperature = self.settings.si_temperature
            return sampled_tuples(decoder, self.sizes, width, temperature, self.generator)
        groups = 1
        if mode == "diverse_beam":
            groups = max(1, width // 2)
        penalty = self.settings.si_diversity_penalty
        return grammar_tuples(decoder, self.sizes, width, groups=groups, penalty=penalty)

    def _decoder(self, rows: Tensor) -> CodeDecoder:
        """The method's decoder, adjusted.

        ``si_balance`` makes codes in frequent use less likely. ``si_fixed_levels`` forbids all
        codes of the first levels but the item's own.

        Args:
            rows: rows of the items ``[n]``.
        """
        decoder = self.model.item_decoder((rows + 1).to(self.model.codes.device))
        n_fixed = self.settings.si_fixed_levels
        balance = self.settings.si_balance
        if not n_fixed and not balance:
            return decoder

        addends = []
        for level, size in enumerate(self.sizes):
            column = self.codes[:, level]
            if level < n_fixed:
                addend = torch.full((len(rows), 1, size), -torch.inf)
                addend = addend.scatter(2, column[rows].view(-1, 1, 1), 0.0)  # [n, 1, V]
            else:
                share = (torch.bincount(column, minlength=size) + 1) / len(column)  # [V]
                rarity = -balance * share.log()
                addend = (rarity - rarity.max()).expand(1, 1, -1)
            addends.append(addend.to(decoder.device))
        return AdjustedDecoder(decoder, addends)
