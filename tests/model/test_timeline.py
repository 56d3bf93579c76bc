"""TimelineRec: causality, loss by hand, rows, every tokenizer."""

from __future__ import annotations

import pytest
import torch
from decoders import assert_dead_queries_change_nothing
from toy import toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.decoding import beam_search, exact_scores, path_scores
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.timeline.path_vectors import PathVectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_a_later_item_changes_no_earlier_state(folder):
    model, *_ = toy_model(folder, "TimelineRec")
    history = torch.tensor([[5, 9, 3, 7]])
    other = torch.tensor([[5, 9, 3, 8]])
    with torch.no_grad():
        a, b = model.timeline(history), model.timeline(other)
    torch.testing.assert_close(a[:, :3], b[:, :3], atol=1e-6, rtol=0)
    assert (a[:, 3] - b[:, 3]).abs().max() > 1e-3


@pytest.mark.parametrize("depth", ["mlp", "transformer"])
def test_loss_is_the_mean_over_positions_of_each_users_own(folder, depth):
    model, *_ = toy_model(folder, "TimelineRec", depth=depth)
    history, length, target = (
        torch.tensor([[5, 9, 3], [7, 2, 0], [4, 0, 0]]),
        torch.tensor([3, 2, 1]),
        torch.tensor([8, 6, 1]),
    )
    together = model.loss(history, length, target)
    own = [
        model.loss(history[u : u + 1, : length[u]], length[u : u + 1], target[u : u + 1])
        for u in range(3)
    ]
    torch.testing.assert_close(
        sum(loss * n for loss, n in zip(own, length, strict=True)) / length.sum(),
        together,
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("depth", ["mlp", "transformer"])
def test_training_and_search_see_the_same_probabilities(folder, depth):
    model, *_ = toy_model(folder, "TimelineRec", depth=depth, train_rows="all", loss_vocab="level")
    history, length, target = (
        torch.tensor([[5, 9, 3], [7, 2, 0]]),
        torch.tensor([3, 2]),
        torch.tensor([8, 6]),
    )
    with torch.no_grad():
        scores = path_scores(
            model.item_logits(history, length), model.trie, target.unsqueeze(1), score_type="level"
        )
        loss = model.loss(history, length, target)
    torch.testing.assert_close(-scores.mean(), loss, atol=1e-5, rtol=0)


def test_longest_rows_hold_recboles_targets(folder):
    """Every (prefix, target) of RecBole's rows is a (position, next item) of the longest rows."""
    every = toy_model(folder, "TimelineRec", train_rows="all", MAX_ITEM_LIST_LENGTH=20)[2][
        0
    ]._dataset.inter_feat
    longest = toy_model(folder, "TimelineRec", train_rows="longest", MAX_ITEM_LIST_LENGTH=20)[2][
        0
    ]._dataset.inter_feat
    wanted = {
        (int(u), *h[:n].tolist(), int(t))
        for u, h, n, t in zip(
            every["user_id"],
            every["item_id_list"],
            every["item_length"],
            every["item_id"],
            strict=True,
        )
    }
    found = set()
    for u, h, n, t in zip(
        longest["user_id"],
        longest["item_id_list"],
        longest["item_length"],
        longest["item_id"],
        strict=True,
    ):
        row = [*h[:n].tolist(), int(t)]
        found |= {(int(u), *row[:end]) for end in range(2, len(row) + 1)}
    assert found == wanted


def test_it_is_a_generator_of_tiger_and_letter(folder):
    for model, tokenizer in (("TIGER", "rkmeans"), ("LETTER", "letter")):
        settings = {
            "data_path": str(folder),
            "gpu_id": "",
            "item_text_fields": ["title"],
            "generator": "timeline",
            f"{model}.d_model": 64,
        }
        config = GenRecConfig(model, "toy", config_dict=settings)
        assert (config["model"], config["tokenizer"], config["d_model"], config["beam_width"]) == (
            "TimelineRec",
            tokenizer,
            64,
            50,
        )
    with pytest.raises(ConfigError, match="Did you mean timeline"):
        GenRecConfig("TIGER", "toy", config_dict={**settings, "generator": "timelin"})


@pytest.mark.parametrize(
    "tokenizer", ["rkmeans", "rqvae", "letter", "random", "text-hierarchical", "cid"]
)
def test_every_tokenizer(folder, tokenizer):
    changes = {"tokenizer_epochs": 1} if tokenizer in ("rqvae", "letter") else {}
    changes |= {"cf_epochs": 1} if tokenizer == "letter" else {}
    model, config, loaders = toy_model(folder, "TimelineRec", tokenizer=tokenizer, **changes)
    assert model.full_sort_predict(next(iter(loaders[2]))[0]).shape[1] == 41


def test_data_without_item_text(tmp_path):
    """Codes from interactions alone, or random ones, need no .item file.

    Text tokenizers say what is missing.
    """
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    missing = {"item_text_fields": None, "cf_epochs": 1, "cache_dir": str(tmp_path)}
    for changes in ({"tokenizer": "cid"}, {"tokenizer": "random"}, {"tokenizer_input": "cf"}):
        model, *_ = toy_model(tmp_path, "TimelineRec", **missing, **changes)
        assert [row["text"] for row in model.recommend(["i1"], k=2)] == [
            row["item"] for row in model.recommend(["i1"], k=2)
        ]
    with pytest.raises(ConfigError, match="new items do not have"):
        model.add_items(["title: new"])
    with pytest.raises(DataError, match="item_text_fields"):
        toy_model(tmp_path, "TimelineRec", **missing)


def test_path_vectors_make_a_tree_over_item_embeddings(folder):
    """Against a slow reference: a prefix stands for the mean id embedding of the items below it."""
    model, *_ = toy_model(folder, "TimelineRec")
    trie, table, state = model.trie, model.id_table.detach(), torch.randn(model.config["d_model"])
    paths, on_gpu = PathVectors(trie, table), PathVectors(trie, table)
    on_gpu.skips_empty_slots = False
    prefixes = {
        tuple(row[:level])
        for row in model.codes[1:].tolist()
        for level in range(len(model.level_sizes))
    }
    for prefix in prefixes:
        level, node = len(prefix), torch.zeros(1, dtype=torch.long)
        for depth, code in enumerate(prefix):
            node = trie.levels[depth].child(node, torch.tensor([code]))
        expected = torch.zeros(model.level_sizes[level])
        for code in range(model.level_sizes[level]):
            below = (model.codes[:, : level + 1] == torch.tensor([*prefix, code])).all(1)
            below[0] = False
            if below.any():
                expected[code] = table[below].mean(0) @ state
        for each in (paths, on_gpu):
            torch.testing.assert_close(
                each.logits(state.unsqueeze(0), level, node)[0].detach(),
                expected,
                atol=1e-5,
                rtol=0,
            )


def test_a_prefix_of_no_item_adds_nothing(folder):
    model, *_ = toy_model(folder, "TimelineRec")
    free = next(
        c
        for c in range(model.level_sizes[1])
        if not (model.codes[1:, :2] == torch.tensor([int(model.codes[1, 0]), c])).all(1).any()
    )
    start = model.trie.levels[0].child(torch.zeros(1, dtype=torch.long), model.codes[1, :1])
    node = model.trie.levels[1].child(start, torch.tensor([free]))
    assert node.tolist() == [-1]
    paths = PathVectors(model.trie, model.id_table)
    for paths.skips_empty_slots in (True, False):
        assert not paths.logits(torch.randn(1, model.config["d_model"]), 2, node).any()


@pytest.mark.parametrize("changes", [{}, {"output_id": False}, {"depth": "transformer"}], ids=str)
@torch.no_grad()
def test_queries_known_to_be_dead_change_nothing(folder, changes):
    model, *_ = toy_model(folder, "TimelineRec", **changes)
    decoder = model.eval().item_logits(
        torch.tensor([[5, 9, 3], [7, 2, 0], [1, 0, 0]]), torch.tensor([3, 2, 1])
    )
    assert_dead_queries_change_nothing(decoder, model.level_sizes)


@torch.no_grad()
def test_path_vectors_are_kept_while_nothing_changes(folder):
    model, *_ = toy_model(folder, "TimelineRec")
    kept = model._vectors().heads.paths
    assert model._vectors().heads.paths is kept
    model.id_table.mul_(2)
    changed = model._vectors().heads.paths
    torch.testing.assert_close(changed.vectors[0], 2 * kept.vectors[0])
    with torch.enable_grad():
        learning = model._vectors().heads.paths
        assert learning is not changed
        assert learning.vectors[0].requires_grad
    # weights may have changed without a new version, as shared ones do
    assert model._vectors().heads.paths is not changed
    model.codes_version += 1
    assert model._vectors().heads.paths.trie is model.trie is not changed.trie


@pytest.mark.parametrize(
    "changes", [{}, {"output_id": False}, {"input_id": False}, {"depth": "transformer"}], ids=str
)
def test_wide_beam_equals_exact_scores(folder, changes):
    model, *_ = toy_model(folder, "TimelineRec", **changes)
    history, length = torch.tensor([[5, 9, 3], [7, 2, 0]]), torch.tensor([3, 2])
    decoder = model.item_logits(history, length)
    found = beam_search(decoder, model.trie, len(model.codes), score_type="renormalised")
    scores = exact_scores(decoder, model.trie, score_type="renormalised")
    best = scores[:, 1:].topk(10)
    assert (found.items[:, :10] == best.indices + 1).all()
    torch.testing.assert_close(found.scores[:, :10], best.values, atol=1e-5, rtol=0)
