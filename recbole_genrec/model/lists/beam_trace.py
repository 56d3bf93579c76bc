"""How a search walked the tree of items to one list, in plain values that a page can draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.decoding.trace import KeptPrefixes, items_below, traced_search
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.lists.queries import NumberedQuery, Query, QueryBatch

SHOWN = 10
"""Most prefixes of a level that a trace names beside those that lead to the list."""


class TracedLevel(NamedTuple):
    """One level of a walk.

    Attributes:
        alphabet: how many codes the level has.
        possible: how many prefixes of this length the catalogue has.
        followed: how many of them the beams followed; at the last level how many items they
            reached at most, ``None`` where nothing was pruned.
        nodes: the best of them, those that lead to the list, and the parents of the nodes below.
    """

    alphabet: int
    possible: int
    followed: int | None
    nodes: list[dict[str, Any]]


def trace_search(
    model: GenerativeRecommender, query: Query, shown: int = SHOWN
) -> tuple[list[TracedLevel], list[dict[str, Any]]]:
    """The walk of a beam search for one query, and the list that ``recommend`` gives.

    With ``beam_width: auto`` it is the first pass of the search, and with ``score_mode: exact`` a
    beam search of ``beam_width``.

    Args:
        model: a trained model in evaluation mode.
        query: what is asked.
        shown: how many prefixes of each level are named beside those of the list.

    Returns:
        The levels, each node with ``node``, ``parent``, ``code``, ``score`` (a log-probability,
        ``None`` where the beams did not follow it), ``items`` (how many lie below) and ``ranks``
        (places of the list below), and the list.

    Raises:
        ConfigError: no walk along one tree makes the lists of the model.
    """
    if not model.has_one_tree:
        raise ConfigError(
            f"{type(model).__name__}: no walk along one tree of codes makes its lists, so there is "
            "none to show."
        )
    rows = model.recommend_batch([query])[0]
    settings = model.settings
    numbered = NumberedQuery.of(query, model.catalogue, settings.exclude_history, model.uses_users)
    batch = QueryBatch.of([numbered], model.max_seq_length, model.codes.device)
    trie = model.trie_of(batch.candidates)
    with torch.no_grad():
        decoder = model.item_logits(batch.history, batch.length, **batch.arguments())
        beams = traced_search(
            decoder,
            trie,
            _width(settings.beam_width, settings.beam_max, query.k),
            score_type=settings.score_type,
            excluded=batch.excluded,
        )
    listed = torch.tensor(
        model.item_ids([row["item"] for row in rows]), dtype=torch.long, device=trie.device
    )
    paths = trie.paths(trie.leaf_of_item[listed])
    scores = [row["score"] for row in rows]
    levels: list[TracedLevel] = []
    parents: list[int] = []  # of the nodes of the level below, so that the tree hangs together
    for depth in range(trie.depth, 0, -1):
        level = _level(trie, depth, beams, paths[depth], scores, shown, parents)
        parents = [node["parent"] for node in level.nodes]
        levels.append(level)
    return levels[::-1], rows


def _width(beam_width: int | str, beam_max: int, k: int) -> int:
    if isinstance(beam_width, int):
        return max(beam_width, k)
    return max(k, min(2 * k, beam_max))


def _level(
    trie: ItemTrie,
    depth: int,
    beams_by_level: list[KeptPrefixes],
    listed: Tensor,
    list_scores: list[float],
    shown: int,
    parents: list[int],
) -> TracedLevel:
    """The nodes of one depth that are shown.

    Args:
        trie: of the search.
        depth: 1 for the first codes.
        beams_by_level: the beams of each depth but the last.
        listed: int64 ``[k]``, the nodes of this depth above each item of the list.
        list_scores: the scores of the list.
        shown: as in :func:`trace_search`.
        parents: further nodes that are shown.
    """
    level = trie.levels[depth - 1]
    ranks: dict[int, list[int]] = {}
    for rank, node in enumerate(listed.tolist(), start=1):
        ranks.setdefault(node, []).append(rank)
    score_of: dict[int, float] = {}
    followed = None
    if depth <= len(beams_by_level):
        beams = beams_by_level[depth - 1]
        followed = len(beams.nodes)
        score_of = dict(zip(beams.nodes.tolist(), beams.scores.tolist(), strict=True))
    elif depth == trie.depth:
        score_of = {node: list_scores[places[0] - 1] for node, places in ranks.items()}
    best = sorted(score_of, key=lambda node: -score_of[node])[:shown]
    nodes = list(dict.fromkeys([*best, *ranks, *parents]))
    numbers = torch.tensor(nodes, dtype=torch.long, device=trie.device)
    codes = level.code[numbers].tolist()
    parents = level.parent[numbers].tolist()
    counts = items_below(trie, depth, numbers).tolist()
    rows = [
        {
            "node": node,
            "parent": parent,
            "code": code,
            "score": score_of.get(node),
            "items": count,
            "ranks": ranks.get(node, []),
        }
        for node, parent, code, count in zip(nodes, parents, codes, counts, strict=True)
    ]
    return TracedLevel(trie.sizes[depth - 1], level.n_edges, followed, rows)
