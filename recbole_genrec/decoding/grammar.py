"""Beam search under the level grammar only: the ablation that shows what the item trie is worth."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_block, check_search
from recbole_genrec.decoding.scores import (
    FLOOR,
    best_items_on_leaves,
    item_scores,
    top,
    unreached_score,
)
from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.errors import ConfigError


@torch.no_grad()
def grammar_search(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    score_type: str = "level",
    fill: bool = False,
    excluded: Tensor | None = None,
) -> SearchResult:
    """Beam search in which step t may emit any code of level t.

    Finished tuples that name no item are dropped, so invalid tuples occupy beams. This is the
    decoding of LC-Rec's released code (arXiv 2311.09049) and the weaker ablation of STORE
    (arXiv 2409.07276 v1). ``beam_width`` prefixes are kept at every step, the last one included.
    A hit is still an item id. Equal scores are decided by smaller codes first, then by the tie
    order of a leaf.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned, on the decoder's device; here it only translates
            finished tuples.
        beam_width: K, number of prefixes kept per step and of items returned.
        score_type: ``joint`` or ``level``. ``renormalised`` is defined by the legal children in
            the trie, which this search ignores.
        fill: also return ``full`` ``[B, n_items]``: reached items have their exact score, all
            others share :func:`~recbole_genrec.decoding.scores.unreached_score` (a beam that left
            the catalogue bounds no item), the padding item and items outside the trie come last.
            Lists have no places for such items.
        excluded: int64 ``[B, H]``, items that each user must not get, 0 = none. Prefixes of such
            items alone are not followed.

    Returns:
        A result whose ``bound`` is +inf (nothing is certified) and whose ``invalid`` is the share
        of finished beams without an item.

    Raises:
        ConfigError: an unknown or impossible score type, or a width below 1.
        BackboneError: the decoder's output does not fit the alphabets.
    """
    check_search(score_type, beam_width)
    if score_type == "renormalised":
        raise ConfigError(
            "score_type 'renormalised' sums over the trie's children, but this search is not "
            "constrained by the trie. Choose score_type 'level' or 'joint', or constraint 'trie'."
        )
    users = decoder.batch_size
    device = decoder.device
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=device)  # -1 outside the catalogue
    scores = torch.zeros(users, 1, device=device)
    exclusion = Exclusion.of(trie, excluded)
    block = decoder.start()
    for depth, level in enumerate(trie.levels):
        block = check_block(block, users, nodes.shape[1], level.size, depth)  # [B, Q, V]
        values = block.clamp(FLOOR, 0)
        if exclusion is not None:
            closed = _closed_codes(trie, exclusion, depth, nodes)  # [B, Q, V]
            values = values.masked_fill(closed, -torch.inf)
        candidates = (scores.unsqueeze(-1) + values).flatten(1)  # [B, Q * V]
        chosen = top(candidates, beam_width)[0].sort(-1).values  # [B, K]
        scores = candidates.gather(1, chosen)
        parents = chosen // level.size
        codes = chosen % level.size
        nodes = trie.child(depth, nodes.gather(1, parents), codes)
        nodes = nodes.masked_fill(scores == -torch.inf, -1)
        if depth + 1 < trie.depth:
            block = decoder.step(codes, parents)

    invalid = nodes < 0
    valid_scores = scores.masked_fill(invalid, -torch.inf)
    items, item_values = best_items_on_leaves(trie, valid_scores, nodes, beam_width, exclusion)
    bound = torch.full((users,), torch.inf, device=device)
    full = _fill(trie, nodes, scores, exclusion) if fill else None
    return SearchResult(items, item_values, bound, full, invalid.float().mean(1))


def _closed_codes(trie: ItemTrie, exclusion: Exclusion, depth: int, nodes: Tensor) -> Tensor:
    """The codes after nodes int64 ``[B, Q]`` that lead to closed nodes, bool ``[B, Q, V]``."""
    children = trie.children(depth, nodes)  # [B, Q, W]
    closed = exclusion.is_closed(depth + 1, children.nodes)
    if children.codes is None:
        return closed
    counts = torch.zeros(*nodes.shape, trie.sizes[depth], device=nodes.device)
    return counts.scatter_add_(2, children.codes, closed.float()) > 0


def _fill(trie: ItemTrie, leaves: Tensor, scores: Tensor, exclusion: Exclusion | None) -> Tensor:
    """Scores of all items; those not reached get one value between the reached and the outside.

    Args:
        trie: the trie.
        leaves: int64 ``[B, K]``, the leaves that were reached, -1 = none.
        scores: float32 ``[B, K]``.
        exclusion: items that get the lowest value.

    Returns:
        float32 ``[B, n_items]``.
    """
    table = scores.new_full((len(scores), trie.n_leaves + 1), -torch.inf)  # the last for -1
    table.scatter_(1, torch.where(leaves < 0, trie.n_leaves, leaves), scores)
    full = item_scores(trie, table, exclusion)
    return full.masked_fill(full == -torch.inf, unreached_score(trie))
