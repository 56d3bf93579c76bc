"""Tables whose gradients hold the rows of a batch alone: the same steps, without the other rows."""

from __future__ import annotations

import copy

import pytest
import torch
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.model.timeline.distinct_rows import rows_of_items
from recbole_genrec.training import row_adam
from recbole_genrec.training.row_adam import (
    RowAdam,
    RowAdamW,
    clip_gradients,
    coalesced,
    row_optimiser,
)

OWN_EDGES = {
    "depth": "none",
    "score_type": "renormalised",
    "item_parts": None,
    "input_id": True,
    "output_id": False,
    "learner": "adamw",
}
PAIRS = {RowAdam: torch.optim.Adam, RowAdamW: torch.optim.AdamW}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def sparse_of(gradient, rows):
    index = torch.tensor([rows])
    return torch.sparse_coo_tensor(index, gradient[rows], gradient.shape)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("ours", PAIRS)
def test_with_all_rows_the_steps_are_those_of_torch(ours, decay):
    torch.manual_seed(0)
    start, weights = torch.randn(6, 3), torch.randn(4)
    mine = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(weights.clone())]
    theirs = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(weights.clone())]
    optimisers = ours(mine, lr=0.1, weight_decay=decay), PAIRS[ours](theirs, 0.1)
    optimisers[1].param_groups[0]["weight_decay"] = decay
    for _ in range(5):
        gradient = torch.randn(6, 3)
        mine[0].grad = sparse_of(gradient, [3, 1, 0, 2, 5, 4])
        theirs[0].grad = gradient.clone()
        mine[1].grad = torch.randn(4)
        theirs[1].grad = mine[1].grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])


def test_rows_without_gradient_stay_and_the_others_follow_the_formula():
    """Kingma and Ba, algorithm 1, for each row at the steps that touch it."""
    torch.manual_seed(1)
    table = torch.nn.Parameter(torch.randn(5, 2))
    expected = table.detach().clone()
    mean, square = torch.zeros(5, 2), torch.zeros(5, 2)
    optimiser = RowAdam([table], lr=0.05)
    for step, rows in enumerate([[0, 1], [1, 3], [0, 3], [1]], start=1):
        gradient = torch.randn(5, 2)
        table.grad = sparse_of(gradient, rows)
        optimiser.step()
        for row in rows:
            mean[row] = 0.9 * mean[row] + 0.1 * gradient[row]
            square[row] = 0.999 * square[row] + 0.001 * gradient[row] ** 2
            unbiased = mean[row] / (1 - 0.9**step), square[row] / (1 - 0.999**step)
            expected[row] -= 0.05 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    torch.testing.assert_close(table.detach(), expected)
    assert torch.equal(table[[2, 4]].detach(), expected[[2, 4]])


def test_rows_that_are_named_twice_are_added_up():
    table = torch.nn.Parameter(torch.zeros(4, 2))
    twice = copy.deepcopy(table)
    index = torch.tensor([[2, 2]])
    table.grad = torch.sparse_coo_tensor(index, torch.ones(2, 2), table.shape)
    twice.grad = sparse_of(torch.full((4, 2), 2.0), [2])
    for parameter in (table, twice):
        RowAdam([parameter], lr=0.1).step()
    assert torch.equal(table, twice)


@pytest.mark.parametrize("long", [1, 10**6])
@pytest.mark.parametrize("rows", [[0, 1, 2, 5, 6, 9], [3], [8, 9], list(range(10)), []])
def test_blocks_of_rows_are_changed_as_single_rows_are(monkeypatch, rows, long):
    monkeypatch.setattr(row_adam, "LONG", long)
    torch.manual_seed(4)
    table = torch.nn.Parameter(torch.randn(10, 3))
    single = copy.deepcopy(table)
    optimisers = RowAdamW([table], lr=0.1, weight_decay=0.1), SingleRows(single)
    for _ in range(3):
        gradient = torch.randn(10, 3)
        table.grad = sparse_of(gradient, rows)
        before = table._version
        optimisers[0].step()
        optimisers[1].step(gradient, rows)
        assert not rows or table._version > before  # what is kept for these weights is out of date
    torch.testing.assert_close(table, single)


class SingleRows:
    """Torch's AdamW of each row alone."""

    def __init__(self, table):
        self.rows = [torch.nn.Parameter(row.detach().clone()) for row in table]
        self.optimisers = [torch.optim.AdamW([row], 0.1, weight_decay=0.1) for row in self.rows]
        self.table = table

    def step(self, gradient, rows):
        for row in rows:
            self.rows[row].grad = gradient[row].clone()
            self.optimisers[row].step()
            self.table.data[row] = self.rows[row].data


def test_rows_that_rise_already_are_not_sorted_again(monkeypatch):
    table = torch.nn.Parameter(torch.randn(6, 2))
    items = torch.tensor([[4, 1], [4, 5]])
    weights = torch.randn(2, 2, 2)
    (rows_of_items(table, items) * weights).sum().backward()
    expected = torch.zeros(6, 2)
    expected.index_add_(0, items.flatten(), weights.flatten(0, 1))
    torch.testing.assert_close(table.grad.to_dense(), expected)
    assert table.grad._indices()[0].tolist() == [1, 4, 5]
    monkeypatch.setattr(torch.Tensor, "coalesce", None)
    gradient = coalesced(table.grad)
    assert gradient.is_coalesced()
    assert torch.equal(gradient.to_dense(), table.grad.to_dense())


def test_the_state_continues(tmp_path):
    torch.manual_seed(2)
    table = torch.nn.Parameter(torch.randn(5, 2))
    other = copy.deepcopy(table)
    first, second = RowAdamW([table], lr=0.1), RowAdamW([other], lr=0.1)
    gradients = torch.randn(4, 5, 2)
    for number, gradient in enumerate(gradients):
        table.grad = sparse_of(gradient, [number, 4])
        first.step()
        if number < 2:
            other.grad = sparse_of(gradient, [number, 4])
            second.step()
    torch.save(second.state_dict(), tmp_path / "state.pt")
    third = RowAdamW([other], lr=0.1)
    third.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number, gradient in enumerate(gradients[2:], start=2):
        other.grad = sparse_of(gradient, [number, 4])
        third.step()
    assert torch.equal(table, other)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_sees_sparse_gradients(max_norm):
    torch.manual_seed(3)
    mine = [torch.nn.Parameter(torch.zeros(5, 2)), torch.nn.Parameter(torch.zeros(3))]
    theirs = copy.deepcopy(mine)
    gradient = torch.randn(5, 2)
    gradient[[0, 2]] = 0
    mine[0].grad = sparse_of(gradient, [4, 1, 3])
    theirs[0].grad = gradient.clone()
    mine[1].grad = torch.randn(3)
    theirs[1].grad = mine[1].grad.clone()
    clip_gradients(mine, max_norm=max_norm)
    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(mine[0].grad.to_dense(), theirs[0].grad)
    torch.testing.assert_close(mine[1].grad, theirs[1].grad)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_clipping_refuses_gradients_that_are_no_numbers_where_it_is_asked_to(is_sparse):
    table = torch.nn.Parameter(torch.zeros(5, 2))
    gradient = torch.full((5, 2), torch.inf)
    table.grad = gradient
    if is_sparse:
        table.grad = sparse_of(gradient, [4, 1])
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_gradients([table], max_norm=1.0, error_if_nonfinite=True)
    clip_gradients([table], max_norm=1.0)


def test_sparse_gradients_are_the_dense_ones(folder, tmp_path):
    gradients = {}
    for sparse in (False, True):
        changes = {**OWN_EDGES, "sparse_tables": sparse, "cache_dir": str(tmp_path)}
        torch.manual_seed(0)
        model, _, (train, _, _) = toy_model(folder, "TimelineRec", **changes)
        torch.manual_seed(1)
        for table in (model.id_table, *model.tree.own):
            torch.nn.init.normal_(table, std=0.1)
        model.train()
        loss = model.calculate_loss(next(iter(train)))
        loss.backward()
        gradients[sparse] = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    assert gradients[True].keys() == gradients[False].keys()
    n_sparse = 0
    for name, dense in gradients[False].items():
        gradient = gradients[True][name]
        n_sparse += gradient.is_sparse
        torch.testing.assert_close(gradient.to_dense(), dense, msg=name)
    assert n_sparse >= 3  # ids, edges and their biases below the first level


def test_a_run_with_sparse_tables_learns(folder, tmp_path):
    values = {**TINY_OF["TimelineRec"], **OWN_EDGES, "sparse_tables": True}
    values |= {"epochs": 8, "clip_grad_norm": {"max_norm": 5}}
    values |= {"checkpoint_dir": str(tmp_path), "cache_dir": str(tmp_path)}
    values |= {"train_rows": "windows", "batch_targets": 64, "data_path": str(folder)}
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    losses = [epoch["loss"][0] for epoch in result["epochs"]]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"output_id": True},
        {"item_parts": ["id"]},
        {"depth": "mlp"},
        {"fsdp": True},
        {"learner": "sgd"},
    ],
)
def test_tables_that_every_step_reads_cannot_be_sparse(folder, changes):
    with pytest.raises(ConfigError, match="sparse_tables"):
        toy_config(folder, "TimelineRec", **{**OWN_EDGES, "sparse_tables": True, **changes})


def test_other_optimisers_are_refused():
    with pytest.raises(ConfigError, match="learner adam or adamw"):
        row_optimiser("sgd", [torch.nn.Parameter(torch.zeros(2, 2))], 0.1, 0.0)
