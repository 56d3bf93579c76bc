"""Under bf16 only states are rounded: what is kept, logits of codes and the ranking are float32."""

from __future__ import annotations

import pytest
import torch
from toy import TINY_LLAMA, toy_model, write_dataset

from recbole_genrec.decoding import exact_scores

RECIPE = {  # TimelineRec's second recipe
    "depth": "none",
    "item_parts": ["id", "text"],
    "positions": "relative",
    "norm": "post",
    "score_mode": "auto",
    "train_rows": "windows",
    "weight_decay": 0.0,
    "text_map_precision": "fp32",
}
HISTORY = torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]])
LENGTH = torch.tensor([3, 2, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def moved(folder, name, **changes):
    """A small model whose weights have left their start."""
    with torch.enable_grad():  # some train vectors before they are there
        model = toy_model(folder, name, cache_dir=str(folder / "cache"), **changes)[0]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def half():
    """What an evaluation with ``precision: bf16`` runs under."""
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("SETRec", {}),
        ("SETRec", {"backbone_config": TINY_LLAMA}),
        ("TimelineRec", RECIPE),
        ("TimelineRec", {**RECIPE, "text_stream": True}),
        ("TimelineRec", {**RECIPE, "heads": ["flat"]}),
    ],
    ids=str,
)
@torch.no_grad()
def test_evaluations_and_recommendations_keep_the_same_vectors(folder, name, changes):
    alone, evaluated = (moved(folder, name, **changes) for _ in range(2))
    expected = alone.scores(HISTORY, LENGTH)
    with half():
        rounded = evaluated.scores(HISTORY, LENGTH)
    assert rounded.dtype == torch.float32
    assert torch.equal(evaluated.scores(HISTORY, LENGTH), expected)
    with half():
        assert torch.equal(alone.scores(HISTORY, LENGTH), rounded)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output_id": False},
        {"depth": "transformer"},
        {**RECIPE, "score_mode": "beam"},
        {**RECIPE, "score_mode": "beam", "text_stream": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_the_same_states_give_the_same_order_of_codes(folder, changes):
    model = moved(folder, "TimelineRec", **changes)
    decoder = model.item_logits(HISTORY, LENGTH)
    decoder.states = 3 * torch.randn(3, decoder.states.shape[1])
    prefixes = decoder.child(torch.zeros(3, 1, dtype=torch.long), model.codes[1:4, :1], 0)
    for level, nodes in ((0, torch.zeros_like(prefixes)), (1, prefixes)):
        states = decoder.states.unsqueeze(1)
        exact = decoder.log_probs(states, level, nodes)
        with half():
            under = decoder.log_probs(states, level, nodes)
            from_half = decoder.log_probs(states.bfloat16(), level, nodes)
        assert torch.equal(under, exact)
        assert torch.equal(under.topk(8).indices, exact.topk(8).indices)
        assert from_half.dtype == torch.float32


@pytest.mark.parametrize("text_stream", [False, True])
@torch.no_grad()
def test_a_search_of_the_tree_gives_the_scores_of_one_product(folder, text_stream):
    model = moved(folder, "TimelineRec", **{**RECIPE, "text_stream": text_stream})
    with half():
        at_once = model.item_log_probs(HISTORY, LENGTH, model.trie)
        decoder = model.item_logits(HISTORY, LENGTH)
        stepwise = exact_scores(decoder, model.trie, score_type="renormalised")
    torch.testing.assert_close(stepwise[:, 1:], at_once[:, 1:], atol=1e-5, rtol=0)
