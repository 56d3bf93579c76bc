"""Code tuples that a generator likes, whether or not an item has them: the generator as tokenizer.

Only the alphabets of the levels constrain these searches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_genrec.decoding.protocol import CodeDecoder, check_block, check_search
from recbole_genrec.decoding.scores import top


@torch.no_grad()
def grammar_tuples(
    decoder: CodeDecoder, sizes: Sequence[int], width: int, *, groups: int = 1, penalty: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The most likely code tuples by beam search in which step t may emit any code of level t.

    With ``groups`` above 1 it is diverse beam search (arXiv 1610.02424). The groups choose one
    after another at each step, and a code that earlier groups emitted at this step is ``penalty``
    less likely for each time (Hamming diversity). The penalty decides what is kept; it is not part
    of the scores (our choice, unpublished).

    Args:
        decoder: the generator for B prompts, in evaluation mode; -inf forbids a code.
        sizes: alphabet size of each level.
        width: K, number of tuples, shared out evenly among the groups.
        groups: G, number of groups.
        penalty: what a code loses for each earlier group that emitted it.

    Returns:
        codes int64 ``[B, K', L]`` and scores float32 ``[B, K']`` (sums of log-probabilities), best
        first, K' <= K. A score of -inf marks a row that does not count: forbidden, or reached
        before by another group. Equal scores of a group: smaller codes first.
    """
    check_search("level", width)
    users = decoder.batch_size
    device = decoder.device
    codes = torch.zeros(users, groups, 1, 0, dtype=torch.int64, device=device)
    scores = torch.zeros(users, groups, 1, device=device)
    block = check_block(decoder.start(), users, 1, sizes[0], 0).unsqueeze(1)  # [B, 1, 1, V]
    for level, size in enumerate(sizes):
        totals = (scores.unsqueeze(-1) + block.clamp(max=0)).flatten(2)  # [B, G, Q * V]
        chosen = _choose(totals, size, max(1, width // groups), penalty)
        chosen = chosen.sort(-1).values  # [B, G, Q']
        scores = totals.gather(2, chosen)
        parents = chosen // size
        emitted = chosen % size
        index = parents.unsqueeze(-1).expand(-1, -1, -1, level)
        codes = torch.cat([codes.gather(2, index), emitted.unsqueeze(-1)], dim=-1)
        if level + 1 == len(sizes):
            break

        # The decoder numbers the queries of all groups together; at the root they share one.
        if level:
            queries = totals.shape[2] // size
            parents = parents + torch.arange(groups, device=device).unsqueeze(1) * queries
        block = decoder.step(emitted.flatten(1), parents.flatten(1))
        queries = groups * emitted.shape[2]
        block = check_block(block, users, queries, sizes[level + 1], level + 1)
        block = block.unflatten(1, (groups, -1))  # [B, G, Q', V]
    return _distinct(codes.flatten(1, 2), scores.flatten(1))


def _choose(totals: Tensor, size: int, width: int, penalty: float) -> Tensor:
    """What the groups keep, one group after another.

    Args:
        totals: float32 ``[B, G, Q * size]``.
        size: alphabet size of the level.
        width: how many a group keeps.
        penalty: what a code loses for each earlier group that emitted it.

    Returns:
        Index int64 ``[B, G, width]`` into the last axis.
    """
    if totals.shape[1] == 1:
        return top(totals[:, 0], width)[0].unsqueeze(1)
    uses = totals.new_zeros(len(totals), size)  # how often the groups emitted each code
    chosen = []
    for scores in totals.unbind(1):
        penalised = scores.unflatten(1, (-1, size)) - penalty * uses.unsqueeze(1)  # [B, Q, V]
        index = top(penalised.flatten(1), width)[0]  # [B, width]
        uses.scatter_add_(1, index % size, torch.ones_like(scores[:, : index.shape[1]]))
        chosen.append(index)
    return torch.stack(chosen, dim=1)


@torch.no_grad()
def sampled_tuples(
    decoder: CodeDecoder,
    sizes: Sequence[int],
    draws: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Code tuples that are sampled level by level.

    Args:
        decoder: the generator for B prompts, in evaluation mode; -inf forbids a code.
        sizes: alphabet size of each level.
        draws: K, number of tuples.
        temperature: divides the log-probabilities before a code is drawn, not in the scores.
        generator: of the CPU, so that all devices draw the same noise.

    Returns:
        codes and scores, as of :func:`grammar_tuples`.
    """
    check_search("level", draws)
    users = decoder.batch_size
    device = decoder.device
    codes = []
    scores = torch.zeros(users, draws, device=device)
    block = check_block(decoder.start(), users, 1, sizes[0], 0).expand(-1, draws, -1)  # [B, K, V]
    parents = torch.zeros(users, draws, dtype=torch.int64, device=device)  # the root
    for level, size in enumerate(sizes):
        # The largest of log-probabilities with Gumbel noise is a draw from their distribution.
        uniform = torch.rand(users, draws, size, generator=generator).clamp(min=1e-20).to(device)
        gumbel = (-uniform.log()).log()
        emitted = (block / temperature - gumbel).argmax(-1)  # [B, K]
        codes.append(emitted)
        scores = scores + block.gather(-1, emitted.unsqueeze(-1)).squeeze(-1)
        if level + 1 < len(sizes):
            block = decoder.step(emitted, parents)
            block = check_block(block, users, draws, sizes[level + 1], level + 1)
            parents = torch.arange(draws, device=device).expand(users, -1)
    return _distinct(torch.stack(codes, dim=-1), scores)


@torch.no_grad()
def tuple_scores(decoder: CodeDecoder, codes: Tensor) -> Tensor:
    """Teacher-forced scores of one tuple each, whether or not an item has it.

    Args:
        decoder: the generator for B prompts, in evaluation mode.
        codes: int64 ``[B, L]``.

    Returns:
        float32 ``[B]``, sums of log-probabilities.
    """
    block = decoder.start()  # [B, 1, V]
    root = torch.zeros_like(codes[:, :1])
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

    def __init__(self, decoder: CodeDecoder, addends: Sequence[Tensor]) -> None:
        self.decoder = decoder
        self.addends = list(addends)
        self.batch_size = decoder.batch_size
        self.device = decoder.device
        self.level = 0

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
        addends = []
        for addend in self.addends:
            if len(addend) > 1:  # one for each prompt
                addend = addend[rows]
            addends.append(addend)
        return AdjustedDecoder(self.decoder.select(rows), addends)


def _distinct(codes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best first; all but the first of equal tuples get -inf."""
    codes, scores = _sorted(codes, scores)
    equal = (codes.unsqueeze(2) == codes.unsqueeze(1)).all(-1)  # [B, K, K]
    repeated = equal.tril(-1).any(-1)  # [B, K]
    return _sorted(codes, scores.masked_fill(repeated, -torch.inf))


def _sorted(codes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """``codes`` ``[B, K, L]`` and ``scores`` ``[B, K]``, best first; equal scores keep order."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    codes = codes.gather(1, order.unsqueeze(-1).expand_as(codes))
    return codes, scores.gather(1, order)
