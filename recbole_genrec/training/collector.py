"""What RecBole's evaluation collects, and what takes its place where nothing is written."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct

from recbole_genrec.data.rows.training_counts import training_counts
from recbole_genrec.runtime.processes import gathered
from recbole_genrec.training.list_evaluation import RankedLists, hits_in, needs_whole_rows

PER_USER = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")
"""What the collector keeps for each user."""


class BatchedStruct(DataStruct):
    """RecBole's ``DataStruct`` that joins the tensors of all batches once, at the end.

    RecBole's copies all users of the batches before with each batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._batches: dict[str, list[torch.Tensor]] = {}

    def update_tensor(self, name: str, value: torch.Tensor) -> None:
        """Add the tensor of a batch."""
        self._batches.setdefault(name, []).append(value.detach().cpu().clone())

    def replace_tensor(self, name: str, value: torch.Tensor) -> None:
        """Take another tensor for the last batch."""
        self._batches[name].pop()
        self.update_tensor(name, value)

    def join(self) -> None:
        """Put the batches together."""
        for name, tensors in self._batches.items():
            self.set(name, torch.cat(tensors))
        self._batches = {}


class TensorCollector(Collector):
    """RecBole's ``Collector``, repaired.

    Counts and integers have no ``.cpu()``, all training interactions count, for every model, the
    padding item is no item, and several processes put their users together.

    recbole/evaluator/collector.py: ``get_data_struct`` calls ``.cpu()`` on everything, so
    ItemCoverage, GiniIndex, AveragePopularity and TailPercentage raise AttributeError in RecBole
    1.2.1. recbole/trainer/trainer.py: ``_map_reduce`` averages the metrics of the processes, which
    is wrong for coverage, Gini index and entropy, after ``DistributedSampler`` has repeated users.

    Attributes:
        hits: of the last evaluation, ``[users, max(topk) + 1]``; ``None`` = no metric needs them.
        lists: its item ids ``[users, max(topk)]``, where a metric of the catalogue needs them.
    """

    hits: torch.Tensor | None = None
    lists: torch.Tensor | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.data_struct = BatchedStruct()

    def data_collect(self, train_data: Any) -> None:
        """As RecBole's, with the rows that were there before ``train_rows`` chose among them."""
        counted = getattr(train_data, "counted", None)
        if counted is not None:
            train_data = SimpleNamespace(dataset=counted)
        super().data_collect(train_data)
        if self.register.need("data.num_items"):
            n_items = self.data_struct.get("data.num_items") - 1  # the padding item is none
            self.data_struct.set("data.num_items", n_items)
        if self.register.need("data.count_items"):
            counts = training_counts(train_data.dataset)
            self.data_struct.set("data.count_items", counts)

    def eval_batch_collect(
        self,
        scores_tensor: torch.Tensor | RankedLists,
        interaction: Any,
        positive_u: torch.Tensor,
        positive_i: torch.Tensor,
    ) -> None:
        """As RecBole's, from lists in which equal scores have an order and places may stay empty.

        RecBole leaves the order of equal scores open, where ``recommend`` ranks them by their ids.
        It fills places for which too few items are left with any items of score -inf, and a target
        among them counts as a hit. Targets of score -inf are ranked last. Ranked lists take the
        place of scores where an evaluation holds no scores of all items.
        """
        put = self.data_struct.update_tensor
        if isinstance(scores_tensor, RankedLists):
            ranked = scores_tensor
        elif scores_tensor.dim() == 1:  # of given pairs
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        else:
            ranked = RankedLists.of(scores_tensor, max(self.topk))
            ranked = ranked.without(None, scores_tensor.shape[1])
            if needs_whole_rows(self):
                rank_last(scores_tensor, positive_u, positive_i)
                super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
                put = self.data_struct.replace_tensor
        for name, value in self._of_lists(ranked, positive_u, positive_i).items():
            put(name, value)

    def _of_lists(
        self, ranked: RankedLists, positive_u: torch.Tensor, positive_i: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the evaluator reads of ranked lists; arguments as of :meth:`eval_batch_collect`."""
        lists = ranked.items
        collected = {}
        if self.register.need("rec.items"):
            collected["rec.items"] = lists
        if self.register.need("rec.topk"):
            n_items = max(int(lists.max()), int(positive_i.max())) + 1
            collected["rec.topk"] = hits_in(lists, positive_u, positive_i, n_items)
        return collected

    def get_data_struct(self) -> Any:
        """What the evaluator reads, of the users of all processes; forgets the users after it."""
        self.data_struct.join()
        data = self.data_struct._data_dict
        for key, value in data.items():
            if torch.is_tensor(value):
                data[key] = value.cpu()
        for key in PER_USER:
            if key in self.data_struct:
                data[key] = gathered(data[key])
        result = copy.deepcopy(self.data_struct)
        self.hits = data.get("rec.topk")
        self.lists = data.get("rec.items")
        for key in PER_USER:
            if key in self.data_struct:
                del self.data_struct[key]
        return result


def rank_last(scores: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> None:
    """Rank targets that no list may hold below all items, in place: GAUC needs a rank.

    Args:
        scores: ``[B, n_items]``, -inf for items of the history and those that no search reached.
        rows: row of each target.
        targets: item ids.
    """
    rows = rows.to(scores.device)
    targets = targets.to(scores.device)
    hidden = scores[rows, targets] == -torch.inf
    rows = rows[hidden]
    targets = targets[hidden]
    lowest = scores[rows].masked_fill(scores[rows] == -torch.inf, torch.inf).amin(1)
    lowest = lowest.masked_fill(lowest == torch.inf, 0)  # rows without any item
    scores[rows, targets] = lowest - lowest.abs() - 1


class Silent:
    """In place of a log that this process does not write: takes every call and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@contextlib.contextmanager
def scratch_folder() -> Iterator[None]:
    """Work in an empty folder that is removed at the end.

    recbole/trainer/trainer.py: ``Trainer.__init__`` opens a TensorBoard file below the working
    folder, in every process.
    """
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
