"""The members of an ensemble on the same rows of a split, whatever their histories look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from torch import Tensor

from recbole_genrec.data.ids import raw_ids
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.experiments.opened import Opened
from recbole_genrec.experiments.testable import testable
from recbole_genrec.model.outside import named_class
from recbole_genrec.report.comparable import different_protocols, free_keys
from recbole_genrec.report.ranks import evaluated_cases
from recbole_genrec.storage.digests import digest

Case = tuple[str, str]
"""Raw ids of a user and of their held-out item."""


class Member:
    """One trained model, its data, and the rows of its splits.

    Args:
        checkpoint: of any model, ours or RecBole's.
        changes: settings to replace.

    Attributes:
        checkpoint: the same.
        trained: the model and its data.
        items: raw item ids by internal id.
    """

    def __init__(self, checkpoint: str, changes: dict[str, Any]) -> None:
        self.checkpoint = checkpoint
        opened = Opened.of(checkpoint, changes=changes)
        # all users are loaded; which of them choose the weights is decided for all members
        self.trained: Trained = testable(opened, valid_users=0)
        config = self.trained.config
        check_scores(checkpoint, config)
        config["dense_scores"] = True  # the sum needs a score of every item, not ranked lists
        self.items = raw_ids(self.trained.dataset)["items"]
        self.trainer = self.trained.evaluator()
        self._rows: dict[str, dict[Case, int]] = {}
        self._columns: Tensor | None = None

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.trained.config.settings.model

    def settings_name(self) -> str:
        """A name that all seeds of the same settings share."""
        free = free_keys()
        plain = self.trained.config.plain()
        settings = {key: value for key, value in plain.items() if key not in free}
        return f"{self.name}-{digest(settings, size=4)}"

    def loader(self, split: str) -> Any:
        """The loader of ``valid`` or ``test``.

        Raises:
            ConfigError: the model was trained on every interaction.
        """
        loader = getattr(self.trained, split)
        if loader is None:
            raise ConfigError(
                f"{self.checkpoint} holds nothing out for {split}, so an ensemble with it cannot "
                "be judged. Train it with hold_out: True."
            )
        if not isinstance(loader, FullSortEvalDataLoader):
            raise ConfigError(
                f"{self.checkpoint} is tested on sampled items; an ensemble ranks all. Use "
                "eval_args with mode: full."
            )
        return loader

    def rows(self, split: str) -> dict[Case, int]:
        """The row of each case of a split."""
        if split not in self._rows:
            users, items = evaluated_cases(self.loader(split))
            cases = zip(users, items, strict=True)
            self._rows[split] = {case: row for row, case in enumerate(cases)}
        return self._rows[split]

    def follow(self, first: Member) -> None:
        """Give scores in the order of another member's items.

        Raises:
            ConfigError: the two do not know the same items.
        """
        others = set(first.items) ^ set(self.items)
        if others:
            raise ConfigError(
                f"{first.checkpoint} and {self.checkpoint} know different items ({len(others)}, "
                f"for example {min(others)!r}). Train both on the same data."
            )
        number = {token: column for column, token in enumerate(self.items)}
        if self.items != first.items:
            self._columns = torch.tensor([number[token] for token in first.items])

    @torch.no_grad()
    def batch(self, split: str, cases: Sequence[Case]) -> tuple[Any, Tensor, Any, Any]:
        """Scores of all items for some cases, as RecBole's evaluation makes them.

        Returns:
            The interaction, log-probabilities ``[B, n_items]`` (a softmax of the scores), rows and
            items of the targets.
        """
        known = self.rows(split)
        rows = np.array([known[case] for case in cases])
        loader = self.loader(split)
        self.trainer.tot_item_num = dataset_of(loader).item_num
        if self.trainer.item_tensor is None:
            features = dataset_of(loader).get_item_feature()
            self.trainer.item_tensor = features.to(self.trainer.device)
        batch = self.trainer._full_sort_batch_eval(loader.collate_fn(rows))
        interaction, scores, target_rows, targets = batch
        log_probs = log_probabilities(scores)
        if self._columns is not None:
            log_probs = log_probs[:, self._columns.to(log_probs.device)]
        return interaction, log_probs, target_rows, targets


def log_probabilities(scores: Tensor) -> Tensor:
    """Log-probabilities of all items, by a softmax of their scores.

    Args:
        scores: ``[B, n_items]``, -inf for items that have no place in a list, which stays; the
            padding item is one of them.
    """
    scores = scores.float().clone()
    scores[:, 0] = -torch.inf
    log_probs = torch.log_softmax(scores, dim=1)
    return log_probs.masked_fill(scores.isneginf(), -torch.inf)  # also where all of a row are


def make_known(model_class: type | str | None) -> None:
    """Let checkpoints of a class from outside this package load.

    Args:
        model_class: the class of one or more members, or ``package.module:Class``; ``None`` = all
            are known.
    """
    if model_class is not None:
        named_class(model_class)


def check_scores(checkpoint: str, config: Any) -> None:
    """Refuse a member whose scores stand for places in its own list.

    Args:
        checkpoint: of the member.
        config: its settings, with the changes asked for.

    Raises:
        ConfigError: ``cold_share`` is above 0.
    """
    share = config["cold_share"]
    if share:
        raise ConfigError(
            f"{checkpoint} has cold_share: {share:g}, which gives items places in a list. An "
            "ensemble adds scores, and its list would not keep the share. Use "
            f"--{config.settings.model}.cold_share=0 when it is made; its file keeps that."
        )


def load_members(
    checkpoints: Sequence[str], changes: dict[str, Any], model_class: type | str | None = None
) -> list[Member]:
    """The members of an ensemble.

    Args:
        checkpoints: of two or more models.
        changes: settings to replace, of all of them.
        model_class: the class of members from outside this package.

    Raises:
        ConfigError: fewer than two, models of other data, items, protocol or test rows, or a key
            that says how they were trained.
        ArtefactError: a model and its data do not hold the same items.
    """
    if len(checkpoints) < 2:
        raise ConfigError("An ensemble needs two checkpoints or more.")
    make_known(model_class)
    members = [Member(checkpoint, changes) for checkpoint in checkpoints]
    first = members[0]
    for member in members[1:]:
        _check_same_protocol(first, member)
        member.follow(first)
    return members


def _check_same_protocol(first: Member, other: Member) -> None:
    one = first.trained.config.plain()
    two = other.trained.config.plain()
    keys = different_protocols(one, two)
    if one["dataset"] != two["dataset"]:
        keys.insert(0, "dataset")
    if keys:
        values = one.get(keys[0]), two.get(keys[0])
        raise ConfigError(
            f"{first.checkpoint} and {other.checkpoint} cannot be added: they differ in "
            f"{', '.join(keys)} ({values[0]} and {values[1]}). Use checkpoints of one protocol, or "
            "set the key for all, as in --exclude_history=True."
        )
    if first.rows("test").keys() != other.rows("test").keys():
        raise ConfigError(
            f"{first.checkpoint} and {other.checkpoint} are tested on different users or items. "
            "Train both on the same data and split."
        )
