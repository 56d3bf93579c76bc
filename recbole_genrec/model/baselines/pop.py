"""RecBole's Pop, counting every interaction."""

from __future__ import annotations

import torch
from recbole.model.general_recommender.pop import Pop as RecBolePop
from torch import Tensor


class Pop(RecBolePop):
    """The most popular items of the training rows, for everyone.

    RecBole's ``calculate_loss`` writes ``count[items] = count[items] + 1``. That counts an item
    once per batch, however often it occurs there. RecBole's default settings also count sampled
    negatives.

    The class keeps RecBole's name, so RecBole's and our ``Pop.yaml`` apply.
    """

    def calculate_loss(self, interaction) -> Tensor:
        """Count the items of the batch; the loss is 0.

        Args:
            interaction: RecBole's batch.
        """
        items = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, items, torch.ones_like(items).unsqueeze(1))
        self.max_cnt = self.item_cnt.max(dim=0).values
        return self.fake_loss.sum() * 0.0
