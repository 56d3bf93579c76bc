"""LMIndexer against its specification: sources, loss, search, checkpoints, new items."""

from __future__ import annotations

import pytest
import torch
from lmindexer import TINY_LM
from recbole.data.interaction import Interaction
from toy import TINY_OF, toy_config, toy_model, write_dataset
from transformers import T5Config, T5ForConditionalGeneration

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.decoding import exact_scores
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.model.registry import build_model
from recbole_genrec.tokenizer import NewItems
from recbole_genrec.tokenizer.lmindexer.tokenizer import LMIndexerTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def made(folder, **changes):
    """A model whose tokenizer is fitted once for all tests."""
    return toy_model(folder, "LMIndexer", cache_dir=str(folder / "cache"), **changes)


def users(model, n_users: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    length = torch.tensor([1, 2, 3, 5, 8, 8])[:n_users]
    history = torch.randint(1, model.n_items, (n_users, 8))
    return history * (torch.arange(8) < length.unsqueeze(1)), length


def words(model, ids) -> list[str | int]:
    """Tokens as text, and codes as numbers behind the text vocabulary."""
    pieces: list[str | int] = []
    for token in ids.tolist():
        if token >= model.text_and_codes.n_text:
            pieces.append(token)
        elif pieces and isinstance(pieces[-1], str):
            pieces[-1] += model.text_tokenizer.decode([token])
        else:
            pieces.append(model.text_tokenizer.decode([token]))
    return pieces


# --- sources ------------------------------------------------------------------------------------


def test_a_history_of_ids_is_as_old_as_it_is_long(folder):
    model, _, _ = made(folder)
    history = torch.tensor([[3, 9, 4], [7, 0, 0]])
    ids, valid = model.source(history, torch.tensor([3, 1]))
    n_levels = len(model.level_sizes)
    offsets = torch.tensor([0, *model.level_sizes[:-1]]).cumsum(0)
    expected = (model.text_and_codes.n_text + offsets + model.codes[[3, 9, 4]]).flatten().tolist()
    assert ids[0].tolist() == [*expected, model.end] and valid[0].all()
    assert ids[1, : n_levels + 1].tolist()[-1] == model.end
    assert valid[1].sum() == n_levels + 1

    short, _, _ = made(folder, max_source_length=2 * n_levels + 1)
    ids, valid = short.source(history, torch.tensor([3, 1]))
    assert ids[0].tolist() == [*expected[n_levels:], model.end], "the oldest item is lost"


def test_a_history_of_texts_begins_with_the_newest_item(folder):
    model, _, _ = made(folder, rec_input="text")
    history = torch.tensor([[3, 9, 4], [7, 0, 0]])
    ids, valid = model.source(history, torch.tensor([3, 1]))
    texts = [model.content.text[item] for item in (4, 9, 3)]
    text = model.text_tokenizer.decode(ids[0][valid[0]][:-1])
    assert "".join(text.split()) == "".join(". ".join(texts).split())
    assert int(ids[0][valid[0]][-1]) == model.end
    alone = model.text_tokenizer.decode(ids[1][valid[1]][:-1])
    assert "".join(alone.split()) == "".join(model.content.text[7].split())


def test_a_source_that_is_too_long_loses_the_oldest_item(folder):
    whole, _, _ = made(folder, rec_input="text")
    history, length = torch.tensor([[3, 9, 4]]), torch.tensor([3])
    newest = int(whole.source(torch.tensor([[9, 4]]), torch.tensor([2]))[1].sum())
    model, _, _ = made(folder, rec_input="text", max_source_length=newest)
    ids, _ = model.source(history, length)
    expected, _ = whole.source(torch.tensor([[9, 4]]), torch.tensor([2]))
    assert ids.tolist() == expected.tolist()


def test_with_both_the_codes_stand_before_the_text(folder):
    model, _, _ = made(folder, rec_input="both")
    ids, valid = model.source(torch.tensor([[3, 9]]), torch.tensor([2]))
    pieces = words(model, ids[0][valid[0]][:-1])
    n_levels = len(model.level_sizes)
    codes = (model.text_and_codes.n_text + model.vocabulary.tokens(model.codes[[9, 3]])).tolist()
    assert pieces[:n_levels] == codes[0]
    middle = pieces[n_levels]
    assert "".join(middle.split()) == "".join(model.content.text[9].split()) + "."
    assert pieces[n_levels + 1 : 2 * n_levels + 1] == codes[1]
    assert "".join(pieces[-1].split()) == "".join(model.content.text[3].split())


# --- the loss -----------------------------------------------------------------------------------


def hugging_face(model) -> T5ForConditionalGeneration:
    """The same weights in transformers, with text and codes in one table."""
    table = torch.cat([model.backbone.text_table.weight, model.vocabulary.embedding])
    settings = {**TINY_LM, "num_layers": 1, "dropout_rate": 0.0, "vocab_size": len(table)}
    settings.pop("model_type")
    lm = T5ForConditionalGeneration(T5Config(**settings, decoder_start_token_id=0)).eval()
    weights = {
        name.removeprefix("backbone."): value
        for name, value in model.state_dict().items()
        if name.startswith("backbone.") and "shared" not in name
    }
    weights |= dict.fromkeys(
        ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), table
    )
    lm.load_state_dict({**weights, "lm_head.weight": table})
    return lm


@pytest.mark.parametrize("source", ["ids", "text", "both"])
@torch.no_grad()
def test_the_published_loss_is_that_of_transformers(folder, source):
    model, _, _ = made(folder, rec_input=source, loss_vocab="full")
    history, length = users(model)
    target = torch.tensor([1, 5, 9, 11, 20, 2])
    loss = model.loss(history, length, target)
    ids, valid = model.source(history, length)
    labels = model.text_and_codes.n_text + model.vocabulary.tokens(model.codes[target])
    labels = torch.nn.functional.pad(labels, (0, 1), value=model.end)
    expected = hugging_face(model)(input_ids=ids, attention_mask=valid.long(), labels=labels).loss
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_losses_over_fewer_tokens(folder):
    """Codes and the end token compete; or codes that the trie allows, which is the score."""
    model, config, _ = made(folder, loss_vocab="codes")
    history, length = users(model)
    target = torch.tensor([1, 5, 9, 11, 20, 2])
    loss = model.loss(history, length, target)
    memory = model._memory(*model.source(history, length))
    states, labels = model.teach(memory, target)
    table = torch.cat(
        [model.backbone.text_table.weight[model.end].unsqueeze(0), model.vocabulary.embedding]
    )
    logits = states * model.backbone.d_model**-0.5 @ table.T
    columns = torch.where(labels == model.end, 0, labels - model.text_and_codes.n_text + 1)
    expected = -logits.log_softmax(-1).gather(-1, columns.unsqueeze(-1)).mean()
    torch.testing.assert_close(loss, expected)

    config["loss_vocab"], config["score_type"] = "trie", "renormalised"
    scores = exact_scores(model.item_logits(history, length), model.trie, score_type="renormalised")
    loss = model.loss(history, length, target)
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(loss, -own.mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_vocab", ["full", "codes"])
@torch.no_grad()
def test_joint_scores_are_those_of_the_loss(folder, loss_vocab):
    """Codes compete in the search with what they compete with in the loss."""
    model, _, _ = made(folder, loss_vocab=loss_vocab, score_type="joint")
    history, length = users(model)
    target = torch.tensor([1, 5, 9, 11, 20, 2])
    scores = exact_scores(model.item_logits(history, length), model.trie, score_type="joint")
    memory = model._memory(*model.source(history, length))
    states, labels = model.teach(memory, target)
    words = model.backbone.text_table.weight
    if loss_vocab == "codes":
        words = words[[model.end]]
        labels = torch.where(labels == model.end, 0, labels - model.text_and_codes.n_text + 1)
    table = torch.cat([words, model.vocabulary.embedding])
    log_probs = (states * model.backbone.d_model**-0.5 @ table.T).log_softmax(-1)
    of_tokens = log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # [6, L + 1]
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(own, of_tokens[:, :-1].sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.loss(history, length, target), -of_tokens.mean())


# --- the start ----------------------------------------------------------------------------------


def test_the_recommender_goes_on_with_the_tokenizers_language_model(folder):
    model, _, _ = made(folder)
    pretrained = model.tokenizer.hand_over()
    for name, value in pretrained.backbone.named_parameters():
        assert dict(model.backbone.named_parameters())[name].equal(value), name
    n_learned = len(pretrained.code_rows)
    assert n_learned == sum(model.level_sizes[:-1])
    assert model.vocabulary.embedding[:n_learned].equal(pretrained.code_rows)
    fresh, _, _ = made(folder, init_from_tokenizer=False)
    assert fresh.codes.equal(model.codes)
    table, other = fresh.backbone.text_table.weight, model.backbone.text_table.weight
    assert table.shape == other.shape and not table.equal(other)
    assert not fresh.vocabulary.embedding[:n_learned].equal(pretrained.code_rows)


def test_every_id_token_is_one_token_behind_the_text(folder):
    model, _, _ = made(folder, codebook_sizes=[4, 4])
    assert model.level_sizes[2] > 4, "a leaf is larger than the codebook"
    tokens = model.text_and_codes.ids(model.codes[1:])
    assert int(tokens.min()) >= model.text_and_codes.n_text >= len(model.text_tokenizer)
    assert int(tokens.max()) < model.text_and_codes.n_text + len(model.vocabulary.embedding)
    assert len(tokens.unique(dim=0)) == model.n_items - 1
    for level, column in enumerate(tokens.unbind(1)):
        others = [tokens[:, other] for other in range(3) if other != level]
        assert not torch.isin(column, torch.cat(others)).any()


# --- search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["ids", "text"])
def test_a_wide_beam_is_exact(folder, source):
    model, config, _ = made(folder, rec_input=source, beam_width=60)
    history, length = users(model)
    beam = model.search(history, length, k=40)
    expected = exact_scores(model.item_logits(history, length), model.trie)[:, 1:]
    best, order = expected.sort(dim=1, descending=True)
    torch.testing.assert_close(beam.scores[:, :40], best, atol=1e-4, rtol=0)
    assert (beam.items[:, :40].sort().values == torch.arange(1, 41)).all()
    assert beam.items[:, :5].equal(order[:, :5] + 1)


def test_scores_of_all_items(folder):
    model, config, loaders = made(folder, score_mode="exact")
    batch = next(iter(loaders[2]))[0]
    scores = model.full_sort_predict(batch)
    assert scores.shape == (len(batch), model.n_items)
    assert (scores[:, 0] == -torch.inf).all() and torch.isfinite(scores[:, 1:]).all()
    item = torch.arange(len(batch)) % (model.n_items - 1) + 1
    given = Interaction({**batch.interaction, "item_id": item})
    torch.testing.assert_close(
        model.predict(given), scores.gather(1, item.unsqueeze(1)).squeeze(1), atol=1e-4, rtol=0
    )
    config["score_mode"] = "beam"
    config["beam_width"] = 10
    some = model.full_sort_predict(batch)
    assert torch.isfinite(some[:, 1:]).all()


# --- training, checkpoints, new items -------------------------------------------------------------


@pytest.mark.parametrize("source", ["ids", "both"])
def test_a_run_and_its_checkpoint(folder, tmp_path, monkeypatch, source):
    options = {**TINY_OF["LMIndexer"], "data_path": str(folder), "rec_input": source}
    options |= {"cache_dir": str(folder / "cache"), "checkpoint_dir": str(tmp_path)}
    result = run_recbole_genrec(model="LMIndexer", dataset="toy", config_dict=options)
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
    tokenizer = result["report"]["tokenizer"]
    assert len(tokenizer["positions"]) == 2 and 0 <= tokenizer["self_consistency"]["ids"] <= 1

    def refuse(self, content):
        raise AssertionError("the tokenizer ran again")

    monkeypatch.setattr(LMIndexerTokenizer, "fit", refuse)
    first = load_data_and_model(result["checkpoint"])
    second = load_data_and_model(result["checkpoint"])
    history, length = users(first[1])
    one, other = (found[1].eval().search(history, length) for found in (first, second))
    assert one.items.equal(other.items) and one.scores.equal(other.scores)


def test_new_items_are_reachable_and_others_keep_their_codes(folder):
    model, _, _ = made(folder, beam_width=60)
    before = model.codes.clone()
    text = model.content.text[5]
    history, length = users(model)
    old = exact_scores(model.item_logits(history, length), model.trie)
    (item,) = model.add_items([text], ["fresh"])
    assert model.codes[:-1].equal(before) and item == model.n_items - 1
    own = model.tokenizer.encode(NewItems([text]))[0]
    assert model.codes[item, :2].equal(own)
    result = model.search(history, length, k=41)
    assert (result.items == item).any(1).all()
    new = exact_scores(model.item_logits(history, length), model.trie)
    assert torch.equal(new[:, 1:-1], old[:, 1:])
    assert model.recommend(["fresh"], k=3)[0]["rank"] == 1


# --- the codes with other generators --------------------------------------------------------------


@pytest.mark.parametrize("name", ["TIGER", "LETTER", "TimelineRec", "LCRec"])
def test_other_generators_take_the_codes(folder, name):
    lmindexer = TINY_OF["LMIndexer"]
    own = {key: lmindexer[key] for key in ("indexer_config", "indexer_vocab_size", "stage_epochs")}
    own |= {"stage_lr": 0.003, "tok_max_len": [16, 16], "codebook_sizes": [8, 8]}
    cache = str(folder / "cache")
    kept = {key: value for key, value in TINY_OF[name].items() if key not in ("code_dim",)}
    config = {**kept, **own, "tokenizer": "lmindexer", "data_path": str(folder)}
    config = GenRecConfig(name, "toy", config_dict={**config, "cache_dir": cache})
    loaders = make_loaders(config, create_dataset(config), True)
    model = build_model(config, loaders[0]._dataset)
    reference, _, _ = made(folder)
    assert model.codes.equal(reference.codes), "the fit is shared"
    loss = model.calculate_loss(next(iter(loaders[0])))
    total = loss if isinstance(loss, torch.Tensor) else sum(loss)
    assert torch.isfinite(total)


# --- settings -----------------------------------------------------------------------------------


def test_the_language_model_is_the_tokenizers(folder):
    with pytest.raises(ConfigError, match="Write --indexer_backbone=some/t5"):
        toy_config(folder, "LMIndexer", backbone="some/t5")
    with pytest.raises(ConfigError, match="both views"):
        config = {**TINY_LM, "dropout_rate": 0.0}
        toy_config(folder, "LMIndexer", indexer_config=config)


def test_the_published_setting():
    options = {"preset": "paper", "gpu_id": ""}
    config = GenRecConfig("LMIndexer", "ml-100k", config_dict=options)
    assert config["indexer_backbone"] == "t5-base" and config["rec_input"] == "text"
    assert config["stage_epochs"] == [30, 30, 30] and config["beam_width"] == 20
