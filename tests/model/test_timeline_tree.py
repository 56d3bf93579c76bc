"""TimelineRec's second recipe: relative positions, item parts, the stateless tree, flat heads."""

from __future__ import annotations

import pytest
import torch
from decoders import assert_dead_queries_change_nothing
from toy import toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.decoding import beam_search, exact_scores, path_scores, segment_log_softmax
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.model.timeline.tree import Stream, log_probs_of_streams
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
    "text_stream": False,
    "text_map_precision": "fp32",
}
HISTORY = torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]])
LENGTH = torch.tensor([3, 2, 1])
TARGET = torch.tensor([8, 6, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def recipe(folder, **changes):
    """A small model of the recipe whose tree has left its start."""
    model = toy_model(folder, "TimelineRec", **{**RECIPE, **changes})[0]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model


def slow_log_probs(model, states):
    """log p(item) of each state, edge by edge from the formula of the tree."""
    tree, codes = model.tree, model.codes
    vectors = model.output_vectors()
    edges = [
        sorted({tuple(row[: level + 1]) for row in codes[1:].tolist()})
        for level in range(codes.shape[1])
    ]
    scores = torch.zeros(len(states), len(codes))
    for item in range(1, len(codes)):
        for level in range(codes.shape[1]):
            path = tuple(codes[item, : level + 1].tolist())
            turned = states + tree.turns[level](states)
            logits = {}
            for number, edge in enumerate(edges[level]):
                if edge[:-1] != path[:-1]:
                    continue
                below = (codes[:, : level + 1] == torch.tensor(edge)).all(1)
                below[0] = False
                vector = tree.scale[level] * vectors[below].mean(0) + tree.own[level][number]
                logits[edge] = turned @ vector + tree.bias[level][number]
            together = torch.stack(list(logits.values())).logsumexp(0)
            scores[:, item] += logits[path] - together
    return scores


@torch.no_grad()
def test_exact_scores_are_the_formula_and_sum_to_one(folder):
    model = recipe(folder)
    scores = model.scores(HISTORY, LENGTH)
    states = model.last_states(HISTORY, LENGTH, None)
    expected = slow_log_probs(model, states)
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("score_type", ["renormalised", "level"])
@pytest.mark.parametrize("text_stream", [False, True])
def test_a_beam_as_wide_as_the_catalogue_gives_the_same_scores(folder, score_type, text_stream):
    model = recipe(folder, text_stream=text_stream)
    scores = model.scores(HISTORY, LENGTH)
    decoder = model.item_logits(HISTORY, LENGTH)
    wide = beam_search(decoder, model.trie, model.n_items, score_type=score_type)
    best = scores[:, 1:].topk(10)
    assert (wide.items[:, :10] == best.indices + 1).all()
    torch.testing.assert_close(wide.scores[:, :10], best.values, atol=1e-5, rtol=0)
    stepped = exact_scores(decoder, model.trie, score_type=score_type)
    torch.testing.assert_close(stepped[:, 1:], scores[:, 1:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("text_stream", [False, True])
def test_the_search_says_that_all_lists_are_exact(folder, text_stream):
    model = recipe(folder, text_stream=text_stream)
    result = model.search(HISTORY, LENGTH, k=5)
    assert bool(result.certified(5).all())
    model.config["score_mode"] = "beam"
    beams = model.search(HISTORY, LENGTH, k=5)
    assert torch.equal(beams.items[:, :5], result.items)
    torch.testing.assert_close(beams.scores[:, :5], result.scores, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"heads": ["tree", "flat"]}, {"output": "items"}], ids=str)
def test_excluded_items_leave_the_list_and_change_no_other_score(folder, changes):
    model = recipe(folder, **changes)
    scores = model.scores(HISTORY, LENGTH)
    without = model.scores_without(HISTORY, HISTORY, LENGTH)
    rows, kept = torch.arange(3).unsqueeze(1), torch.ones_like(scores, dtype=torch.bool)
    kept[rows, HISTORY] = False
    torch.testing.assert_close(scores[kept], without[kept])
    result = model.search(HISTORY, LENGTH, k=40, excluded=HISTORY)
    assert (
        not (result.items.unsqueeze(2) == HISTORY.unsqueeze(1))
        .logical_and(result.items.unsqueeze(2) > 0)
        .any()
    )
    assert (result.items > 0).sum(1).tolist() == [37, 38, 39]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"collision": ["none"]},
        {"tie_output": False},
        {"item_parts": ["text"], "text_mlp": 16},
        {"edge_vectors": "mean"},
        {"item_parts": ["code", "id", "text"]},
        {"item_parts": ["code"], "tie_output": False},
        {"output": "items"},
        {"output": "items", "item_parts": ["id"], "tie_output": False},
        {"positions": "absolute", "norm": "pre"},
        {"positions": "relative", "norm": "pre"},
        {"positions": "absolute", "norm": "post", "depth": "mlp"},
        {"input_id": True, "item_parts": None},
        {"input_text": True, "output_id": False, "item_parts": None},
    ],
    ids=str,
)
def test_the_loss_is_minus_the_mean_score_of_the_targets(folder, changes):
    model = recipe(folder, train_rows="all", **changes)
    loss = model.loss(HISTORY, LENGTH, TARGET)
    with torch.no_grad():
        if model.plan.scores_all_items:
            scores = model.scores(HISTORY, LENGTH).gather(1, TARGET.unsqueeze(1))
        else:
            decoder = model.item_logits(HISTORY, LENGTH)
            scores = path_scores(
                decoder, model.trie, TARGET.unsqueeze(1), score_type="renormalised"
            )
    torch.testing.assert_close(-scores.mean(), loss.detach(), atol=1e-4, rtol=0)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


def test_two_heads_add_their_log_probabilities(folder):
    both = recipe(folder, heads=["tree", "flat"])
    with torch.no_grad():
        states = both.last_states(HISTORY, LENGTH, None)
        vectors = both._vectors()
        tree = log_probs_of_streams(
            both.trie, [Stream(both.tree, states, vectors.heads.trees[0].edges)]
        )
        flat = torch.log_softmax(states @ both.output_vectors()[1:].T, 1)
        scores = both.scores(HISTORY, LENGTH)
    torch.testing.assert_close(scores[:, 1:], tree[:, 1:] + flat, atol=1e-5, rtol=0)
    parts = both.loss(HISTORY, LENGTH, TARGET)
    assert len(parts) == 2


@torch.no_grad()
def test_relative_positions_take_histories_of_any_length(folder):
    model = recipe(folder)
    history = torch.randint(1, 41, (2, 30))
    states = model.timeline(history)
    assert states.shape == (2, 30, 32)
    other = history.clone()
    other[:, 20] = other[:, 20] % 40 + 1
    torch.testing.assert_close(model.timeline(other)[:, :20], states[:, :20], atol=1e-5, rtol=0)
    assert (model.timeline(other)[:, 20:] - states[:, 20:]).abs().max() > 1e-4


@torch.no_grad()
def test_relative_positions_know_distances_alone(folder):
    """The bias is the same wherever a pair of items stands, and differs by distance and head."""
    model = recipe(folder)
    bias = model.transformer.bias(6)
    for distance in range(6):
        diagonal = bias.diagonal(-distance, 1, 2)
        expected = model.transformer.distance[:, distance].unsqueeze(1).expand_as(diagonal)
        assert torch.equal(diagonal, expected)
    assert (bias[:, 0, 1:] == -torch.inf).all()


@torch.no_grad()
@pytest.mark.parametrize("depth", ["none", "mlp"])
def test_queries_known_to_be_dead_change_nothing(folder, depth):
    model = recipe(folder, depth=depth)
    assert_dead_queries_change_nothing(model.item_logits(HISTORY, LENGTH), model.level_sizes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"heads": ["tree", "flat"]}, {"output": "items"}, {"tie_output": False}],
    ids=str,
)
def test_new_items_have_their_text_at_once(folder, changes):
    model = recipe(folder, **changes)
    with torch.no_grad():
        before = model.input_vectors().clone()
        added = model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
        after = model.input_vectors()
        torch.testing.assert_close(after[: len(before)], before)
        text = model.text_projection(model.texts[added])
        mean = model.id_table[1 : model.n_dataset_items].mean(0)
        torch.testing.assert_close(after[added], text + mean, atol=1e-5, rtol=0)
        scores = model.scores(HISTORY, LENGTH)
        assert scores.shape == (3, len(before) + 1)
        if model.plan.head_names == ("tree",):
            mass = scores[:, 1 : len(before)].exp().sum(1)  # a new item takes none
            torch.testing.assert_close(mass, torch.ones(3), atol=1e-5, rtol=0)
    assert {row["item"] for row in model.recommend(["i1"], k=41)} >= {"fresh"}


@torch.no_grad()
def test_the_tree_grows_where_the_new_item_hangs(folder):
    model = recipe(folder)
    old_trie, old_bias = model.trie, [bias.detach().clone() for bias in model.tree.bias]
    model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
    for item in range(1, 41):
        old = old_trie.paths(old_trie.leaf_of_item[item])
        new = model.trie.paths(model.trie.leaf_of_item[item])
        for level, bias in enumerate(old_bias):
            assert model.tree.bias[level][new[level + 1]] == bias[old[level + 1]]


@torch.no_grad()
def test_candidates_keep_their_scores_or_share_them(folder):
    model = recipe(folder)
    scores = model.scores(HISTORY, LENGTH)
    members = torch.tensor([3, 8, 11, 30])
    full = model.search(HISTORY, LENGTH, k=4, trie=model.trie.subset(members, "full"))
    torch.testing.assert_close(full.scores, scores.gather(1, full.items))
    shared = model.search(HISTORY, LENGTH, k=4, trie=model.trie.subset(members, "subset"))
    torch.testing.assert_close(shared.scores.exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)
    assert sorted(shared.items[0].tolist()) == members.tolist()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"item_parts": ["id", "txt"]}, "Did you mean text"),
        ({"heads": ["tree", "tree"]}, "twice"),
        ({"heads": ["flat"], "output": "items"}, "Leave out one"),
        ({"heads": ["tree", "flat"], "depth": "mlp"}, "Use depth: none"),
        ({"self_improve": True}, "depth=mlp"),
        ({"output": "items", "score_mode": "beam"}, "auto or exact"),
        ({"item_parts": None, "output_id": False, "output": "items"}, "item_parts"),
        ({"tokenizers": ["random", "rkmeans"]}, "--tokenizer=random too"),
        ({"tokenizers": ["rkmeans", "random"], "depth": "mlp"}, "Use depth: none"),
        ({"tokenizers": ["rkmeans", "random"], "score_mode": "beam"}, "auto or exact"),
        ({"tokenizers": ["rkmeans", "random"], "output": "items"}, "output: codes"),
    ],
    ids=str,
)
def test_combinations_that_cannot_work_are_refused(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe(folder, **changes)


def test_a_run_from_before_the_recipe_keeps_its_meaning(folder):
    """Its checkpoint has none of the new keys; today's defaults must not reach it."""
    model, config, _ = toy_model(folder, "TimelineRec")
    stored = config.plain()
    newer = ("positions", "norm", "output", "heads", "item_parts", "tie_output", "text_mlp")
    older = {name: value for name, value in stored.items() if name not in newer}
    restored = config_from_plain(older)
    assert restored["positions"] == "absolute"
    assert restored["norm"] == "pre"
    assert restored["item_parts"] is None
    assert restored.run_name() == config.run_name()


def test_older_keys_bring_their_own_way_with_them(folder):
    changes = {key: value for key, value in RECIPE.items() if key != "item_parts"}
    settings = {"data_path": str(folder), "gpu_id": "", "item_text_fields": ["title"], **changes}
    config = GenRecConfig("TimelineRec", "toy", config_dict={**settings, "input_text": True})
    assert config["item_parts"] is None
    config = GenRecConfig("TimelineRec", "toy", config_dict=settings, argv=["--depth=none"])
    assert config["item_parts"] == ["id", "text"]
    assert config["depth"] == "none"


def test_data_without_texts_has_items_of_ids_alone(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    settings = {"data_path": str(tmp_path), "gpu_id": "", "tokenizer": "random"}
    config = GenRecConfig("TimelineRec", "toy", config_dict=settings)
    assert config["item_parts"] == ["id"]
    config = GenRecConfig("TimelineRec", "toy", config_dict={**settings, "item_parts": ["text"]})
    assert config["item_parts"] == ["text"]


def test_segments_are_normalised_one_by_one():
    logits = torch.tensor([[0.0, 1.0, -1000.0, 5.0, -1000.0]])
    segment = torch.tensor([0, 0, 1, 2, 2])
    result = segment_log_softmax(logits, segment, 3)
    expected = torch.cat([part.log_softmax(1) for part in logits.split([2, 1, 2], 1)], 1)
    torch.testing.assert_close(result, expected)


# --- several trees on one transformer -------------------------------------------------------------


@pytest.mark.parametrize("tree_scores", ["mean", "logmeanexp"])
def test_several_trees_score_as_one(folder, tree_scores):
    names = ["rkmeans", "rkmeans", "random"]
    model = recipe(folder, tokenizers=names, tree_scores=tree_scores, train_rows="all")
    tables = [model.codes, *(codes.item_codes.codes for codes in model.further_codes)]
    assert not torch.equal(tables[0], tables[1])  # another seed
    with torch.no_grad():
        states = model.last_states(HISTORY, LENGTH, None)
        vectors = model._vectors()
        parts = [
            log_probs_of_streams(trie, [Stream(tree, states, edges)])
            for tree, trie, edges in vectors.heads.trees
        ]
        scores = model.scores(HISTORY, LENGTH)[:, 1:]
    for part in parts:
        torch.testing.assert_close(part[:, 1:].exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)
    stacked = torch.stack(parts)[:, :, 1:]
    expected = stacked.mean(0) if tree_scores == "mean" else stacked.exp().mean(0).log()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)

    losses = model.loss(HISTORY, LENGTH, TARGET)
    for loss, part in zip(losses, parts, strict=True):
        own = part.gather(1, TARGET.unsqueeze(1))
        torch.testing.assert_close(loss.detach(), -own.mean(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_several_trees_take_new_items_candidates_and_a_checkpoint(folder, tmp_path):
    model = recipe(folder, tokenizers=["rkmeans", "rkmeans"], heads=["tree", "flat"])
    model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
    assert model.n_items == 42
    scores = model.scores(HISTORY, LENGTH)
    assert scores.shape == (3, 42)
    assert scores[:, 1:].isfinite().all()

    members = torch.tensor([3, 8, 41])
    some = model.search(HISTORY, LENGTH, k=3, trie=model.trie.subset(members))
    torch.testing.assert_close(some.scores, scores.gather(1, some.items))
    assert sorted(some.items[0].tolist()) == members.tolist()

    model.save(tmp_path / "two.pth")
    state = load_checkpoint(tmp_path / "two.pth")
    _, config, loaders = toy_model(
        folder,
        "TimelineRec",
        **{**RECIPE, "tokenizers": ["rkmeans", "rkmeans"]},
        heads=["tree", "flat"],
    )
    loaded = type(model).from_checkpoint(config, loaders[0]._dataset, state).eval()
    torch.testing.assert_close(loaded.scores(HISTORY, LENGTH), scores, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_tree_that_cannot_place_new_items_refuses_them_all(folder):
    model = recipe(folder, tokenizers=["rkmeans", "cid"])
    with pytest.raises(ConfigError, match="new items do not have"):
        model.add_items(["title: red soap no 99. brand: brand0"], ["fresh"])
    assert model.n_items == 41
