"""What RecBole's evaluation collects, and what a checkpoint may hold."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from recbole.evaluator import Collector

from recbole_genrec.runtime.processes import gathered


def storable(parameters: dict) -> dict:
    """What a checkpoint may hold of ``model.other_parameter()``: tensors and plain values.

    ItemKNN, EASE and their like list numpy and scipy matrices there, which their constructors compute from the dataset anyway.
    """
    plain = (torch.Tensor, bool, int, float, str, list, dict, type(None))
    return {name: value for name, value in parameters.items() if isinstance(value, plain)}


def make_collector(config):
    """RecBole's ``Collector``, repaired: counts and integers have no ``.cpu()``, all training rows count, and several processes put their
    users together.

    recbole/evaluator/collector.py: ``get_data_struct`` calls ``.cpu()`` on everything, so ItemCoverage, GiniIndex,
    AveragePopularity and TailPercentage raise AttributeError in RecBole 1.2.1. recbole/trainer/trainer.py: ``_map_reduce`` averages
    the metrics of the processes, which is wrong for coverage, Gini index and entropy, after ``DistributedSampler`` has repeated users.
    """

    per_user = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")

    class TensorCollector(Collector):
        def data_collect(self, train_data):
            counted = getattr(
                train_data, "counted", None
            )  # the rows before train_rows chose among them
            super().data_collect(
                train_data if counted is None else SimpleNamespace(dataset=counted)
            )

        def get_data_struct(self):
            data = self.data_struct._data_dict
            for key, value in data.items():
                data[key] = value.cpu() if torch.is_tensor(value) else value
            for key in per_user:
                if key in self.data_struct:
                    data[key] = gathered(data[key])
            result = copy.deepcopy(self.data_struct)
            self.hits = data.get("rec.topk")  # of the last evaluation, [users, max(topk) + 1]
            for key in per_user:
                if key in self.data_struct:
                    del self.data_struct[key]
            return result

    return TensorCollector(config)


class Silent:
    """In place of a log that this process does not write: takes every call and does nothing."""

    def __getattr__(self, name: str):
        return lambda *_, **__: None


@contextlib.contextmanager
def scratch_folder() -> Iterator[None]:
    """Work in an empty folder that is removed at the end.

    recbole/trainer/trainer.py: ``Trainer.__init__`` opens a TensorBoard file below the working folder, in every process.
    """
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
