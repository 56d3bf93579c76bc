"""TimelineRec's second stream: texts alone, beside the stream of ids and texts."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.decoding import exact_scores
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.timeline.item_vectors import make_text_map, mapped_texts
from recbole_genrec.storage.checkpoints import load_checkpoint

RECIPE = {
    "tokenizer": "rkmeans",
    "item_parts": ["id", "text"],
    "depth": "none",
    "positions": "relative",
    "norm": "post",
    "score_mode": "auto",
    "train_rows": "windows",
    "weight_decay": 0.0,
    "text_stream": True,
    "text_stream_mlp": 16,
    "text_map_precision": "fp32",
}
ALONE = {"item_parts": ["text"], "text_mlp": 16, "edge_vectors": "mean", "text_stream": False}
HISTORY = torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]])
LENGTH = torch.tensor([3, 2, 1])
TARGET = torch.tensor([8, 6, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def moved(folder, seed=3, **changes):
    """A small model whose weights have left their start."""
    model = toy_model(folder, "TimelineRec", **{**RECIPE, **changes})[0]
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=["tree", "flat"])
def three(folder, request):
    """Two streams, and two models with the weights of one stream each."""
    heads = [request.param]
    both = moved(folder, heads=heads)
    ids_and_texts = moved(folder, 4, heads=heads, text_stream=False)
    texts = moved(folder, 5, heads=heads, **ALONE)
    weights = both.state_dict()
    ids_and_texts.load_state_dict(
        {name: value for name, value in weights.items() if not name.startswith("text_stream.")}
    )
    of_stream = {name: weights[name] for name in ("codes", "codes_version")}
    for name, value in weights.items():
        if name.startswith("text_stream."):
            name = name.removeprefix("text_stream.").replace("text_map.", "text_projection.")
            of_stream[name] = value
    texts.load_state_dict(of_stream)
    return both, ids_and_texts, texts


def logits_of_children(model, states, item_vectors, tree, level, prefix):
    """Logits of the edges that continue a prefix, edge by edge from the formula of the tree."""
    codes = model.codes
    edges = sorted({tuple(row[: level + 1]) for row in codes[1:].tolist()})
    turned = states + tree.turns[level](states)
    logits = {}
    for number, edge in enumerate(edges):
        if edge[:-1] != prefix:
            continue
        below = (codes[:, : level + 1] == torch.tensor(edge)).all(1)
        below[0] = False
        vector = tree.scale[level] * item_vectors[below].mean(0)
        if len(tree.own):
            vector = vector + tree.own[level][number]
        logits[edge] = turned @ vector + tree.bias[level][number]
    return logits


@torch.no_grad()
def test_codes_compete_by_the_means_of_two_models(three):
    both, ids_and_texts, texts = three
    scores = both.scores(HISTORY, LENGTH)
    torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)
    pairs = []
    for model in (ids_and_texts, texts):
        pairs.append((model, model.last_states(HISTORY, LENGTH, None), model.output_vectors()))
    if both.plan.head_names == ("flat",):
        means = sum(states @ vectors[1:].T for _, states, vectors in pairs) / 2
        torch.testing.assert_close(scores[:, 1:], means.log_softmax(1), atol=1e-5, rtol=0)
        return
    for item in range(1, 41):
        path = tuple(both.codes[item].tolist())
        expected = torch.zeros(3)
        for level in range(len(path)):
            of_models = []
            for model, states, vectors in pairs:
                prefix = path[:level]
                children = logits_of_children(model, states, vectors, model.tree, level, prefix)
                of_models.append(children)
            means = {edge: (of_models[0][edge] + of_models[1][edge]) / 2 for edge in of_models[0]}
            together = torch.stack(list(means.values())).logsumexp(0)
            expected += means[path[: level + 1]] - together
        torch.testing.assert_close(scores[:, item], expected, atol=1e-5, rtol=0)


def test_the_losses_are_those_of_two_models(three):
    both, ids_and_texts, texts = three
    losses = both.loss(HISTORY, LENGTH, TARGET)
    expected = [model.loss(HISTORY, LENGTH, TARGET) for model in (ids_and_texts, texts)]
    torch.testing.assert_close(losses, tuple(expected), atol=1e-5, rtol=0)

    sum(losses).backward()
    expected[1].backward()
    gradient = both.text_stream.text_map[0].weight.grad
    torch.testing.assert_close(gradient, texts.text_projection[0].weight.grad, atol=1e-6, rtol=0)


def test_two_heads_and_two_streams(folder):
    """A head averages the logits of the streams; heads are added."""
    model = moved(folder, heads=["tree", "flat"])
    assert len(model.loss(HISTORY, LENGTH, TARGET)) == 4
    with torch.no_grad():
        vectors = model._vectors()
        states = model.last_states(HISTORY, LENGTH, vectors.inputs)
        of_texts = vectors.text_stream.last_states(HISTORY, LENGTH)
        tree = exact_scores(model.item_logits(HISTORY, LENGTH), model.trie)[:, 1:]
        third = states @ vectors.heads.outputs[1:].T
        fourth = of_texts @ vectors.text_stream.items[1:].T
        expected = tree + ((third + fourth) / 2).log_softmax(1)
        scores = model.scores(HISTORY, LENGTH)[:, 1:]
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_stream_of_texts_knows_no_item_by_its_number(folder):
    model = moved(folder)
    assert not list(model.text_stream.tree.own)
    model.texts[7] = model.texts[9]
    items = model._vectors().text_stream.items
    assert torch.equal(items[7], items[9])
    assert not torch.equal(items[7], items[8])


@torch.no_grad()
def test_history_and_candidates(folder):
    model = moved(folder)
    scores = model.scores(HISTORY, LENGTH)
    without = model.scores_without(HISTORY, HISTORY, LENGTH)
    stays = torch.ones_like(scores, dtype=torch.bool)
    stays[torch.arange(3).unsqueeze(1), HISTORY] = False
    torch.testing.assert_close(scores[stays], without[stays])
    members = torch.tensor([3, 8, 11, 30])
    some = model.search(HISTORY, LENGTH, k=4, trie=model.trie.subset(members, "full"))
    torch.testing.assert_close(some.scores, scores.gather(1, some.items))
    assert bool(some.certified(4).all())


@torch.no_grad()
def test_new_items_leave_the_scores_of_others_and_survive_a_checkpoint(folder, tmp_path):
    model = moved(folder)
    before = model.scores(HISTORY, LENGTH)
    model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
    after = model.scores(HISTORY, LENGTH)
    torch.testing.assert_close(after[:, : before.shape[1]], before, atol=1e-5, rtol=1e-6)
    assert after[:, -1].isfinite().all()

    model.save(tmp_path / "two.pth")
    state = load_checkpoint(tmp_path / "two.pth")
    _, config, loaders = toy_model(folder, "TimelineRec", **RECIPE)
    loaded = type(model).from_checkpoint(config, loaders[0]._dataset, state).eval()
    torch.testing.assert_close(loaded.scores(HISTORY, LENGTH), after, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "changes, has_stream",
    [
        ({}, True),
        ({"item_parts": ["text"]}, False),
        ({"output": "items"}, False),
        ({"heads": ["tree", "flat"]}, False),
        ({"tokenizers": ["rkmeans", "random"]}, False),
        ({"depth": "mlp"}, False),
        ({"score_mode": "beam"}, True),
    ],
    ids=str,
)
def test_auto_means_beside_one_stateless_tree_over_ids_and_texts(folder, changes, has_stream):
    model = toy_model(folder, "TimelineRec", **{**RECIPE, "text_stream": "auto", **changes})[0]
    assert (model.text_stream is not None) == has_stream


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"generator": "parallel", "tokenizer": "opq"}, "parallel has another head"),
        ({"depth": "mlp"}, "depth: none"),
        ({"tokenizers": ["rkmeans", "random"]}, "codes of the first"),
        (
            {"sparse_tables": True, "item_parts": None, "output_id": False},
            "Leave one of them out",
        ),
        (
            {"item_parts": None, "output_id": False, "edge_vectors": "mean"},
            "edge_vectors: own",
        ),
    ],
    ids=str,
)
def test_combinations_that_cannot_work_are_refused(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_model(folder, "TimelineRec", **{**RECIPE, **changes})


def test_bf16_is_for_training_alone(folder):
    model = moved(folder, text_map_precision="bf16")
    text_map = model.text_stream.text_map
    with torch.no_grad():
        exact = text_map(model.texts)
        assert torch.equal(model._vectors().text_stream.items, exact)
    model.train()
    rounded = model._vectors().text_stream.items
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)
    sum(model.loss(HISTORY, LENGTH, TARGET)).backward()
    assert text_map[0].weight.grad.dtype == torch.float32

    model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
    assert len(model._vectors().text_stream.items) == model.n_items


def test_texts_in_bf16_give_float32():
    torch.manual_seed(0)
    text_map, texts = make_text_map(32, 16, 8), torch.randn(50, 32)
    rounded = mapped_texts(text_map, texts.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, text_map(texts), atol=0.02, rtol=0.02)
