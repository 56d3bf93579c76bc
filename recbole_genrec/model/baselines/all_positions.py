"""RecBole's sequential models on rows whose positions are all targets.

RecBole trains SASRec and GRU4Rec on a row for each prefix of a history, and learns the item after
it. A causal model has the state of every prefix in one pass over the whole history, so the same
loss costs a fraction (``train_rows: windows``). RecBole's classes stay as they are: a subclass
reads the states before ``gather_indexes`` takes the last one. Which models allow it is tried, not
listed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_genrec.backbone import length_mask
from recbole_genrec.backbone.causal.packing import length_groups
from recbole_genrec.decoding import cached_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.runtime.processes import balanced

TRIED_ITEMS = 6  # items of the history on which a model is tried
NOISE = 0.1  # standard deviation of what is added to its weights there, so that scores differ

# What a model raises that reads its batch or its states in another way.
FAILURES = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class AllPositions:
    """Comes before a class of RecBole's; its rows teach the item after every position.

    Attributes:
        balances_loss: the loss counts the targets of all processes itself.
    """

    balances_loss = True
    _every_position = False

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Mean over all targets of the rows of RecBole's cross-entropy over items.

        Args:
            interaction: RecBole's batch.
        """
        model: Any = self
        history = interaction[model.ITEM_SEQ]
        length = interaction[model.ITEM_SEQ_LEN]
        rows = torch.arange(len(length), device=length.device)
        following = torch.cat([history[:, 1:], torch.zeros_like(history[:, :1])], 1)  # [B, T]
        following[rows, length - 1] = interaction[model.POS_ITEM_ID]
        states = []
        targets = []
        for group in length_groups(length):
            longest = int(length[group].max())
            real = length_mask(length[group], longest)
            states.append(self.states(history[group, :longest], length[group])[real])
            targets.append(following[group, :longest][real])
        target = torch.cat(targets)  # [P]
        vectors = model.item_embedding.weight  # [n_items, d]
        return balanced(cached_cross_entropy(torch.cat(states), vectors, target), len(target))

    def states(self, history: Tensor, length: Tensor) -> Tensor:
        """The model's output at every position, ``[B, T, d]``.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
        """
        self._every_position = True
        try:
            return self.forward(history, length)  # type: ignore[attr-defined]
        finally:
            self._every_position = False

    def gather_indexes(self, output: Tensor, gather_index: Tensor) -> Tensor:
        """RecBole's choice of the last position; inside :meth:`states` all of them.

        Args:
            output: ``[B, T, d]``.
            gather_index: last positions ``[B]``.
        """
        if self._every_position:
            return output
        return super().gather_indexes(output, gather_index)  # type: ignore[misc]


def with_all_positions(model_class: type, config, dataset) -> Any:
    """A model of RecBole's that learns from all positions of its rows.

    Args:
        model_class: RecBole's class.
        config: the settings of the run.
        dataset: RecBole's training dataset.

    Raises:
        ConfigError: the model does not allow it.
    """
    settings = config.settings
    name = settings.model
    rows = f"train_rows: {settings.train_rows}"
    advice = f"Use --{name}.train_rows=all."
    model = type(model_class.__name__, (AllPositions, model_class), {})(config, dataset)
    model = model.to(settings.device)
    reason = _reason_against(model)
    if reason is not None:
        raise ConfigError(
            f"{name} cannot learn from every position of a row ({rows}): {reason}. {advice}"
        )
    return model


def _reason_against(model: Any) -> str | None:
    """Why the loss over all positions is not RecBole's over all prefixes; ``None`` where it is."""
    model = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(NOISE * noise)
    n_steps = min(TRIED_ITEMS, model.max_seq_length)
    items = torch.randint(1, model.n_items, (n_steps + 1,), generator=generator)
    items = items.to(next(model.parameters()).device)
    length = torch.arange(1, n_steps + 1, device=items.device)
    history = items.new_zeros(n_steps, model.max_seq_length)
    history[:, :n_steps] = items[:-1].expand(n_steps, -1).tril()
    prefixes = Interaction(
        {model.ITEM_SEQ: history, model.ITEM_SEQ_LEN: length, model.POS_ITEM_ID: items[1:]}
    )
    try:
        with torch.no_grad():
            states = model.states(history[-1:], length[-1:])  # [1, T, d]
            scores = states[0, :n_steps] @ model.item_embedding.weight.T  # [n_steps, n_items]
            expected = model.full_sort_predict(prefixes).view(n_steps, -1)
            ours = model.calculate_loss(prefixes[[-1]])
            theirs = super(AllPositions, model).calculate_loss(prefixes)
    except FAILURES:
        return "its states at all positions cannot be read"
    scale = expected.std()
    if scores.shape != expected.shape or (scores - expected).abs().max() > 1e-3 * scale:
        return "the state of a position also depends on later items, or scores are made another way"
    if not torch.is_tensor(theirs) or not torch.allclose(ours, theirs, rtol=1e-4):
        return "its loss is not the cross-entropy over all items"
    return None
