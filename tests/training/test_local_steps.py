"""Local SGD: processes that train apart and average their weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from processes import together
from toy import TINY, TINY_OF, toy_config, write_dataset

from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.runtime import processes
from recbole_genrec.training.local_steps import LocalSteps, check_local_steps, own_batches
from recbole_genrec.training.row_adam import RowAdamW

PLAIN = {"tokenizer": "random", "group_by_length": False, "eval_step": 1, "train_rows": "longest"}
TABLES = {
    "depth": "none",
    "score_type": "renormalised",
    "item_parts": None,
    "input_id": True,
    "output_id": False,
    "sparse_tables": True,
    "dense_scores": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=61)


# --- whose batches --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_batches", "size"), [(6, 2), (7, 2), (8, 3), (1, 2), (2, 5), (9, 4)])
def test_every_row_is_seen_once_and_all_processes_take_as_many_batches(
    monkeypatch, n_batches, size
):
    batches = list(torch.arange(n_batches * 10).split(10))
    seen = []
    counts = set()
    for rank in range(size):
        monkeypatch.setattr("recbole_genrec.training.local_steps.rank", lambda rank=rank: rank)
        monkeypatch.setattr("recbole_genrec.training.local_steps.size", lambda: size)
        own = list(own_batches(batches))
        counts.add(len(own))
        seen += torch.cat(own).tolist()
    assert sorted(seen) == list(range(n_batches * 10))
    assert counts == {-(-n_batches // size)}


# --- what is averaged -----------------------------------------------------------------------------


class Tables(torch.nn.Module):
    """A table with sparse gradients, and a dense weight."""

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(2))
        self.table = torch.nn.Embedding(n_rows, 3, sparse=True)
        self.dense = torch.nn.Parameter(torch.ones(3))
        self.sparse_parameters = [self.table.weight]

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Something whose gradient differs from row to row."""
        return (self.table(rows) * self.dense).pow(2).sum()


ROWS = [[torch.tensor([0, 1]), torch.tensor([1, 2])], [torch.tensor([1, 5]), torch.tensor([5])]]
"""Of two processes, for two steps: row 1 is common, 3 and 4 are nobody's."""


def copied(model: Tables) -> Tables:
    """A model of its own with the same weights."""
    copy = Tables(model.table.num_embeddings)
    copy.load_state_dict(model.state_dict())
    return copy


def trained_alone(model: Tables, steps: list[torch.Tensor]) -> tuple[Tables, RowAdamW]:
    """A copy after some steps of one process."""
    model = copied(model)
    optimiser = RowAdamW(model.parameters(), lr=0.1, weight_decay=0.01)
    for rows in steps:
        model.loss(rows).backward()
        optimiser.step()
        optimiser.zero_grad()
    return model, optimiser


def average_of_two_processes(model: Tables, alone: list[tuple[Tables, RowAdamW]]) -> None:
    model = copied(model)  # what is sent to a process lies in memory that both share
    optimiser = RowAdamW(model.parameters(), lr=0.1, weight_decay=0.01)
    local = LocalSteps(model, every=2)
    own = torch.full((2,), float(processes.rank()))
    for number, rows in enumerate(ROWS[processes.rank()]):
        model.loss(rows).backward()
        local.note_rows()
        optimiser.step()
        optimiser.zero_grad()
        assert local.is_due(last=False) == (number == 1)
    if processes.rank():
        model.unused.sum().backward()  # a step that the other process does not make
        optimiser.step()
    local.average(optimiser, [own])

    (first, _), (second, _) = alone
    pairs = [(model.table.weight, first.table.weight, second.table.weight)]
    state = optimiser.state[model.table.weight]
    for name in ("exp_avg", "exp_avg_sq"):
        moments = [of.state[it.table.weight][name] for it, of in alone]
        pairs.append((state[name], *moments))
    for found, here, there in pairs:
        torch.testing.assert_close(found[[0, 2]], here[[0, 2]])
        torch.testing.assert_close(found[5], there[5])
        torch.testing.assert_close(found[1], (here[1] + there[1]) / 2)
        torch.testing.assert_close(found[3:5], here[3:5])
    torch.testing.assert_close(model.dense, (first.dense + second.dense) / 2)
    assert own.tolist() == [0.5, 0.5]
    steps = [float(optimiser.state[weight]["step"]) for weight in model.parameters()]
    assert steps == [1, 2, 2]
    for tensor in (model.unused, *optimiser.state[model.unused].values()):
        first_has, second_has = processes.exchanged(tensor.detach().clone())
        assert torch.equal(first_has, second_has)


@pytest.mark.parametrize("n_rows", [6, 20], ids=["most rows changed", "few rows changed"])
def test_a_row_is_averaged_over_the_processes_that_changed_it(n_rows):
    torch.manual_seed(0)
    model = Tables(n_rows)
    alone = [trained_alone(model, steps) for steps in ROWS]
    together(average_of_two_processes, model, alone)


# --- whole runs -----------------------------------------------------------------------------------


def settings(folder, **changes):
    return {
        **TINY_OF["TimelineRec"],
        **PLAIN,
        "data_path": str(folder),
        "local_steps": 2,
        **changes,
    }


@pytest.mark.parametrize(
    "changes", [{"ema_decay": 0.9}, TABLES], ids=["average of weights", "sparse tables"]
)
def test_two_processes_end_with_one_model(folder, changes):
    """Both are evaluated with the same weights: the metrics are those of the checkpoint."""
    from recbole_genrec.experiments.evaluation import evaluate

    run = partial(settings, folder, **changes)
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=run(nproc=2))
    again = evaluate(result["checkpoint"], data_path=str(folder))
    assert again["test_result"] == pytest.approx(result["test_result"], abs=1e-6)
    assert len(result["epochs"]) == run()["epochs"]
    first, *_, last = (epoch["loss"][0] for epoch in result["epochs"])
    assert last < first


def test_one_process_ignores_it(folder):
    one = run_recbole_genrec("TimelineRec", "toy", config_dict=settings(folder))
    other = run_recbole_genrec("TimelineRec", "toy", config_dict=settings(folder, local_steps=0))
    assert one["epochs"] == other["epochs"]


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": "sgd"},
        {"learner": "adafactor"},
        {"fsdp": True},
        {"precision": "fp16"},
        {"self_improve": True},
    ],
)
def test_what_cannot_be_averaged_is_refused(folder, changes):
    settings = toy_config(folder, "TimelineRec", local_steps=2).settings
    check_local_steps(settings)
    with pytest.raises(ConfigError, match="local_steps"):
        check_local_steps(settings.model_copy(update=changes))


def test_another_task_before_each_epoch_is_refused(folder):
    run = {**TINY, "data_path": str(folder), "local_steps": 2, "align_mode": "alternate"}
    with pytest.raises(ConfigError, match="local_steps: STORE trains on another task"):
        run_recbole_genrec("STORE", "toy", config_dict={**run, "nproc": 2})


def test_the_number_of_processes_stands_in_the_name(folder):
    names = {
        (local_steps, nproc): toy_config(
            folder, "TimelineRec", local_steps=local_steps, nproc=nproc
        ).run_name()
        for local_steps in (0, 2)
        for nproc in (1, 2)
    }
    assert names[0, 1] == names[0, 2]
    assert len(set(names.values())) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "2, which share each batch\n"),
        (TABLES, "--local_steps=512"),
        ({**TABLES, "local_steps": 7}, "averaged every 7 steps"),
    ],
)
def test_the_summary_says_how_processes_share_the_batches(folder, monkeypatch, changes, words):
    config = toy_config(folder, "TimelineRec", **changes)
    dataset = create_dataset(config)
    monkeypatch.setattr(processes, "size", lambda: 2)
    assert words in start_summary(config, dataset)
