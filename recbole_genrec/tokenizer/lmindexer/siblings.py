"""Items with the same prefix: where the contrast of the later positions takes its negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.tokenizer.collision import item_groups


class Siblings:
    """The groups of items that share all codes so far.

    Args:
        prefix: codes int64 ``[N, t - 1]``.
    """

    def __init__(self, prefix: Tensor) -> None:
        group, sizes = item_groups(prefix)
        self.order = torch.argsort(group, stable=True)  # items, group after group
        first = sizes.cumsum(0) - sizes
        self.first = first[group]  # [N], where an item's group begins in order
        self.size = sizes[group]  # [N]
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place))
        self.place = place - self.first  # [N], place of an item in its group

    def draw(self, items: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """At most ``count`` different siblings of each item, the item itself excluded.

        Args:
            items: row numbers ``[B]``.
            count: n.
            generator: of the CPU.

        Returns:
            Row numbers ``[B, n]`` and bool ``[B, n]``, which of them are siblings.
        """
        sizes = self.size[items]  # [B]
        width = max(int(sizes.max()), count)
        places = torch.arange(width)
        keys = torch.rand(len(items), width, generator=generator)
        is_other = (places < sizes.unsqueeze(1)) & (places != self.place[items].unsqueeze(1))
        keys, chosen = keys.masked_fill(~is_other, -1.0).topk(count, dim=1)  # [B, n]
        valid = keys >= 0
        chosen = torch.where(valid, chosen, 0)
        return self.order[self.first[items].unsqueeze(1) + chosen], valid
