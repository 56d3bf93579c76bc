"""Candidates of an evaluation among samples (``mode: uniN``, ``popN``), the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.sampler import RepeatableSampler

from recbole_genrec.data.rows.training_counts import training_counts
from recbole_genrec.storage.digests import digest


class SameCandidates:
    """RecBole's sampler of a part, which draws the same items for a user each time.

    RecBole draws a user's candidates from numpy's common generator when a batch is made, so they
    depend on all that has been drawn before. Here they follow from the seed, the part and the user:
    every epoch, every model, every batch size and every number of processes has the same ones, and
    nothing else that is drawn depends on them. They are drawn as numbers of items, which follow the
    order of the file: another order of its rows gives other candidates.

    Args:
        sampler: RecBole's sampler of validation or test.
        seed: of the run.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self._sampler = sampler
        self._seed = seed
        self.phase: str = sampler.phase

    def sample_by_user_ids(
        self, user_ids: np.ndarray, item_ids: np.ndarray, num: int
    ) -> torch.Tensor:
        """As RecBole's, for the rows of one user.

        Args:
            user_ids: the user, as often as there are rows.
            item_ids: the target of each row.
            num: candidates of a row.
        """
        state = np.random.get_state()
        np.random.seed(int(digest(self._seed, self.phase, int(user_ids[0]), size=8), 16))
        candidates = self._sampler.sample_by_user_ids(user_ids, item_ids, num)
        np.random.set_state(state)
        return candidates


def draw_same_candidates(loader: Any, seed: int) -> None:
    """Let a loader draw as :class:`SameCandidates`, where it draws at all.

    Args:
        loader: RecBole's loader of validation or test.
        seed: of the run.
    """
    sampler = loader._sampler
    if sampler is None or not isinstance(loader, NegSampleEvalDataLoader):
        return
    if sampler.distribution == "popularity" and isinstance(sampler, RepeatableSampler):
        _count_every_event(sampler)
    loader._sampler = SameCandidates(sampler, seed)


def _count_every_event(sampler: RepeatableSampler) -> None:
    """Let a sampler by popularity count as that of any other model.

    RecBole counts the rows of a sequential model, which lack the first event of each user.
    """
    counts = training_counts(sampler.dataset)
    items = np.repeat(list(counts), list(counts.values()))
    sampler._get_candidates_list = lambda: items
    sampler._build_alias_table()
