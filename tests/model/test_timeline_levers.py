"""Levers of TimelineRec's training: label smoothing, prefix loss, alignment with texts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.timeline.prefix_loss import with_prefix_terms

RECIPE = {
    "item_parts": ["id", "text"],
    "depth": "none",
    "positions": "relative",
    "norm": "post",
    "score_mode": "auto",
    "train_rows": "all",
    "weight_decay": 0.0,
    "timeline_dropout": 0.0,
    "text_stream": False,
    "text_map_precision": "fp32",
}
HISTORY = torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]])
LENGTH = torch.tensor([3, 2, 1])
TARGET = torch.tensor([8, 6, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def make(folder, cache, **changes):
    """A small model that has left its start."""
    model = toy_model(folder, "TimelineRec", cache_dir=cache, **{**RECIPE, **changes})[0]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model.train()


@torch.no_grad()
def losses_of_levels(model, smoothing=0.0):
    """Mean cross-entropy of each level among the siblings of the target's code, one by one."""
    decoder = model.item_logits(HISTORY, LENGTH)
    codes = model.codes
    block = decoder.start()[:, 0]  # [B, V]
    losses = []
    for level in range(codes.shape[1]):
        rows = []
        for user, target in enumerate(codes[TARGET].tolist()):
            below = (codes[1:, :level] == torch.tensor(target[:level])).all(1)
            siblings = codes[1:][below][:, level].unique()
            log_probs = block[user, siblings].log_softmax(0)
            of_target = log_probs[siblings.tolist().index(target[level])]
            rows.append(-(1 - smoothing) * of_target - smoothing * log_probs.mean())
        losses.append(torch.stack(rows).mean())
        if level + 1 < codes.shape[1]:
            parents = torch.zeros(3, 1, dtype=torch.long)
            block = decoder.step(codes[TARGET, level].unsqueeze(1), parents)[:, 0]
    return torch.stack(losses)


@pytest.mark.parametrize("changes", [{}, {"depth": "mlp", "loss_vocab": "trie"}], ids=str)
def test_smoothing_spreads_over_the_codes_that_compete(folder, cache, changes):
    model = make(folder, cache, label_smoothing=0.1, **changes)
    loss = model.loss(HISTORY, LENGTH, TARGET)
    expected = losses_of_levels(model, 0.1).sum()
    torch.testing.assert_close(loss.detach(), expected, atol=1e-4, rtol=1e-4)
    assert abs(expected - losses_of_levels(model).sum()) > 0.01


def test_smoothing_of_a_softmax_over_items(folder, cache):
    model = make(folder, cache, label_smoothing=0.2, output="items")
    loss = model.loss(HISTORY, LENGTH, TARGET)
    with torch.no_grad():
        scores = model.scores(HISTORY, LENGTH)[:, 1:]
    expected = -0.8 * scores[torch.arange(3), TARGET - 1].mean() - 0.2 * scores.mean()
    torch.testing.assert_close(loss.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"depth": "mlp", "loss_vocab": "trie"}], ids=str)
def test_every_prefix_has_a_term_of_its_own(folder, cache, changes):
    model = make(folder, cache, prefix_loss=0.5, prefix_adaptation=2.0, **changes)
    loss = model.loss(HISTORY, LENGTH, TARGET)
    levels = losses_of_levels(model).tolist()
    prefixes = [sum(levels[:length]) / length for length in range(1, len(levels))]
    weights = [value * float(torch.tensor(2 * value).exp()) for value in prefixes]
    weighted = sum(weight * value for weight, value in zip(weights, prefixes, strict=True))
    expected = sum(levels) + 0.5 * weighted / sum(weights)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)
    with torch.no_grad():
        validation = float(model.eval().loss(HISTORY, LENGTH, TARGET))
    assert validation == pytest.approx(sum(levels), abs=1e-4)


def test_prefix_terms_of_certain_codes_are_nothing():
    levels = [torch.zeros(()), torch.zeros(()), torch.tensor(1.0)]
    assert with_prefix_terms(levels, 0.3, 1.0) == 1
    assert with_prefix_terms([torch.tensor(2.0)], 0.3, 1.0) == 2


@pytest.mark.parametrize("parts", [["id"], ["id", "text"], ["code"]], ids=str)
def test_item_vectors_are_drawn_towards_their_texts(folder, cache, parts):
    model = make(folder, cache, align_weight=0.2, item_parts=parts)
    losses = model.loss(HISTORY, LENGTH, TARGET)
    vectors = model.input_vectors()[TARGET]
    aligned = vectors @ model.text_alignment.map.weight.T + model.text_alignment.map.bias
    expected = 0.2 * (1 - cosine_similarity(aligned, model.texts[TARGET])).mean()
    torch.testing.assert_close(losses[-1], expected)
    assert losses[0] == make(folder, cache, item_parts=parts).loss(HISTORY, LENGTH, TARGET)


def test_alignment_alone_teaches_the_vectors(folder, cache):
    model = make(folder, cache, align_weight=1.0, item_parts=["id"])
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    first = None
    for _ in range(40):
        loss = model.loss(HISTORY, LENGTH, TARGET)[-1]
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3 * first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "items", "prefix_loss": 0.1}, "have none"),
        ({"prefix_loss": 0.1, "nproc": 2}, "--nproc=1"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"align_weight": -0.1}, "align_weight"),
    ],
    ids=str,
)
def test_levers_that_cannot_work_are_refused(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, "TimelineRec", **{**RECIPE, **changes})
