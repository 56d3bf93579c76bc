"""META ID: prompts, augmentation, both tasks, exact scores, beams, users, new items, switches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.backbone import load_encoder_decoder
from recbole_genrec.config import GenRecConfig
from recbole_genrec.decoding import path_scores
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.model.metaid.diagnostics import (
    adjusted_cosine,
    diversity,
    item_pairs,
    memorisation,
)
from recbole_genrec.model.self_improve.refresh import refined_codes

HISTORY = torch.tensor([[5, 9, 0], [3, 0, 0], [7, 8, 2]])
LENGTH = torch.tensor([2, 1, 3])
USER = torch.tensor([4, 8, 15])
TARGET = torch.tensor([7, 8, 9])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def small(folder, **changes):
    return toy_model(folder, "MetaID", cache_dir=str(folder / "cache"), **changes)


def states(model, pairs=None, task="sequential"):
    """What the encoder makes of the sources."""
    if pairs is None:
        pairs = model.user_pairs(USER, HISTORY)
    tokens, mask = model.source(task, pairs, HISTORY, LENGTH)
    with torch.no_grad():
        return model.backbone.encode(model.vocabulary.embed_source(tokens), mask)


# --- prompts ----------------------------------------------------------------------------------


def test_sources_are_markers_pairs_and_end(folder):
    model, *_ = small(folder)
    vocabulary, words = model.vocabulary, model.prompts.words
    pairs = model.user_pairs(USER, HISTORY)
    assert torch.equal(pairs, model.user_codes[USER]), "these users are in training"

    def word(name):
        return vocabulary.first_word + words.index(name)

    def pair(codes):
        return vocabulary.tokens(codes).tolist()

    end = vocabulary.eos
    for row, (user, length) in enumerate(zip(USER, LENGTH, strict=True)):
        mine = pair(model.user_codes[user])
        tokens, mask = model.source("sequential", pairs, HISTORY, LENGTH)
        expected = [word("<sequential>"), word("<user>"), *mine]
        for item in HISTORY[row, :length]:
            expected += [word("<sep>"), word("<item>"), *pair(model.codes[item])]
        assert tokens[row][mask[row]].tolist() == [*expected, end]
        tokens, mask = model.source("direct", pairs, HISTORY, LENGTH)
        assert tokens[row][mask[row]].tolist() == [word("<direct>"), word("<user>"), *mine, end]


def test_a_changed_table_changes_inputs_and_labels(folder):
    model, *_ = small(folder)
    before = model.source("sequential", model.user_pairs(USER, HISTORY), HISTORY, LENGTH)[0]
    loss = model.loss(HISTORY, LENGTH, TARGET, user=USER)
    scores = model.scores(HISTORY, LENGTH, user=USER)
    model.codes.copy_(torch.cat([model.codes[:1], model.codes[1:].roll(1, 0)]))
    after = model.source("sequential", model.user_pairs(USER, HISTORY), HISTORY, LENGTH)[0]
    assert not torch.equal(before, after)
    assert not torch.equal(
        torch.stack(loss), torch.stack(model.loss(HISTORY, LENGTH, TARGET, user=USER))
    )
    assert not torch.equal(scores, model.scores(HISTORY, LENGTH, user=USER))
    model.user_codes.copy_(model.user_codes.roll(1, 0))
    moved = model.source("sequential", model.user_pairs(USER, HISTORY), HISTORY, LENGTH)[0]
    assert not torch.equal(after[:, 2:4], moved[:, 2:4])


def test_scores_after_loading_come_from_the_loaded_tables(folder):
    model, *_ = small(folder)
    other = copy.deepcopy(model)
    other.codes.copy_(torch.cat([other.codes[:1], other.codes[1:].roll(3, 0)]))
    other.user_codes.copy_(other.user_codes.roll(1, 0))
    expected = other.scores(HISTORY, LENGTH, user=USER)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.scores(HISTORY, LENGTH, user=USER), expected)


# --- augmentation -----------------------------------------------------------------------------


def test_the_side_vector_of_each_token_is_that_of_its_code(folder):
    model, *_ = small(folder)
    vocabulary, tokenizer = model.vocabulary, model.tokenizer
    side = vocabulary.side_vectors
    coarse, fine = model.level_sizes
    for cluster in range(coarse):
        token = int(vocabulary.tokens(torch.tensor([cluster])))
        if cluster == tokenizer.n_clusters:
            assert not side[token].any(), "the cluster of users and items without an edge"
        else:
            torch.testing.assert_close(side[token], tokenizer.clusters.centroids[cluster].float())
    ranks = side[1 + coarse : 1 + coarse + fine]
    assert (ranks >= 0).all() and (ranks < 1).all() and len(ranks.unique(dim=0)) == fine
    assert not side[0].any() and not side[1 + coarse + fine :].any()
    assert "vocabulary.side_vectors" in model.state_dict()
    assert all(parameter is not side for parameter in model.parameters())

    table, plain = vocabulary.source_table(), vocabulary.table
    projected = vocabulary.projection(side) * vocabulary.alpha
    torch.testing.assert_close(
        table[1 : 1 + coarse + fine], (plain + projected)[1 : 1 + coarse + fine]
    )
    assert torch.equal(table[1 + coarse + fine :], plain[1 + coarse + fine :])
    assert torch.equal(table[0], plain[0])


def test_augmentation_acts_in_training_and_in_the_search_and_not_in_the_decoder(folder):
    model, *_ = small(folder)
    loss, scores = (
        model.loss(HISTORY, LENGTH, TARGET, user=USER),
        model.scores(HISTORY, LENGTH, user=USER),
    )
    encoded = states(model)
    model.vocabulary.alpha = 0.0
    assert not torch.allclose(encoded, states(model))
    assert not torch.allclose(
        torch.stack(loss), torch.stack(model.loss(HISTORY, LENGTH, TARGET, user=USER))
    )
    assert not torch.allclose(scores, model.scores(HISTORY, LENGTH, user=USER))
    codes = torch.tensor([0, 1])
    rows = model.vocabulary.table[model.vocabulary.first[0] + codes]
    assert torch.equal(model.vocabulary.embed_code(codes, 0), rows)


def test_alpha_0_is_no_augmentation(folder):
    zero, *_ = small(folder, alpha=0.0)
    without, *_ = small(folder, augment=False)
    assert without.vocabulary.projection is None and without.vocabulary.side_vectors is None
    for name, weight in without.state_dict().items():
        assert torch.equal(weight, zero.state_dict()[name]), name
    assert torch.equal(
        zero.scores(HISTORY, LENGTH, user=USER), without.scores(HISTORY, LENGTH, user=USER)
    )


def test_words_alone_run_through_the_augmented_table(folder):
    model, *_ = small(folder)
    tokens = model.vocabulary.first_word + torch.tensor([[0, 1, 2]])
    embedded = model.vocabulary.embed_source(tokens)
    assert torch.equal(embedded, model.vocabulary.embed(tokens))
    assert (
        model.backbone.encode(embedded, torch.ones_like(tokens, dtype=torch.bool)).isfinite().all()
    )


# --- both tasks -------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_pair_and_end_in_both_tasks(folder):
    model, *_ = small(folder, direct_weight=0.5)
    losses = model.loss(HISTORY, LENGTH, TARGET, user=USER)
    pairs, vocabulary = model.user_codes[USER], model.vocabulary
    labels = torch.cat(
        [vocabulary.tokens(model.codes[TARGET]), torch.full((3, 1), vocabulary.eos)], 1
    )
    for task, weight, loss in zip(("sequential", "direct"), (1.0, 0.5), losses, strict=True):
        total = 0.0
        for row in range(3):
            one = slice(row, row + 1)
            tokens, mask = model.source(task, pairs[one], HISTORY[one], LENGTH[one])
            tokens = tokens[:, : int(mask.sum())]
            memory = model.backbone.read(
                vocabulary.embed_source(tokens), torch.ones_like(tokens, dtype=torch.bool)
            )
            inputs = torch.cat([torch.zeros(1, 1, dtype=torch.long), labels[one, :2]], 1)
            out = model.backbone.decode(vocabulary.embed(inputs), memory)
            logits = out[0] * vocabulary.scale @ vocabulary.table[: vocabulary.n_outputs].T
            total += cross_entropy(logits, labels[row])
        torch.testing.assert_close(loss, weight * total / 3)


def test_direct_weight_0_is_the_sequential_task_alone(folder):
    both, *_ = small(folder)
    alone, *_ = small(folder, direct_weight=0.0)
    alone.load_state_dict(both.state_dict())
    sequential = alone.loss(HISTORY, LENGTH, TARGET, user=USER)
    assert torch.equal(sequential, both.loss(HISTORY, LENGTH, TARGET, user=USER)[0])


@pytest.mark.parametrize("task", [0, 1])
def test_users_learn_in_both_tasks(folder, task):
    model, *_ = small(folder)
    model.loss(HISTORY, LENGTH, TARGET, user=USER)[task].backward()
    users = model.vocabulary.tokens(model.user_codes[USER])
    items = model.vocabulary.tokens(model.codes[torch.cat([HISTORY.flatten(), TARGET])])
    only_users = set(users.flatten().tolist()) - set(items.flatten().tolist())
    assert only_users
    assert model.vocabulary.table.grad[sorted(only_users)].abs().sum(1).min() > 0
    assert model.vocabulary.projection.weight.grad.abs().sum() > 0


# --- search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("score_type", ["level", "renormalised", "joint"])
def test_exact_scores_are_those_of_every_item_under_teacher_forcing(folder, score_type):
    model, *_ = small(folder, score_type=score_type)
    scores = model.scores(HISTORY, LENGTH, user=USER)
    items = torch.arange(1, model.n_items).expand(3, -1)
    with torch.no_grad():
        decoder = model.item_logits(HISTORY, LENGTH, user=USER)
        one_by_one = path_scores(decoder, model.trie, items, score_type=score_type)
    torch.testing.assert_close(scores[:, 1:], one_by_one, atol=1e-4, rtol=0)
    if score_type == "renormalised":
        torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)


def test_exact_scores_against_a_plain_forward_pass(folder):
    """``log p(cluster | prompt) + log p(rank | prompt, cluster)``, each over its own alphabet."""
    model, *_ = small(folder)
    scores = model.scores(HISTORY, LENGTH, user=USER)
    vocabulary = model.vocabulary
    coarse, _ = model.level_sizes
    tokens, mask = model.source("sequential", model.user_codes[USER], HISTORY, LENGTH)
    with torch.no_grad():
        memory = model.backbone.read(vocabulary.embed_source(tokens), mask)
        for item in (1, 17, 40):
            pair = vocabulary.tokens(model.codes[item])
            inputs = torch.tensor([[0, int(pair[0])]]).expand(3, -1)
            out = model.backbone.decode(vocabulary.embed(inputs), memory) * vocabulary.scale
            logits = out @ vocabulary.table.T
            first = logits[:, 0, 1 : 1 + coarse].log_softmax(-1)[:, model.codes[item, 0]]
            second = logits[:, 1, 1 + coarse : vocabulary.eos].log_softmax(-1)
            expected = first + second[:, model.codes[item, 1]]
            torch.testing.assert_close(scores[:, item], expected, atol=1e-4, rtol=0)


def test_exact_scores_ask_for_the_root_and_once_for_each_cluster(folder, monkeypatch):
    model, *_ = small(folder)
    queries = []
    original = type(model.backbone).extend

    def watched(self, embeddings, *arguments, **options):
        queries.append(embeddings.shape[1])
        return original(self, embeddings, *arguments, **options)

    monkeypatch.setattr(type(model.backbone), "extend", watched)
    model.scores(HISTORY, LENGTH, user=USER)
    assert queries == [1, len(model.codes[1:, 0].unique())]


@pytest.mark.parametrize("score_type", ["level", "renormalised"])
def test_a_wide_beam_ranks_like_the_exact_scores(folder, score_type):
    model, _, (_, _, test) = small(folder, score_type=score_type)
    exact = model.search(HISTORY, LENGTH, k=model.n_items - 1, user=USER)
    assert model.config["score_mode"] == "exact" and exact.certified(10).all()
    beam, *_ = small(folder, score_type=score_type, score_mode="beam", beam_width=60)
    beam.load_state_dict(model.state_dict())
    found = beam.search(HISTORY, LENGTH, k=model.n_items - 1, user=USER)
    count = model.n_items - 1
    torch.testing.assert_close(found.scores[:, :count], exact.scores[:, :count], atol=1e-5, rtol=0)
    assert (found.items[:, :count] == exact.items[:, :count]).float().mean() > 0.95, (
        "equal up to rounding"
    )
    batch = next(iter(test))[0]
    torch.testing.assert_close(
        beam.full_sort_predict(batch), model.full_sort_predict(batch), atol=1e-4, rtol=1e-4
    )


def test_only_items_are_returned_and_padding_never(folder):
    model, _, (_, _, test) = small(folder)
    batch = next(iter(test))[0]
    scores = model.full_sort_predict(batch)
    assert scores.shape[1] == model.n_items and (scores[:, 0] == -torch.inf).all()
    assert scores[:, 1:].isfinite().all()
    torch.testing.assert_close(
        model.predict(batch), scores.gather(1, batch["item_id"].unsqueeze(1)).squeeze(1)
    )
    users = set(map(tuple, model.user_codes[1:].tolist()))
    leaves = set(map(tuple, model.codes[1:].tolist()))
    assert model.trie.n_leaves == len(leaves) == model.n_items - 1 and not users & leaves


# --- users ------------------------------------------------------------------------------------


def test_new_users_take_the_cluster_of_their_items(folder):
    model, *_ = small(folder)
    pairs = model.user_pairs(None, HISTORY)
    for row in range(3):
        items = HISTORY[row, : LENGTH[row]]
        mean = model.item_paths[items].mean(0)
        cluster = int(model.tokenizer.clusters.distances(mean.unsqueeze(0)).argmin())
        members = torch.cat([model.codes[1:], model.user_codes[1:]])[:, 0] == cluster
        rank = min(int(members.sum()), model.level_sizes[1] - 1)
        assert pairs[row].tolist() == [cluster, rank]
    model.user_known[USER[0]] = False
    mixed = model.user_pairs(USER, HISTORY)
    assert torch.equal(mixed[0], pairs[0]) and torch.equal(mixed[1:], model.user_codes[USER[1:]])
    padding = model.user_pairs(None, torch.zeros(1, 3, dtype=torch.long))
    assert padding[0, 0] == model.tokenizer.n_clusters
    token = model.item_tokens[5]
    known = model.recommend([token], k=3, user=model.user_tokens[4])
    assert len(known) == len(model.recommend([token], k=3)) == 3


def test_items_without_an_edge_sit_in_the_extra_cluster(tmp_path):
    target = tmp_path / "toy"
    target.mkdir()
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(20):
        sequence = [f"i{(user + step) % 15}" for step in range(6)]
        if user == 3:
            sequence[-1] = "rare"
        rows += [f"u{user}\t{item}\t{step}" for step, item in enumerate(sequence)]
    rows += ["short\ti1\t0"]
    (target / "toy.inter").write_text("\n".join(rows) + "\n")
    model, _, (_, _, test) = toy_model(tmp_path, "MetaID", item_text_fields=None)
    rare = model.item_ids(["rare"])[0]
    assert int(model.codes[rare, 0]) == model.tokenizer.n_clusters
    short = model.catalogue.user_id("short")
    assert not model.user_known[short]
    assert int(model.user_codes[short, 0]) == model.tokenizer.n_clusters
    for batch, *_ in test:
        assert model.full_sort_predict(batch)[:, rare].isfinite().all()


def test_it_learns_fifty_users_by_heart(tmp_path):
    target = tmp_path / "data" / "toy"
    target.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    draw = np.random.default_rng(0)
    for user in range(50):
        items = draw.permutation(30)[:6]
        rows += [f"u{user}\ti{item}\t{step}" for step, item in enumerate(items)]
    (target / "toy.inter").write_text("\n".join(rows) + "\n")
    model, _, loaders = toy_model(tmp_path / "data", "MetaID", item_text_fields=None)
    feat = loaders[0]._dataset.inter_feat
    history, length = feat["item_id_list"][:, :3], feat["item_length"]
    target, user = feat["item_id"], feat["user_id"]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(150):
        optimiser.zero_grad()
        sum(model.loss(history, length, target, user=user)).backward()
        optimiser.step()
    best = model.search(history, length, user=user).items[:, 0]
    assert len(target) == 150 and (best == target).float().mean() > 0.95


# --- new items, checkpoints, self_improve -----------------------------------------------------


def test_new_items_are_placed_by_their_users_and_survive_a_checkpoint(folder, tmp_path):
    result = run_recbole_genrec(
        "MetaID",
        "toy",
        config_dict=toy_settings(folder, tmp_path, id_diagnostics=True),
    )
    report = result["report"]
    assert report["identifiers"]["diversity"] > 0 and report["identifiers"]["memorisation"] > 0
    assert report["user_tokenizer"]["unique_ids"] == report["user_tokenizer"]["before"]["items"]
    _, model, _, _, _, test = load_data_and_model(result["checkpoint"])
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)

    chosen = [model.user_tokens[4], model.user_tokens[8]]
    with pytest.raises(ConfigError, match="users who chose it"):
        model.add_items(["a new soap"])
    (item,) = model.add_items(["a new soap"], ["new"], users=[chosen])
    assert tuple(model.codes[item].tolist()) not in set(map(tuple, model.user_codes[1:].tolist()))
    after = model.full_sort_predict(batch)
    torch.testing.assert_close(after[:, :item], before, atol=1e-5, rtol=1e-5)
    assert after[:, item].isfinite().all()
    assert model.recommend(["new", model.item_tokens[3]], k=2)

    model.save(tmp_path / "grown.pth")
    _, again, *_ = load_data_and_model(str(tmp_path / "grown.pth"))
    assert torch.equal(again.full_sort_predict(batch), after)
    assert torch.equal(again.user_codes, model.user_codes)


def toy_settings(folder, place, **changes):
    return {
        **TINY_OF["MetaID"],
        "data_path": str(folder),
        "cache_dir": str(folder / "cache"),
        "checkpoint_dir": str(place),
        "epochs": 1,
        **changes,
    }


def test_ranks_that_nobody_had_start_at_the_mean_of_the_others(folder):
    model, *_ = small(folder, fine_headroom=2)
    ranks = model.vocabulary.level_rows(1)[0]
    codes = torch.arange(len(ranks))
    before = model.vocabulary.embed_code(codes, 1)
    model.add_items(["a new soap"], users=[[model.user_tokens[4]]])
    after = model.vocabulary.embed_code(codes, 1)
    assert torch.equal(after[:-2], before[:-2]) and not torch.equal(after[-2:], before[-2:])
    torch.testing.assert_close(after[-2:], before[:-2].mean(0).expand(2, -1))


def test_a_table_in_which_an_item_has_the_pair_of_a_user_is_refused(folder):
    model, config, loaders = small(folder)
    stored = model.other_parameter()
    stored["item_codes"]["codes"] = stored["item_codes"]["codes"].clone()
    stored["item_codes"]["codes"][3] = model.user_codes[5]
    with pytest.raises(ArtefactError, match="have the same codes"):
        type(model)(config, loaders[0]._dataset, stored)


@pytest.mark.parametrize("scope", ["all", "outlier"])
def test_self_improve_respects_the_pairs_of_users(folder, scope):
    switches = {"si_start_epoch": 1, "si_interval": 1, "si_rounds": 1, "si_freeze_epochs": 1}
    model, *_ = small(
        folder,
        self_improve=True,
        epochs=4,
        si_scope=scope,
        si_margin=0.0,
        si_max_churn=1.0,
        **switches,
    )
    users = set(map(tuple, model.user_codes[1:].tolist()))
    assert len(model.reserved_codes()) == len(users)
    items = torch.arange(1, 30)
    assert model.alignment_loss(items).isfinite()
    table, entry = refined_codes(model, torch.Generator().manual_seed(0), model.popularity()[1:])
    assert entry["churn"] > 0
    rows = set(map(tuple, table[1:].tolist()))
    assert len(rows) == model.n_items - 1 and not rows & users
    before = model.user_codes.clone()
    model.self_improvement.replace_codes(model, table)
    assert torch.equal(model.user_codes, before)


# --- words, settings --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a tiny T5 and a text tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("t5")
    shape = {
        "d_model": 32,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "d_kv": 16,
        "vocab_size": 90,
    }
    torch.manual_seed(0)
    load_encoder_decoder("scratch", {"model_type": "t5", **shape}).save_pretrained(place)
    words = [
        "[UNK]",
        "What",
        "does",
        "the",
        "user",
        "choose",
        "next",
        "like",
        "?",
        "user_",
        ",",
        "item_",
    ]
    model = models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    text = Tokenizer(model)
    text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=text, unk_token="[UNK]").save_pretrained(place)
    return place


def test_words_of_a_pretrained_backbone_stand_around_the_pairs(folder, pretrained):
    model, *_ = small(folder, backbone=str(pretrained), prompt_style="text")
    rows = load_encoder_decoder(str(pretrained)).get_input_embeddings().weight
    words = torch.tensor(model.prompts.words)
    assert torch.equal(model.vocabulary.table[model.vocabulary.first_word :], rows[words])
    tokens, mask = model.source("sequential", model.user_codes[USER], HISTORY, LENGTH)
    opening = int((tokens[1] >= model.vocabulary.first_word).nonzero()[0])
    assert (
        opening == 0
        and mask[1].sum() == len(model.prompts.sequential) + 2 + len(model.prompts.item) + 2 + 1
    )
    assert model.scores(HISTORY, LENGTH, user=USER)[:, 1:].isfinite().all()
    assert model.other_parameter()["prompts"]["item"] == ", item_"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_style": "text"}, "prompt_style: text"),
        ({"tokenizer": "rkmeans"}, "metapath"),
        ({"codebook_sizes": [8, 8]}, "learns one level"),
        ({"direct_weight": -1}, "direct_weight"),
        ({"alpha": -0.1}, "alpha"),
        ({"train_rows": "longest"}, "train_rows"),
        ({"n_clusters": 5}, "Unknown key 'n_clusters'"),
    ],
)
def test_settings_that_cannot_work(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        toy_model(folder, "MetaID", **changes)


def test_published_settings_are_one_switch(folder):
    values = {"preset": "paper", "data_path": str(folder), "gpu_id": ""}
    config = GenRecConfig("MetaID", "toy", config_dict=values)
    assert config["backbone"] == "google-t5/t5-small" and config["prompt_style"] == "text"
    assert config["score_mode"] == "beam" and config["codebook_sizes"] == [100]


@pytest.mark.parametrize("method", ["TIGER", "TimelineRec"])
def test_other_generators_take_its_codes(folder, method):
    changes = {"tokenizer": "metapath", "codebook_sizes": [6], "walk_length": 10, "path_dim": 8}
    config = toy_config(folder, method, cache_dir=str(folder / "cache"), **changes)
    model, _, (_, _, test) = toy_model(folder, method, cache_dir=str(folder / "cache"), **changes)
    assert config["tokenizer"] == "metapath" and len(model.level_sizes) == 2
    assert model.full_sort_predict(next(iter(test))[0])[:, 1:].isfinite().all()
    (item,) = model.add_items(["a new soap"], users=[[model.user_tokens[3]]])
    assert int(model.codes[item, 0]) < model.level_sizes[0]


# --- diagnostics ------------------------------------------------------------------------------


def test_diversity_is_the_mean_symmetric_divergence():
    embeddings = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    pairs = item_pairs(9)[:, :50]
    assert (pairs[0] != pairs[1]).all() and int(pairs.max()) <= 8
    p = embeddings.double().softmax(1)
    divergences = []
    for i, j in pairs.T.tolist():
        forward = (p[i] * (p[i] / p[j]).log()).sum()
        backward = (p[j] * (p[j] / p[i]).log()).sum()
        divergences.append(0.5 * float(forward + backward))
    assert diversity(embeddings, pairs) == pytest.approx(np.mean(divergences))
    assert diversity(torch.ones(9, 5), pairs) == 0


def test_adjusted_cosine_sums_over_common_users():
    sequences = [np.array([0, 1, 1]), np.array([1]), np.array([0, 1, 2])]
    pairs = torch.tensor([[0, 0, 1], [1, 3, 2]])
    deviation = [1 - 2 / 4, 1 - 1 / 4, 1 - 3 / 4]
    common = deviation[0] ** 2 + deviation[2] ** 2
    norm = [common**0.5, (common + deviation[1] ** 2) ** 0.5, deviation[2]]
    expected = [common / (norm[0] * norm[1]), 0.0, deviation[2] ** 2 / (norm[1] * norm[2])]
    assert adjusted_cosine(sequences, 4, pairs).tolist() == pytest.approx(expected)


def test_memorisation_tells_embeddings_of_the_graph_from_random_ones():
    draw = np.random.default_rng(0)
    sequences = [
        block * 10 + draw.choice(10, 5, replace=False) for block in range(4) for _ in range(30)
    ]
    pairs = item_pairs(40)
    block = torch.eye(4)[torch.arange(40) // 10]
    noise = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    assert memorisation(block + 0.01 * noise[:, :4], pairs, sequences) < memorisation(
        noise, pairs, sequences
    )
