"""The likelihood over legal codes: what a model trains with ``loss_vocab: trie`` is the score
that its search ranks by.
"""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_genrec.decoding import ItemTrie, item_cross_entropy
from tests.toy import toy_model, write_dataset

LEGAL = {"loss_vocab": "trie", "score_type": "renormalised"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("budget_mb", [256, 0])
def test_probabilities_of_all_items_sum_to_one(budget_mb):
    codes = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 2, 0], [1, 1, 0], [1, 1, 1], [3, 0, 0]])
    trie = ItemTrie(codes, (4, 3, 2), budget_mb=budget_mb)
    blocks = [
        torch.randn(1, size, generator=torch.Generator().manual_seed(size)) for size in trie.sizes
    ]
    losses = torch.stack(
        [item_cross_entropy(trie, torch.tensor([item]), blocks) for item in range(1, 6)]
    )
    assert torch.exp(-losses).sum().item() == pytest.approx(1, abs=1e-6)
    first, second = blocks[0][0], blocks[1][0]
    by_hand = (
        torch.logsumexp(first[[0, 1, 3]], 0)
        - first[0]
        + torch.logsumexp(second[[0, 2]], 0)
        - second[2]
    )
    assert losses[1].item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_a_tail_without_branches_is_not_read():
    trie = ItemTrie(torch.tensor([[0, 0], [0, 1], [1, 1]]), (2, 2))
    only_first = [torch.tensor([[0.0, 1.0]])]
    assert item_cross_entropy(trie, torch.tensor([2]), only_first).item() == pytest.approx(
        0.31326, abs=1e-5
    )


def test_items_on_a_single_leaf_cost_nothing():
    trie, block = (
        ItemTrie(torch.tensor([[0, 0], [1, 1], [1, 1]]), (2, 2)),
        torch.zeros(2, 2, requires_grad=True),
    )
    loss = item_cross_entropy(trie, torch.tensor([1, 2]), (each for each in [block, block]))
    loss.backward()
    assert loss.item() == 0 and block.grad.abs().sum() == 0


def rows(length):
    history = torch.tensor([[3, 5, 7], [9, 2, 4]])[:, :length]
    target = torch.tensor([[3, 5, 7, 8], [9, 2, 4, 1]])[:, length]
    return history, torch.full((2,), length), target


def scores(model, length):
    history, lengths, target = rows(length)
    columns = {
        model.ITEM_SEQ: history,
        model.ITEM_SEQ_LEN: lengths,
        model.ITEM_ID: target,
        model.USER_ID: torch.ones(2, dtype=torch.long),
    }
    return model.predict(Interaction(columns))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "TIGER"},
        {"model": "LETTER", "temperature": 0.7, "infer_temperature": "match"},
        {"model": "TimelineRec", "train_rows": "all"},
        {"model": "STORE", "loss_positions": "target", "train_rows": "all", "lambda_align": 0.0},
    ],
    ids=lambda changes: changes["model"],
)
def test_the_loss_is_the_score_of_the_search(folder, changes):
    model, _, _ = toy_model(folder, **changes, **LEGAL)
    assert model.loss(*rows(3)).item() == pytest.approx(-scores(model, 3).mean().item(), abs=1e-5)


def test_all_positions_of_store(folder):
    model, _, _ = toy_model(folder, "STORE", lambda_align=0.0, **LEGAL)
    added = 4 * model.loss(*rows(3)) - 3 * model.loss(*rows(2))  # means over 4 and 3 items
    assert added.item() == pytest.approx(-scores(model, 3).mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"score_type": "level"}, {"score_type": "level", "constraint": "level"}, {}],
    ids=str,
)
def test_other_scores_are_warned_of(folder, changes, caplog):
    toy_model(folder, "TIGER", **{**LEGAL, **changes})
    assert ("never learns which codes are illegal" in caplog.text) == bool(changes)


def test_illegal_codes_get_no_gradient(folder):
    model, _, _ = toy_model(folder, "TimelineRec", **LEGAL)
    model.loss(*rows(3)).backward()
    unused = torch.ones(model.level_sizes[0], dtype=torch.bool)
    unused[model.codes[1:, 0]] = False
    gradient = model.vocabulary.classifier.grad[: model.level_sizes[0]]
    assert gradient[~unused].abs().sum() > 0 and not gradient[unused].any()
