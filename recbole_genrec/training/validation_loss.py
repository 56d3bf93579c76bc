"""The mean loss on the validation split, by which ``valid_metric: loss`` chooses the epoch.

Nothing is searched and no list is made: a validation costs one pass over the validation rows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.randomness import kept_randomness
from recbole_genrec.settings.shared_keys import SharedSettings


@torch.no_grad()
def validation_loss(
    model: Any, valid_data: Any, settings: SharedSettings, precision: AbstractContextManager[Any]
) -> float:
    """The mean over the validation rows of the model's ``validation_loss``.

    Dropout is off. What a loss draws at random starts from the seed of the run each time, so that
    epochs can be compared; random states stay as they are.

    Args:
        model: one of ours.
        valid_data: loader of the validation split.
        settings: of the run; ``train_batch_size`` rows are read at once.
        precision: the number format of the losses.
    """
    rows = dataset_of(valid_data).inter_feat
    block = torch.tensor(processes.own_block(len(rows)), dtype=torch.long)
    lengths = rows[dataset_of(valid_data).item_list_length_field][block]
    order = block[torch.argsort(lengths, stable=True)]

    was_training = model.training
    model.eval()
    total = 0.0
    with kept_randomness(), precision, processes.apart():
        torch.manual_seed(settings.seed)
        for batch in order.split(settings.train_batch_size):
            interaction = rows[batch].to(settings.device)
            loss = model.calculate_validation_loss(interaction)
            total += float(loss) * len(batch)
    model.train(was_training)
    total, count = processes.summed([total, float(len(order))])
    return total / count
