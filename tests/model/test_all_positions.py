"""RecBole's SASRec and GRU4Rec on rows whose positions are all targets: the loss is RecBole's."""

from __future__ import annotations

import pytest
import torch
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from toy import write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.loading import load_data_and_model
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.model.registry import build_model

NO_DROPOUT = {
    "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "GRU4Rec": {"dropout_prob": 0.0},
}
CLASSES = {"SASRec": SASRec, "GRU4Rec": GRU4Rec}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def settings(folder, model, **changes):
    return {
        "data_path": str(folder),
        "gpu_id": "",
        "epochs": 2,
        "topk": [5, 10],
        "show_progress": False,
        "train_rows": "windows",
        "MAX_ITEM_LIST_LENGTH": 16,
        **NO_DROPOUT.get(model, {}),
        **changes,
    }


def prepared(folder, model, **changes):
    config = GenRecConfig(model, "toy", config_dict=settings(folder, model, **changes))
    dataset = create_dataset(config)
    return config, dataset, make_loaders(config, dataset, False)[0]


def total_loss(model, train, count):
    """Sum over the targets of an epoch, and their number."""
    total = n_targets = 0.0
    for batch in train:
        size = count(batch)
        total += float(model.calculate_loss(batch)) * size
        n_targets += size
    return total, n_targets


@pytest.mark.parametrize("batches", [{"batch_targets": 64}, {"train_batch_size": 16}])
@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_the_loss_is_the_sum_of_recboles_over_all_prefixes(folder, name, batches):
    config, _, windows = prepared(folder, name, **batches)
    model = build_model(config, windows._dataset)
    assert isinstance(model, CLASSES[name])
    plain_config, dataset, prefixes = prepared(folder, name, train_rows="all")
    plain = build_model(plain_config, prefixes._dataset)
    assert type(plain) is CLASSES[name]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    plain.load_state_dict(model.state_dict())

    ours = total_loss(model, windows, lambda batch: int(batch["item_length"].sum()))
    theirs = total_loss(plain, prefixes, len)
    assert ours[1] == theirs[1] == len(dataset.inter_feat) - 2 * (dataset.user_num - 1)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)

    # and so is its gradient
    for batch in windows:
        (model.calculate_loss(batch) * int(batch["item_length"].sum())).backward()
    for batch in prefixes:
        (plain.calculate_loss(batch) * len(batch)).backward()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)


def test_a_window_stands_at_the_first_positions(folder):
    """As in an evaluation, whose histories are cut to the last items too."""
    config, _, train = prepared(folder, "SASRec", MAX_ITEM_LIST_LENGTH=4, batch_targets=64)
    model = build_model(config, train._dataset).eval()
    batch = next(iter(train))
    history, length = batch["item_id_list"], batch["item_length"]
    states = model.states(history, length)
    last = states[torch.arange(len(length)), length - 1]
    torch.testing.assert_close(last, model(history, length))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("NARM", "its states at all positions cannot be read"),
        ("GCSAN", "the state of a position also depends on later items"),
        ("LightSANs", "the state of a position also depends on later items"),
    ],
)
def test_models_that_do_not_allow_it_are_refused(folder, model, reason):
    config, _, train = prepared(folder, model)
    with pytest.raises(ConfigError, match=f"{reason}.*Use --{model}.train_rows=all"):
        build_model(config, train._dataset)


def test_a_loss_of_pairs_is_refused_with_the_settings(folder):
    reason = "draws negatives for one target a row. Use --SASRec.train_rows=all"
    with pytest.raises(ConfigError, match=reason):
        GenRecConfig("SASRec", "toy", config_dict=settings(folder, "SASRec", loss_type="BPR"))


def test_bert4rec_and_general_models_train_as_before(folder):
    config, _, train = prepared(folder, "BERT4Rec")
    assert type(build_model(config, train._dataset)).__name__ == "BERT4Rec"
    assert not hasattr(type(build_model(config, train._dataset)), "balances_loss")
    _, dataset, train = prepared(folder, "Pop")
    assert len(train._dataset) == len(dataset.inter_feat) - 2 * (dataset.user_num - 1)


def test_a_run_is_evaluated_as_recboles(folder):
    result = run_recbole_genrec(
        "SASRec", "toy", config_dict=settings(folder, "SASRec", batch_targets=64)
    )
    config, model, _, _, _, test = load_data_and_model(result["checkpoint"])
    assert type(model) is SASRec
    assert "batch 64 targets, rows windows" in start_summary(config, test._dataset)
    ranks = []
    for batch, _, _, targets in test:
        scores = model.full_sort_predict(batch).view(len(batch), -1)
        scores[:, 0] = -torch.inf
        ranks.append((scores > scores.gather(1, targets.unsqueeze(1))).sum(1))
    hits = (torch.cat(ranks) < 10).float().mean().item()
    assert result["test_result"]["recall@10"] == pytest.approx(hits, abs=1e-6)


def test_two_processes_give_the_run_of_one(folder):
    one, two = (
        run_recbole_genrec(
            "SASRec",
            "toy",
            config_dict=settings(
                folder, "SASRec", batch_targets=40, nproc=nproc, checkpoint_dir=f"of-{nproc}"
            ),
        )
        for nproc in (1, 2)
    )
    for first, second in zip(one["epochs"], two["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert two["test_result"] == pytest.approx(one["test_result"], abs=1e-6)
