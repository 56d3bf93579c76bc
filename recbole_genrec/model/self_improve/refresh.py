"""One refresh of the item codes: the model reads the items' content, proposes codes, and a conflict-free table comes out.

Our interpretation of the regeneration step of SIIT (arXiv 2412.17171); all rules are our choice (unpublished).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.decoding import (
    AdjustedDecoder,
    CodeDecoder,
    grammar_candidates,
    sampled_candidates,
    tuple_scores,
)
from recbole_genrec.model.self_improve.assignment import (
    Assignment,
    choose_movers,
    shuffled,
    with_current,
)
from recbole_genrec.tokenizer.collision import collision_stats

if TYPE_CHECKING:
    from recbole_genrec.model.generative import GenerativeRecommender

POPULARITY_BUCKETS = 4


class ItemCoder:
    """A generator as the tokenizer of its own items, as its weights and codes stand; row r is item r + 1.

    Args:
        model: in evaluation mode. draw: CPU generator of everything random.

    Attributes:
        codes: the present codes int64 ``[N, L]`` of the real items, on the CPU, as is all that the methods return.
    """

    def __init__(self, model: GenerativeRecommender, draw: torch.Generator):
        self.model, self.config, self.sizes, self.draw = (
            model,
            model.config,
            model.level_sizes,
            draw,
        )
        self.codes = model.codes[1:].cpu()

    def propose(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Candidates ``[n, K, L]`` of ``rows [n]`` and their fits ``[n, K]``, best first, -inf = no candidate (``si_decode``)."""
        parts = [
            self._candidates(self._decoder(chunk), width)
            for chunk in rows.split(self.config["si_batch_size"])
        ]
        codes, scores = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return codes, scores / len(self.sizes)

    def fit(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Fit ``[n]`` of the tuples ``codes [n, L]``, one for each of ``rows [n]`` (default: all): their mean log-probability per code."""
        rows = torch.arange(len(codes)) if rows is None else rows
        chunks = zip(
            rows.split(self.config["si_batch_size"]),
            codes.split(self.config["si_batch_size"]),
            strict=True,
        )
        parts = [
            tuple_scores(self._decoder(chunk), own.to(self.model.codes.device))
            for chunk, own in chunks
        ]
        return torch.cat(parts).cpu() / len(self.sizes)

    def ranked(self, row: int, prefix: tuple[int, ...]) -> list[int]:
        """All codes of the next level after ``prefix``, the most likely first."""
        decoder = self._decoder(torch.tensor([row]))
        block, root = decoder.start(), torch.zeros(1, 1, dtype=torch.int64, device=decoder.device)
        for code in prefix:
            block = decoder.step(torch.full_like(root, code), root)
        return block[0, 0].argsort(descending=True, stable=True).tolist()

    def _candidates(self, decoder: CodeDecoder, width: int) -> tuple[Tensor, Tensor]:
        config = self.config
        if config["si_decode"] == "sample":
            return sampled_candidates(
                decoder, self.sizes, width, config["si_temperature"], self.draw
            )
        groups = max(1, width // 2) if config["si_decode"] == "diverse_beam" else 1
        return grammar_candidates(
            decoder, self.sizes, width, groups=groups, penalty=config["si_diversity_penalty"]
        )

    def _decoder(self, rows: Tensor) -> CodeDecoder:
        """The method's decoder; ``si_balance`` makes codes in use less likely, ``si_fixed_levels`` forbids all but the item's own."""
        decoder = self.model.item_decoder((rows + 1).to(self.model.codes.device))
        fixed, balance = self.config["si_fixed_levels"], self.config["si_balance"]
        if not fixed and not balance:
            return decoder
        addends = []
        for level, (column, size) in enumerate(zip(self.codes.unbind(1), self.sizes, strict=True)):
            rarity = -balance * ((torch.bincount(column, minlength=size) + 1) / len(column)).log()
            addend = (rarity - rarity.max()).expand(1, 1, -1)
            if level < fixed:
                addend = torch.full((len(rows), 1, size), -torch.inf).scatter(
                    2, column[rows].view(-1, 1, 1), 0.0
                )
            addends.append(addend.to(decoder.device))
        return AdjustedDecoder(decoder, addends)


def refined_codes(
    model: GenerativeRecommender, draw: torch.Generator, popularity: Tensor
) -> tuple[Tensor, dict]:
    """The next table ``[n_items, L]`` of ``model`` and what is worth logging; ``popularity [N]`` counts interactions.

    Nothing of the model changes.
    """
    started, config, coder = time.process_time(), model.config, ItemCoder(model, draw)
    before, reserved, rows = (
        coder.codes,
        model.reserved_codes().cpu(),
        torch.arange(len(coder.codes)),
    )
    fit = coder.fit(before)
    codes, fits = with_current(*coder.propose(rows, config["si_num_candidates"]), before, fit)
    gain = fits[:, 0] - fit
    movers = choose_movers(
        before, fit, gain, config["si_scope"], config["si_margin"], config["si_max_churn"], reserved
    )
    assignment = _assign(coder, rows[movers], codes[movers], fits[movers], fit[movers])
    after = (
        shuffled(before, assignment.codes, draw)
        if config["si_control"] == "shuffled"
        else assignment.codes
    )
    changed = before != after
    wanted = torch.where(movers.unsqueeze(1), codes[:, 0], before)
    entry = {
        "movers": int(movers.sum()),
        "churn": float(changed.any(1).float().mean()),
        "churn_per_level": changed.float().mean(0).tolist(),
        "churn_per_popularity": by_popularity(changed.any(1), popularity),
        "fit_before": float(fit.mean()),
        "fit_after": float(coder.fit(after).mean()),
        "mean_gain": float(gain.mean()),
        "collision_rate": collision_stats(wanted)["collision_rate"],
        "mean_rank": sum(assignment.ranks) / max(1, len(assignment.ranks)),
        "fallbacks": assignment.fallbacks,
        "cpu_seconds": time.process_time() - started,
    }
    return torch.cat([model.codes[:1], after.to(model.codes.device)]), entry


def new_codes(model: GenerativeRecommender, items: Tensor, draw: torch.Generator) -> Tensor:
    """The table of ``model`` with the codes that it gives to ``items [n]`` by their content in the place of theirs."""
    coder, rows = ItemCoder(model, draw), items.cpu() - 1
    own = coder.codes[rows]
    fit = coder.fit(own, rows)
    codes, fits = with_current(*coder.propose(rows, model.config["si_num_candidates"]), own, fit)
    after = _assign(coder, rows, codes, fits, fit).codes
    return torch.cat([model.codes[:1], after.to(model.codes.device)])


def _assign(coder: ItemCoder, rows: Tensor, codes: Tensor, fits: Tensor, fit: Tensor) -> Assignment:
    """Codes without conflicts for the movers ``rows [n]``, from candidates ``codes [n, K, L]`` with ``fits [n, K]``, the best fitting items
    first; ``fit [n]`` is that of their present codes. Who finds none free looks among more, then at its own, then nearby."""
    before, config = coder.codes, coder.config
    movers = torch.zeros(len(before), dtype=torch.bool).index_fill(0, rows, True)
    place = torch.zeros(len(before), dtype=torch.int64).index_copy(0, rows, torch.arange(len(rows)))
    assignment = Assignment(before, movers, coder.sizes, coder.model.reserved_codes().cpu())
    order = fits[:, 0].argsort(descending=True, stable=True)
    left = assignment.take_candidates(rows[order].tolist(), codes[order], fits[order])
    width, widest = config["si_num_candidates"], config["si_max_candidates"]
    while left and width < widest:
        width = min(2 * width, widest)
        pending = torch.tensor(left)
        wider = with_current(*coder.propose(pending, width), before[pending], fit[place[pending]])
        left = assignment.take_candidates(left, *wider, wider=True)
    for row in assignment.take_own(left):
        assignment.take_nearest(
            row, codes[place[row], 0].tolist(), lambda prefix, row=row: coder.ranked(row, prefix)
        )
    return assignment


def by_popularity(changed: Tensor, popularity: Tensor) -> list[float]:
    """Share of ``changed [N]`` items in each quarter of the catalogue, least ``popularity [N]`` first."""
    order = popularity.argsort(stable=True)
    return [float(part.float().mean()) for part in changed[order].tensor_split(POPULARITY_BUCKETS)]
