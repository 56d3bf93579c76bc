"""STORE against its specification: gradients, sequences, codes, search, checkpoints, new items."""

from __future__ import annotations

import pytest
import torch
from recbole.data.interaction import Interaction
from toy import TINY, toy_config, toy_model, write_dataset

from recbole_genrec.backbone import load_causal_lm
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.decoding import exact_scores, path_scores
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.tokenizer import NewItems
from recbole_genrec.tokenizer.store import STORETokenizer
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def tokenizer_of(folder, **changes):
    config = toy_config(folder, **changes)
    content = ItemContent.from_dataset(create_dataset(config), config)
    return STORETokenizer(config, 7), content


def batch_of(loaders):
    return next(iter(loaders[2]))[0]


# --- stages 1 and 2 -------------------------------------------------------------------------------


def test_every_query_and_dense_token_gets_a_gradient(folder):
    tokenizer, content = tokenizer_of(folder)
    network, ids, valid = tokenizer._network(content.text[1:], content.text)
    dense = network.dense(ids, valid)
    dense.retain_grad()
    network.reconstruction_loss(dense, ids, valid).backward()
    assert (dense.grad.abs().sum(-1) > 0).all()
    assert (network.queries.grad.abs().sum(-1) > 0).all()


def test_in_one_pass_the_clustered_vectors_get_no_gradient(folder, monkeypatch):
    """store.md, check 1, and the loss against sequences that are read one by one."""
    tokenizer, content = tokenizer_of(folder)
    network, ids, valid = tokenizer._network(content.text[1:], content.text)
    seen = []
    forward = network.backbone.forward

    def watched(embeddings, mask=None, positions=None, cache=None):
        states = forward(embeddings, mask, positions, cache)
        if states.requires_grad:
            states.retain_grad()
        seen.append(states)
        return states

    monkeypatch.setattr(network.backbone, "forward", watched)
    loss = network.one_pass_loss((ids, valid), (ids, valid))
    loss.backward()
    lengths = valid.sum(1)
    n_dense, n_prompt = network.n_dense, len(network.prompt)
    for row, length in enumerate(lengths.tolist()):
        gradient = seen[0].grad[row].abs().sum(-1)
        task = length + n_dense + n_prompt
        assert not gradient[: task - 1].any(), "content, dense tokens and prompt but its last"
        assert (gradient[task - 1 : task - 1 + length] > 0).all()
    assert (network.queries.grad.abs().sum(-1) > 0).all(), "through the layer below"

    table, total = network.backbone.text_table, 0.0
    with torch.no_grad():
        for row in range(4):
            text = ids[row][valid[row]]
            blocks = [table(text), network.queries, table(network.prompt), table(text)]
            sequence = torch.cat(blocks).unsqueeze(0)
            size, first = sequence.shape[1], len(text) + n_dense
            mask = torch.ones(size, size, dtype=torch.bool).tril()
            mask[first:, : len(text)] = False
            states = forward(sequence, mask[None, None], torch.arange(size)[None])[0]
            logits = network.backbone.text_logits(states[first + n_prompt - 1 : -1])
            total += torch.nn.functional.cross_entropy(logits, text, reduction="sum")
        batch = (ids[:4], valid[:4])
        expected = total / valid[:4].sum()
        torch.testing.assert_close(network.one_pass_loss(batch, batch), expected)


def test_the_ablation_in_one_pass_trains(folder):
    model, config, _ = toy_model(folder, placeholder="one_pass", beam_width=64)
    assert model.tokenizer.quality["reconstruction_loss"] > 0
    assert config.run_name() != toy_config(folder, beam_width=64).run_name()


def test_text_reaches_the_reconstruction_only_through_the_dense_tokens(folder):
    tokenizer, content = tokenizer_of(folder)
    network, ids, valid = tokenizer._network(content.text[1:], content.text)
    dense = network.eval().dense(ids, valid).detach()
    with torch.no_grad():
        before = network.reconstruction_loss(dense, ids, valid)
        network.dense(ids.flip(0), valid.flip(0))  # another text in pass 1
        assert network.reconstruction_loss(dense, ids, valid) == before
        assert network.reconstruction_loss(dense.flip(0), ids, valid) != before


def test_dense_tokens_do_not_depend_on_padding(folder):
    tokenizer, content = tokenizer_of(folder)
    network, ids, valid = tokenizer._network(content.text[1:], content.text)
    network.eval()
    with torch.no_grad():
        together = network.dense(ids, valid)
        width = int(valid[0].sum())
        alone = network.dense(ids[:1, :width], valid[:1, :width])
    torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=0)


def test_trained_reconstruction_needs_the_right_dense_tokens(folder):
    tokenizer, content = tokenizer_of(
        folder, tokenizer_epochs=60, tokenizer_lr=3e-3, task_token_dropout=0.3
    )
    tokenizer.fit(content)
    assert (
        tokenizer.quality["reconstruction_loss"]
        < 0.95 * tokenizer.quality["reconstruction_loss_shuffled"]
    )


def test_same_seed_same_codes_and_equal_texts_equal_codes(tmp_path):
    folder = write_dataset(tmp_path)
    path = folder / "toy" / "toy.item"
    lines = path.read_text().splitlines()
    lines[2] = "i1\t" + lines[1].split("\t", 1)[1]  # item 1 has the text of item 0
    path.write_text("\n".join(lines) + "\n")
    first, content = tokenizer_of(folder)
    codes = first.fit(content)
    again, _ = tokenizer_of(folder)
    assert torch.equal(codes.codes, again.fit(content).codes)
    rows = [codes.tokens.index("i0"), codes.tokens.index("i1")]
    assert torch.equal(codes.codes[rows[0], :3], codes.codes[rows[1], :3])
    assert codes.codes[rows[0], 3] != codes.codes[rows[1], 3]
    assert len(codes.codes[1:].unique(dim=0)) == codes.n_items - 1


@pytest.mark.parametrize("policy", [["extra_token"], ["nearest_free"], ["sinkhorn", "extra_token"]])
def test_collision_policies_make_codes_unique(folder, policy):
    tokenizer, content = tokenizer_of(folder, collision=policy)
    codes = tokenizer.fit(content)
    assert len(codes.codes[1:].unique(dim=0)) == codes.n_items - 1


# --- stage 3 --------------------------------------------------------------------------------------


def test_codes_start_as_what_they_replace(folder):
    model, _, _ = toy_model(folder)
    inject = model.tokenizer.hand_over().inject
    norm = model.backbone.text_table.weight.norm(dim=-1).mean()
    first = 0
    for quantiser in model.tokenizer.quantisers:
        expected = quantiser.centroid_vectors() @ inject.T
        rows = model.vocabulary.embedding[first : first + len(expected)]
        cosine = torch.nn.functional.cosine_similarity(rows, expected)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-5, rtol=0)
        first += len(expected)
    torch.testing.assert_close(
        model.vocabulary.embedding.norm(dim=-1), norm.expand(len(model.vocabulary.embedding))
    )


def test_generator_starts_from_the_tokenizers_weights(folder):
    model, _, _ = toy_model(folder)
    stored = {
        name.removeprefix("backbone."): value
        for name, value in model.tokenizer.weights.items()
        if name.startswith("backbone.")
    }
    own = dict(model.backbone.named_parameters())
    assert stored and all(torch.equal(own[name], value) for name, value in stored.items())


def test_one_step_changes_both_code_tables(folder):
    model, config, loaders = toy_model(folder)
    before = {name: p.clone() for name, p in model.vocabulary.named_parameters()}
    optimiser = torch.optim.Adam(model.parameter_groups(), lr=1e-3)
    sum(model.calculate_loss(next(iter(loaders[0])))).backward()
    optimiser.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.vocabulary.named_parameters())
    assert [group["lr"] for group in optimiser.param_groups] == [1e-3, config["code_lr"]]


@pytest.mark.parametrize("prefix", ["sep", "number"])
def test_loss_is_the_teacher_forced_score(folder, prefix):
    """Training and search read the same sequence, whatever the padding.

    So L x mean loss = - joint score, user by user.
    """
    model, _, loaders = toy_model(
        folder, item_prefix=prefix, score_type="joint", loss_positions="target", train_rows="all"
    )
    history, length = model._history(batch_of(loaders))
    target = torch.arange(len(length)) % (model.n_items - 1) + 1
    with torch.no_grad():
        scores = path_scores(
            model.item_logits(history, length), model.trie, target[:, None], score_type="joint"
        )[:, 0]
        rows = [slice(n, n + 1) for n in range(len(length))]
        loss = torch.stack(
            [model.recommendation_loss(history[r, : length[r]], length[r], target[r]) for r in rows]
        )
        batch = model.recommendation_loss(history, length, target)
    torch.testing.assert_close(-loss * model.codes.shape[1], scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(batch, loss.mean(), atol=1e-5, rtol=0)


def test_all_positions_are_targets_of_the_sequence(folder):
    model, _, _ = toy_model(folder)
    seen = []
    model.vocabulary.logits = lambda hidden, level=None: (
        seen.append(len(hidden)) or torch.zeros(len(hidden), sum(model.level_sizes))
    )
    history, length = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
    model.recommendation_loss(history, length, torch.tensor([5, 6]))
    assert seen == [(4 + 2) * model.codes.shape[1]]


def test_alignment_predicts_the_learned_codes_only(folder):
    model, _, _ = toy_model(folder)
    seen = []
    model.vocabulary.logits = lambda hidden, level=None: (
        seen.append(len(hidden)) or torch.zeros(len(hidden), sum(model.level_sizes))
    )
    model.alignment_loss(torch.tensor([1, 2, 3]))
    assert seen == [3 * 3]


def test_alternating_alignment_covers_all_items(folder):
    model, _, _ = toy_model(folder, align_mode="alternate")
    losses = list(model.on_epoch_start(0))
    assert len(list(model.on_epoch_start(1))) == len(losses)
    assert len(losses) == -(-(model.n_items - 1) // TINY["align_batch"])
    assert all(loss.requires_grad for loss in losses)


# --- search ---------------------------------------------------------------------------------------


def test_wide_beam_equals_exact_scores(folder):
    model, _, loaders = toy_model(folder, beam_width=64)
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    exact = exact_scores(model.item_logits(*model._history(batch)), model.trie, score_type="level")
    torch.testing.assert_close(scores[:, 1:], exact[:, 1:], atol=1e-5, rtol=0)
    assert torch.equal(scores.argsort(descending=True), exact.argsort(descending=True))
    assert (scores[:, 0] == -torch.inf).all() and torch.isfinite(scores[:, 1:]).all()


def test_predict_is_the_column_of_the_exact_scores(folder):
    model, _, loaders = toy_model(folder, score_mode="exact")
    batch = batch_of(loaders)
    rows = Interaction({name: batch[name] for name in (model.ITEM_SEQ, model.ITEM_SEQ_LEN)})
    rows.update(Interaction({model.ITEM_ID: torch.arange(len(batch)) % 40 + 1}))
    expected = model.full_sort_predict(rows).gather(1, rows[model.ITEM_ID].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(model.predict(rows), expected, atol=1e-5, rtol=0)


def test_narrow_beam_keeps_the_contract(folder):
    model, _, loaders = toy_model(folder, beam_width=10)
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    history, length = model._history(batch)
    result = model.search(history, length)
    assert scores.shape == (len(length), model.n_items) and torch.isfinite(scores[:, 1:]).all()
    assert (result.items > 0).all()
    assert all(len(row.unique()) == result.items.shape[1] for row in result.items)
    assert torch.equal(scores.topk(10).indices, result.items[:, :10])


def test_scores_do_not_depend_on_the_batch(folder):
    model, config, loaders = toy_model(folder)
    batch = batch_of(loaders)
    whole = model.full_sort_predict(batch)
    for size in (1, 7):
        config["search_batch_size"] = size
        torch.testing.assert_close(model.full_sort_predict(batch), whole, atol=1e-4, rtol=0)


def test_a_changed_code_table_takes_effect_at_the_next_call(folder):
    model, _, loaders = toy_model(folder)
    batch = batch_of(loaders)
    before = model.full_sort_predict(batch)
    model.codes[[3, 9]] = model.codes[[9, 3]]
    after = model.full_sort_predict(batch)
    used = ((batch[model.ITEM_SEQ] == 3) | (batch[model.ITEM_SEQ] == 9)).any(1)
    assert not torch.allclose(before[used, 1:], after[used, 1:])
    swapped = after[~used].clone()
    swapped[:, [3, 9]] = swapped[:, [9, 3]]
    torch.testing.assert_close(before[~used], swapped)


def test_auto_beam_with_exact_fallback_equals_exact(folder):
    auto, _, loaders = toy_model(folder, beam_width="auto", beam_max=20, uncertified="exact")
    history, length = auto._history(batch_of(loaders))
    exact = exact_scores(auto.item_logits(history, length), auto.trie).topk(10)
    result = auto.search(history, length)
    assert torch.equal(result.items[:, :10], exact.indices)


def test_identical_texts_with_collision_none_rank_deterministically(tmp_path):
    folder = write_dataset(tmp_path)
    path = folder / "toy" / "toy.item"
    lines = path.read_text().splitlines()
    lines[2] = "i1\t" + lines[1].split("\t", 1)[1]
    path.write_text("\n".join(lines) + "\n")
    model, _, loaders = toy_model(folder, collision=["none"], beam_width=64)
    scores = model.full_sort_predict(batch_of(loaders))
    a, b = model.item_tokens.index("i0"), model.item_tokens.index("i1")
    assert torch.equal(model.codes[a], model.codes[b])
    assert (scores[:, a] != scores[:, b]).all()
    assert ((scores[:, a] > scores[:, b]) == (a < b)).all()


def test_the_level_grammar_reports_the_beams_it_loses(folder):
    model, _, loaders = toy_model(folder, constraint="slice", beam_width=6000)
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    exact = exact_scores(model.item_logits(*model._history(batch)), model.trie)
    result = model.search(*model._history(batch))
    found = result.items > 0
    assert found.any()
    torch.testing.assert_close(
        result.scores[found], exact.gather(1, result.items)[found], atol=1e-4, rtol=0
    )
    assert torch.isfinite(scores[:, 1:]).all() and 0 < model.report()["search"]["invalid_beams"] < 1
    with pytest.raises(ConfigError, match="constraint: slice lets beams leave the catalogue"):
        toy_config(folder, constraint="slice", beam_width="auto")


# --- checkpoints, new items, users ----------------------------------------------------------------


def test_checkpoint_alone_restores_ranking_and_tokenizer(folder, tmp_path, monkeypatch):
    result = run_recbole_genrec("STORE", "toy", config_dict={**TINY, "data_path": str(folder)})
    state = torch.load(result["checkpoint"], weights_only=True)
    assert state["format"] == 1
    monkeypatch.setattr(STORETokenizer, "fit", lambda *_: pytest.fail("a stage ran again"))
    _, model, _, _, _, test = load_data_and_model(
        result["checkpoint"], cache_dir=str(tmp_path / "empty")
    )
    trainer = GenRecTrainer(model.config, model)
    trainer.eval_collector.data_collect(test)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]
    old = model.tokenizer.encode(NewItems(model.content.text[1:]))
    assert torch.equal(old, model.codes[1:, :3])  # the stage-1 tokenizer still runs after stage 3


def test_new_items_change_nothing_and_can_be_found(folder):
    model, _, loaders = toy_model(folder, beam_width=64)
    batch = batch_of(loaders)
    before, codes = model.full_sort_predict(batch), model.codes.clone()
    new = model.add_items(["soft soap no 99", "a thing of its own"], ["n1", "n2"])
    after = model.full_sort_predict(batch)
    assert new == [41, 42] and after.shape[1] == 43
    assert torch.equal(model.codes[:41], codes)
    torch.testing.assert_close(after[:, :41], before, atol=1e-5, rtol=0)
    found = {row["item"] for row in model.recommend(["i1", "i2"], k=42)}
    assert {"n1", "n2"} <= found
    assert [row["item"] for row in model.recommend(["i1", "n1"], k=2, candidates=["i7", "n2"])] in (
        ["i7", "n2"],
        ["n2", "i7"],
    )


def test_added_items_survive_a_checkpoint(folder):
    model, _, _ = toy_model(folder, beam_width=64)
    model.add_items(["soft soap no 99"], ["n1"])
    model.save("grown.pth")
    _, again, *_ = load_data_and_model("grown.pth")
    assert again.item_tokens[-1] == "n1" and torch.equal(again.codes, model.codes)
    assert again.recommend(["i1", "n1"], k=42) == model.recommend(["i1", "n1"], k=42)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lora_on_a_folder_keeps_the_backbone_out_of_the_checkpoint(folder, tmp_path, dtype):
    """The paper's way on a tiny scale: LoRA, numbered items, alternating alignment.

    The backbone is a pretrained folder, also in half precision.
    """
    lm, tokenizer = load_causal_lm("scratch", TINY["backbone_config"], ["red soap no 1"], 400)
    lm.to(dtype).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    settings = {
        "backbone": str(tmp_path / "lm"),
        "tuning": "lora",
        "lora_rank": 2,
        "item_prefix": "number",
        "align_mode": "alternate",
    }
    result = run_recbole_genrec(
        "STORE", "toy", config_dict={**TINY, "data_path": str(folder), **settings}
    )
    state = torch.load(result["checkpoint"], weights_only=True)
    assert not any(
        "embed_tokens" in name or "lm_head" in name or "base_layer" in name
        for name in state["state_dict"]
    )
    config, model, _, train, _, test = load_data_and_model(result["checkpoint"])
    trainer = GenRecTrainer(config, model)
    trainer.eval_collector.data_collect(train)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]
    lm.get_input_embeddings().weight.data.add_(1)
    lm.save_pretrained(tmp_path / "lm")
    with pytest.raises(ArtefactError, match="other weights"):
        load_data_and_model(result["checkpoint"])


def test_recommend_names_unknown_items_and_empty_histories(folder):
    model, _, _ = toy_model(folder)
    with pytest.raises(ConfigError, match="no item 'nothing'"):
        model.recommend(["i1", "nothing"])
    with pytest.raises(ConfigError, match="history is empty"):
        model.recommend([])


def test_recommend_is_the_search_of_the_evaluation(folder):
    model, _, loaders = toy_model(folder)
    batch = batch_of(loaders)
    top = model.full_sort_predict(batch).topk(5).indices
    row, length = batch[model.ITEM_SEQ][0], int(batch[model.ITEM_SEQ_LEN][0])
    names = [model.item_tokens[i] for i in row[:length].tolist()]
    assert [entry["item"] for entry in model.recommend(names, k=5)] == [
        model.item_tokens[i] for i in top[0].tolist()
    ]


def test_lora_trains_adapter_and_code_tables_only(folder):
    model, _, _ = toy_model(folder, tuning="lora", lora_rank=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or name.startswith("vocabulary.") for name in trained)
