"""Parallel codes: ``tokenizer: opq`` and ``generator: parallel`` of TimelineRec."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, silu
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.decoding import exact_scores
from recbole_genrec.decoding.smoothing import smoothed_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.analysis import analyse
from recbole_genrec.experiments.report import write_report
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.experiments.trained import evaluate, load_data_and_model
from recbole_genrec.model.timeline.model import TimelineRec
from recbole_genrec.storage.checkpoints import load_checkpoint

PARALLEL = {
    "generator": "parallel",
    "tokenizer": "opq",
    "codebook_sizes": [8, 8, 8, 8, 8],
    "opq_rounds": 3,
    "collision": ["nearest_free"],
    "item_parts": ["code"],
    "depth": "none",
    "positions": "relative",
    "norm": "post",
    "score_mode": "auto",
    "train_rows": "windows",
    "weight_decay": 0.0,
}
RANDOM = {"tokenizer": "random"}
HISTORY = torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]])
LENGTH = torch.tensor([3, 2, 1])
TARGET = torch.tensor([8, 6, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def parallel(folder, cache, **changes):
    """A small model whose heads have left their start."""
    settings = {**PARALLEL, "cache_dir": cache, **changes}
    model = toy_model(folder, "TimelineRec", **settings)[0]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model


def slow_log_probs(model, states):
    """The sum of the log-probabilities of each item's codes, code by code from the paper."""
    heads, codes, sizes = model.parallel, model.codes, model.level_sizes
    table = model.vocabulary.embedding if heads.code_table is None else heads.code_table
    scores = torch.zeros(len(states), len(codes))
    for user, state in enumerate(states):
        first = 0
        for place, size in enumerate(sizes):
            head = state + silu(heads.weight[place] @ state + heads.bias[place, 0])
            cosines = []
            for code in range(size):
                vector = table[first + code]
                cosines.append(head @ vector / (head.norm() * vector.norm()))
            log_probs = torch.log_softmax(torch.stack(cosines) / 0.03, dim=0)
            for item in range(len(codes)):
                scores[user, item] += log_probs[codes[item, place]]
            first += size
    return scores


@torch.no_grad()
@pytest.mark.parametrize("parts", [["code"], ["id", "text"]], ids=str)
def test_scores_are_the_formula_and_the_decoder_agrees(folder, cache, parts):
    model = parallel(folder, cache, item_parts=parts)
    assert (model.parallel.code_table is None) == (parts == ["code"])
    scores = model.scores(HISTORY, LENGTH)
    states = model.last_states(HISTORY, LENGTH, None)
    torch.testing.assert_close(
        scores[:, 1:], slow_log_probs(model, states)[:, 1:], atol=1e-3, rtol=1e-5
    )
    stepped = exact_scores(model.item_logits(HISTORY, LENGTH), model.trie, score_type="level")
    torch.testing.assert_close(stepped[:, 1:], scores[:, 1:], atol=1e-3, rtol=1e-5)


def test_the_loss_is_minus_the_mean_log_probability_of_the_codes(folder, cache):
    model = parallel(folder, cache, timeline_dropout=0.0, train_rows="all")
    loss = model.loss(HISTORY, LENGTH, TARGET)
    with torch.no_grad():
        scores = model.scores(HISTORY, LENGTH)
    expected = -scores[torch.arange(3), TARGET].mean() / len(model.level_sizes)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    loss.backward()
    assert model.parallel.weight.grad.abs().sum() > 0


def test_lists_are_exact_and_leave_the_history_out(folder, cache):
    model = parallel(folder, cache)
    with torch.no_grad():
        scores = model.scores(HISTORY, LENGTH)
        result = model.search(HISTORY, LENGTH, k=5, excluded=HISTORY)
    assert bool(result.certified(5).all())
    allowed = scores.scatter(1, HISTORY, -torch.inf)
    assert torch.equal(result.items, allowed.topk(5).indices)


def test_items_of_equal_codes_are_ranked_by_training_interactions(folder, cache):
    model = parallel(folder, cache, collision=["none"])
    model.codes[10] = model.codes[11]
    model.codes_version += 1
    with torch.no_grad():
        scores = model.scores(HISTORY, LENGTH)
    popularity = model.popularity()
    first, second = sorted([10, 11], key=lambda item: (-int(popularity[item]), item))
    assert (scores[:, first] > scores[:, second]).all()
    torch.testing.assert_close(scores[:, first], scores[:, second], atol=1e-2, rtol=0)


@torch.no_grad()
def test_new_items_take_free_codes_and_change_no_other_score(folder, cache, tmp_path):
    model = parallel(folder, cache)
    before = model.scores(HISTORY, LENGTH)
    text = model.content.text[7]
    new = model.add_items([text, "an entirely different thing"])
    assert len(model.codes[1:].unique(dim=0)) == len(model.codes) - 1
    after = model.scores(HISTORY, LENGTH)
    torch.testing.assert_close(after[:, : new[0]], before)
    same = (model.codes[new[0]] == model.codes[7]).sum()
    assert same == len(model.level_sizes) - 1

    model.save(tmp_path / "model.pth")
    checkpoint = load_checkpoint(tmp_path / "model.pth")
    config = config_from_plain(checkpoint["config"])
    loaded = TimelineRec.from_checkpoint(config, None, checkpoint).eval()
    torch.testing.assert_close(loaded.scores(HISTORY, LENGTH), after)


@torch.no_grad()
def test_it_adds_up_with_a_softmax_over_items(folder, cache):
    model = parallel(folder, cache, generator=None, heads=["parallel", "flat"])
    states = model.last_states(HISTORY, LENGTH, None)
    flat = (states @ model.output_vectors()[1:].T).log_softmax(1)
    expected = slow_log_probs(model, states)[:, 1:] + flat
    torch.testing.assert_close(model.scores(HISTORY, LENGTH)[:, 1:], expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("TimelineRec", {"generator": "timeline"}, "generates a path"),
        ("TIGER", {}, "TIGER generates a path"),
        ("LCRec", {}, "--generator=parallel"),
        ("TimelineRec", {"tokenizers": ["opq", "opq"], "generator": None}, "generates a path"),
        ("TimelineRec", {"heads": ["tree"], **RANDOM}, "has the head parallel"),
        ("TimelineRec", {"heads": ["tree", "parallel"], **RANDOM}, "exclude each other"),
        ("TimelineRec", {"score_mode": "beam"}, "auto or exact"),
        ("TimelineRec", {"exclude_history_in_training": True}, "belongs to many items"),
        ("TimelineRec", {"self_improve": True}, "path of codes"),
    ],
    ids=str,
)
def test_combinations_that_cannot_work_are_refused(folder, name, changes, message):
    settings = {"tokenizer": "opq"}
    if name == "TimelineRec":
        settings = dict(PARALLEL)
    settings |= changes
    values = {key: value for key, value in settings.items() if key != "opq_rounds"}
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, name, **values)


def test_a_run_is_evaluated_recommends_reports_and_serves_a_later_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_dataset(tmp_path / "first")
    settings = {
        **TINY_OF["TimelineRec"],
        **PARALLEL,
        "label_smoothing": 0.1,
        "batch_targets": 64,
        "data_path": str(folder),
        "exclude_history": True,
        "result_file": str(tmp_path / "run.json"),
    }
    first = run_recbole_genrec("TimelineRec", "toy", config_dict=settings)
    losses = [epoch["loss"][0] for epoch in first["epochs"]]
    assert losses[-1] < losses[0]
    report = first["report"]
    assert report["heads"] == ["parallel"] and report["search"]["certified@10"] == 1
    checkpoint = first["checkpoint"]
    assert evaluate(checkpoint)["test_result"] == pytest.approx(first["test_result"], abs=1e-6)

    later = write_dataset(tmp_path / "later", n_items=44)
    _, model, *_ = load_data_and_model(checkpoint, data_path=str(later))
    assert model.n_items == 45
    listed = {row["item"] for row in model.recommend(["i1", "i42"], k=42)}
    assert listed >= {"i40", "i43"} and not listed & {"i1", "i42"}

    found = analyse(checkpoint).lists
    assert found.metrics["recall@10"] == pytest.approx(first["test_result"]["recall@10"], abs=1e-6)
    assert "parallel" in write_report([tmp_path / "run.json"]).read_text()
    _, model, *_ = load_data_and_model(checkpoint)
    model.save_pretrained(tmp_path / "export")
    exported = load_data_and_model(str(tmp_path / "export"))[1]
    assert exported.recommend(["i1", "i4"], k=9) == model.recommend(["i1", "i4"], k=9)
    among = model.recommend(["i1"], k=3, candidates=["i7", "i9", "i11"])
    assert {row["item"] for row in among} == {"i7", "i9", "i11"}


def test_smoothing_is_that_of_torch_and_leaves_closed_classes_out():
    torch.manual_seed(0)
    logits, target = torch.randn(6, 9), torch.randint(5, (6,))
    expected = cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, 0.1), expected)
    logits[:, 5:] = -torch.inf
    expected = cross_entropy(logits[:, :5], target, label_smoothing=0.1)
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, 0.1), expected)
