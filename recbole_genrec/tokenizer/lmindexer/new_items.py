"""Codes of new items where the index column under their own codes is used up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from recbole_genrec.backbone import BeamDecoder
from recbole_genrec.decoding import grammar_tuples
from recbole_genrec.tokenizer.free_codes import FreeCodes
from recbole_genrec.tokenizer.lmindexer.network import IndexerNetwork
from recbole_genrec.tokenizer.lmindexer.stages import Texts

WIDEST = 1024
"""Prefixes of a new item that are looked at, likeliest first (our choice)."""


def place_by_likelihood(
    network: IndexerNetwork,
    texts: Texts,
    learned: Tensor,
    existing: Tensor,
    sizes: Sequence[int],
) -> tuple[Tensor, int]:
    """Codes of new items beside those that are there, of which none changes.

    Args:
        network: the finished tokenizer.
        texts: of n new items.
        learned: their own codes ``[n, T]``.
        existing: codes ``[n_items, T + 1]``.
        sizes: alphabet size of each column, the index column last.

    Returns:
        Codes ``[n, T + 1]``, and how many items had to leave their own codes.
    """
    free = FreeCodes(existing, sizes)
    columns = [range(size) for size in sizes]
    moved, placed = 0, []
    for row, codes in enumerate(learned.tolist()):
        if free.full(tuple(codes)):
            moved += 1
            codes = _likeliest_free(network, texts, row, free) or codes
        taken, _ = free.take(codes, lambda prefix: columns[len(prefix)])
        placed.append(taken)
    return torch.tensor(placed, dtype=torch.long).reshape(-1, len(sizes)), moved


@torch.no_grad()
def _likeliest_free(
    network: IndexerNetwork, texts: Texts, row: int, free: FreeCodes
) -> list[int] | None:
    """The likeliest prefix of a new item under which an index is free."""
    codes = network.codes
    decoder = BeamDecoder(
        network.backbone,
        network.read(texts[torch.tensor([row])]),
        network.start,
        codes.embed_code,
        partial(codes.log_probs, score_type="level"),
    )
    width = min(WIDEST, math.prod(codes.level_sizes))
    tuples, _ = grammar_tuples(decoder, codes.level_sizes, width)
    for prefix in tuples[0].tolist():
        if not free.full(tuple(prefix)):
            return prefix
    return None
