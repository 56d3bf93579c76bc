"""Code tuples that a generator likes under the level grammar, whether or not an item has them: the language model as item tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_genrec.decoding.protocol import CodeDecoder, check_block, check_search
from recbole_genrec.decoding.scores import top


@torch.no_grad()
def grammar_candidates(
    decoder: CodeDecoder, sizes: Sequence[int], width: int, *, groups: int = 1, penalty: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The ``width`` most likely code tuples by beam search in which step t may emit any code of level t.

    With ``groups`` above 1 it is diverse beam search (arXiv 1610.02424): the groups choose one after another at each step, and a code that
    earlier groups emitted at this step is ``penalty`` less likely for each time (Hamming diversity). The penalty decides what is kept; it
    is not part of the scores (our choice, unpublished).

    Args:
        decoder: the generator for B prompts, in evaluation mode; -inf forbids a code.
        sizes: alphabet size of each level.
        width: K, number of tuples, shared out evenly among ``groups``.

    Returns:
        codes int64 ``[B, K', L]`` and scores float32 ``[B, K']`` (sums of log-probabilities), best first, K' <= K. A score of -inf marks a
        row that is no candidate: forbidden, or found before by another group. Equal scores of a group: smaller codes first.
    """
    check_search("level", width)
    users, device = decoder.batch_size, decoder.device
    codes = torch.zeros(users, groups, 1, 0, dtype=torch.int64, device=device)
    scores = torch.zeros(users, groups, 1, device=device)
    block = check_block(decoder.start(), users, 1, sizes[0], 0).unsqueeze(1)
    for level, size in enumerate(sizes):
        totals = (scores.unsqueeze(-1) + block.clamp(max=0)).flatten(2)
        kept = _choose(totals, size, max(1, width // groups), penalty).sort(-1).values
        scores, parents, emitted = totals.gather(2, kept), kept // size, kept % size
        codes = torch.cat(
            [
                codes.gather(2, parents.unsqueeze(-1).expand(-1, -1, -1, level)),
                emitted.unsqueeze(-1),
            ],
            dim=-1,
        )
        if level + 1 < len(sizes):
            first = (
                torch.arange(groups, device=device).unsqueeze(1) * (totals.shape[2] // size)
                if level
                else 0
            )
            block = decoder.step(emitted.flatten(1), (parents + first).flatten(1))
            block = check_block(
                block, users, emitted[0].numel(), sizes[level + 1], level + 1
            ).unflatten(1, (groups, -1))
    return _distinct(codes.flatten(1, 2), scores.flatten(1))


def _choose(totals: Tensor, size: int, each: int, penalty: float) -> Tensor:
    """Index int64 ``[B, G, each]`` of what the groups keep of ``totals [B, G, Q * size]``, group after group."""
    if totals.shape[1] == 1:
        return top(totals[:, 0], each)[0].unsqueeze(1)
    uses = totals.new_zeros(len(totals), size)
    chosen = []
    for own in totals.unbind(1):
        chosen.append(
            top((own.unflatten(1, (-1, size)) - penalty * uses.unsqueeze(1)).flatten(1), each)[0]
        )
        uses.scatter_add_(1, chosen[-1] % size, torch.ones_like(own[:, : chosen[-1].shape[1]]))
    return torch.stack(chosen, dim=1)


@torch.no_grad()
def sampled_candidates(
    decoder: CodeDecoder,
    sizes: Sequence[int],
    draws: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """``draws`` code tuples sampled level by level at ``temperature``; results as of :func:`grammar_candidates`, without it in the scores.

    ``generator`` is a CPU generator, so that all devices draw the same noise.
    """
    check_search("level", draws)
    users, device = decoder.batch_size, decoder.device
    codes, scores = [], torch.zeros(users, draws, device=device)
    block = check_block(decoder.start(), users, 1, sizes[0], 0).expand(-1, draws, -1)
    own = torch.arange(draws, device=device).expand(users, -1)
    for level, size in enumerate(sizes):
        noise = torch.rand(users, draws, size, generator=generator).clamp(min=1e-20).to(device)
        codes.append((block / temperature - (-noise.log()).log()).argmax(-1))
        scores = scores + block.gather(-1, codes[-1].unsqueeze(-1)).squeeze(-1)
        if level + 1 < len(sizes):
            block = decoder.step(codes[-1], own if level else torch.zeros_like(own))
            block = check_block(block, users, draws, sizes[level + 1], level + 1)
    return _distinct(torch.stack(codes, dim=-1), scores)


@torch.no_grad()
def tuple_scores(decoder: CodeDecoder, codes: Tensor) -> Tensor:
    """Teacher-forced sums of log-probabilities float32 ``[B]`` of one tuple each, ``codes`` int64 ``[B, L]``, owned by an item or not."""
    block, root = decoder.start(), torch.zeros_like(codes[:, :1])
    scores = block.new_zeros(len(codes))
    for level, emitted in enumerate(codes.split(1, dim=1)):
        scores = scores + block[:, 0].float().gather(1, emitted).squeeze(1)
        if level + 1 < codes.shape[1]:
            block = decoder.step(emitted, root)
    return scores


class AdjustedDecoder:
    """A decoder whose log-probabilities get something added at each level (a ``CodeDecoder``).

    Args:
        decoder: the generator.
        addends: per level ``[1 or B, 1, V_l]``; -inf forbids a code.
    """

    def __init__(self, decoder: CodeDecoder, addends: Sequence[Tensor]):
        self.decoder, self.addends = decoder, list(addends)
        self.batch_size, self.device = decoder.batch_size, decoder.device

    def start(self) -> Tensor:
        """Back to the root."""
        self.level = 0
        return self.decoder.start() + self.addends[0]

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Append ``codes`` to the queries ``parents``."""
        self.level += 1
        return self.decoder.step(codes, parents) + self.addends[self.level]

    def select(self, rows: Tensor) -> AdjustedDecoder:
        """A decoder for some of the prompts."""
        return AdjustedDecoder(
            self.decoder.select(rows),
            [part if len(part) == 1 else part[rows] for part in self.addends],
        )


def _distinct(codes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best first; the later ones of equal tuples get -inf."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    codes, scores = codes.gather(1, order.unsqueeze(-1).expand_as(codes)), scores.gather(1, order)
    again = (codes.unsqueeze(2) == codes.unsqueeze(1)).all(-1).tril(-1).any(-1)
    scores = scores.masked_fill(again, -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)
    return codes.gather(1, order.unsqueeze(-1).expand_as(codes)), scores.gather(1, order)
