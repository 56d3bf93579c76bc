"""A share of each list for items without training interactions (TIGER, arXiv 2305.05065, 4.3).

Nothing in training raised the probability of their codes, so plain decoding hardly reaches them.
The paper lets unseen items in whose first codes are those of a generated tuple, up to a share
epsilon of the list; its exact form is not published, and the order below is our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.exclusion import contains
from recbole_genrec.decoding.protocol import SearchResult
from recbole_genrec.decoding.scores import outside_score
from recbole_genrec.decoding.trie import ItemTrie


class ColdItems:
    """Cold items by the codes that they share with others.

    Args:
        codes: the learned codes ``[n_items, M]``, without an extra token; row 0 = padding.
        is_cold: bool ``[n_items]``.

    Attributes:
        is_cold: as given.
        group: number of the learned codes of each item ``[n_items]``.
        members: cold items of each group ``[G, W]``, ascending, 0 = none.
    """

    def __init__(self, codes: Tensor, is_cold: Tensor):
        self.is_cold = is_cold
        _, self.group = torch.unique(codes, dim=0, return_inverse=True)
        cold = is_cold.nonzero().squeeze(1)
        cold = cold[cold > 0]
        of_group = self.group[cold]
        order = of_group.argsort(stable=True)
        cold = cold[order]
        of_group = of_group[order]
        counts = torch.bincount(of_group, minlength=int(self.group.max()) + 1)
        place = torch.arange(len(cold), device=codes.device)
        place = place - (counts.cumsum(0) - counts)[of_group]
        width = int(counts.max()) if len(counts) else 0
        self.members = codes.new_zeros(len(counts), width)
        self.members[of_group, place] = cold

    def followers(
        self, warm: Tensor, trie: ItemTrie, excluded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The cold items behind each list, and the place that each of them follows.

        Args:
            warm: item ids ``[B, W]``, best first, 0 = none.
            trie: of the items to choose among.
            excluded: item ids ``[B, H]`` that each user must not get, 0 = none.

        Returns:
            Item ids ``[B, C]``, 0 = none, and places ``[B, C]`` of the first item with the same
            learned codes; ascending places, those without an item at the end.
        """
        n_rows, width = warm.shape
        group = self.group[warm].masked_fill(warm == 0, -1)  # [B, W]
        earlier = (group.unsqueeze(2) == group.unsqueeze(1)).tril(-1).any(2)
        leads = (warm > 0) & ~earlier
        items = self.members[self.group[warm]]  # [B, W, w]
        items = items.masked_fill(~leads.unsqueeze(2), 0).flatten(1)  # [B, W * w]
        items = items.masked_fill(trie.leaf_of_item[items] < 0, 0)
        if excluded is not None:
            items = items.masked_fill(contains(excluded.sort(1).values, items), 0)
        place = torch.arange(width, device=warm.device).repeat_interleave(self.members.shape[1])
        place = place.expand(n_rows, -1)
        order = (items == 0).long().argsort(dim=1, stable=True)
        return items.gather(1, order), place.gather(1, order)


def with_cold_share(
    result: SearchResult,
    cold: ColdItems,
    trie: ItemTrie,
    k: int,
    share: float,
    excluded: Tensor | None = None,
) -> SearchResult:
    """The result of a search with cold items in the lists.

    A list takes the others in their order. As soon as one of them has appeared, the cold items with
    its learned codes follow, wherever no more than ``share`` of the places up to there are cold.
    So every beginning of a list keeps the share.

    Args:
        result: of a search for ``k`` items that are not cold; cold ones in it lose their places.
        cold: which items are cold.
        trie: of the items to choose among.
        k: length of the lists.
        share: of a list that may be cold, 0 to 1.
        excluded: item ids ``[B, H]`` that each user must not get, 0 = none.

    Returns:
        Lists of ``k`` items. Their scores fall strictly: a cold item has the next smaller number
        than the item before it. With ``full``, all other items lie below them, and cold ones that
        are in no list have the score of items outside the trie, so that they fill no place. Lists
        with cold items are proven nowhere.
    """
    is_cold = cold.is_cold[result.items]
    order = (is_cold | (result.items == 0)).long().argsort(dim=1, stable=True)
    warm = result.items.masked_fill(is_cold, 0).gather(1, order)  # [B, W]
    warm_scores = result.scores.masked_fill(is_cold, -torch.inf).gather(1, order)
    followers, places = cold.followers(warm, trie, excluded)  # [B, C]
    listed, list_scores, last = _merged_lists(warm, warm_scores, followers, places, k, share)
    has_cold = cold.is_cold[listed].any(1)
    return SearchResult(
        listed,
        list_scores,
        result.bound.masked_fill(has_cold, torch.inf),
        _all_scores(result.full, listed, list_scores, last, cold.is_cold, outside_score(trie)),
        result.invalid,
    )


def _merged_lists(
    warm: Tensor, warm_scores: Tensor, followers: Tensor, places: Tensor, k: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Lists of the warm items and, as far as the share allows, the cold ones behind them.

    Args:
        warm: item ids ``[B, W]``, best first, 0 = none.
        warm_scores: ``[B, W]``.
        followers: cold items ``[B, C]``, see :meth:`ColdItems.followers`.
        places: ``[B, C]``, the place of ``warm`` that each of them follows.
        k: length of the lists.
        share: of a list that may be cold, 0 to 1.

    Returns:
        Item ids ``[B, k]``, scores ``[B, k]``, and the score of the last item ``[B, 1]``.
    """
    # One more column stands for "no further item".
    warm = pad(warm, (0, 1))
    warm_scores = pad(warm_scores, (0, 1), value=-torch.inf)
    followers = pad(followers, (0, 1))
    places = pad(places, (0, 1))
    available = (warm > 0).sum(1, keepdim=True)
    n_warm = torch.zeros(len(warm), 1, dtype=torch.long, device=warm.device)
    n_cold = torch.zeros_like(n_warm)
    below = torch.full((len(warm), 1), torch.inf, device=warm.device)
    lowest = torch.full_like(below, -torch.inf)
    items = []
    scores = []
    for length in range(1, k + 1):
        next_cold = followers.gather(1, n_cold.clamp(max=followers.shape[1] - 1))  # [B, 1]
        place = places.gather(1, n_cold.clamp(max=followers.shape[1] - 1))
        follows = (next_cold > 0) & (place < n_warm) & (n_cold + 1 <= share * length + 1e-6)
        follows &= n_warm <= available  # a list ends where the others do
        column = n_warm.clamp(max=warm.shape[1] - 1)
        item = torch.where(follows, next_cold, warm.gather(1, column))
        score = torch.where(follows, torch.inf, warm_scores.gather(1, column))
        score = torch.minimum(score, torch.nextafter(below, lowest))
        items.append(item)
        scores.append(score)
        below = torch.where(item > 0, score, below)
        n_cold += follows
        n_warm += ~follows
    return torch.cat(items, 1), torch.cat(scores, 1), below


def _all_scores(
    full: Tensor | None,
    items: Tensor,
    scores: Tensor,
    last: Tensor,
    is_cold: Tensor,
    outside: float,
) -> Tensor | None:
    """Scores of all items ``[B, n_items]`` under which the lists are the best ones.

    Args:
        full: before, or ``None``.
        items: the lists ``[B, k]``, 0 = none.
        scores: of the lists ``[B, k]``.
        last: score of the last item of each list ``[B, 1]``.
        is_cold: bool ``[n_items]``.
        outside: score of items that have no place in a list.
    """
    if full is None:
        return None
    under = torch.nextafter(last, torch.full_like(last, -torch.inf))
    padding = full[:, :1]
    full = torch.minimum(full, under)
    full = torch.where(is_cold, full.clamp(max=outside), full)
    full = full.scatter(1, items, scores)
    return torch.cat([padding, full[:, 1:]], 1)
