"""``item_vectors: F``: content vectors made elsewhere, instead of item texts or beside them."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.vectors import text_encoding
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.experiments.trained import evaluate, load_model, recommend
from recbole_genrec.model.registry import get_model_class
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect

N, WIDTH = 40, 6
NEW = np.full((1, WIDTH), 0.25, dtype=np.float32)
QUICK = {"hidden_sizes": [8], "code_dim": 4, "tokenizer_epochs": 1, "tokenizer_input": "text"}


def table() -> np.ndarray:
    """A vector for each of i0 .. i39."""
    return np.random.default_rng(5).normal(size=(N, WIDTH)).astype(np.float32)


def write_vectors(folder, rows=None, ids=None) -> str:
    np.save(folder / "emb.npy", table() if rows is None else rows)
    tokens = [f"i{n}" for n in range(N)] if ids is None else ids
    (folder / "emb.ids").write_text("\n".join(tokens))
    return str(folder / "emb.npy")


def expected(model) -> np.ndarray:
    """The vectors of the file in the order of the model's items; zeros for padding."""
    numbers = [int(token[1:]) for token in model.item_tokens[1:]]
    return np.concatenate([np.zeros((1, WIDTH)), table()[numbers]])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Interactions alone: no ``.item`` file."""
    folder = write_dataset(tmp_path_factory.mktemp("data"))
    (folder / "toy" / "toy.item").unlink()
    return folder


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def no_encoder(monkeypatch):
    def refuse(*_):
        raise AssertionError("no text is encoded")

    monkeypatch.setattr(text_encoding, "load_encoder", refuse)


def make(folder, cache, model="TIGER", **options):
    values = {"item_text_fields": None, "cache_dir": str(cache / "cache"), **options}
    return toy_model(folder, model, **values)


@pytest.mark.parametrize("tokenizer", ["rkmeans", "text-hierarchical", "rqvae", "mq", "letter"])
def test_every_tokenizer_of_vectors_reads_them(data, tmp_path, no_encoder, caplog, tokenizer):
    options = {"tokenizer": tokenizer, "item_vectors": write_vectors(tmp_path)}
    if tokenizer in ("rqvae", "mq", "letter"):
        options |= QUICK
    if tokenizer == "letter":
        options |= {"cf_epochs": 1, "cf_dim": 8, "n_clusters": 2}
    with caplog.at_level(logging.INFO):
        model, config, loaders = make(data, tmp_path, **options)
    np.testing.assert_array_equal(model.content.embeddings(), expected(model))
    assert model.item_codes.stats()["unique_ids"] == N
    assert "unchecked" not in caplog.text, "content says nothing about held-out interactions"
    summary = start_summary(config, loaders[0]._dataset)
    assert f"item vectors        {options['item_vectors']}, instead text" in summary
    assert "text encoder" not in summary


@pytest.mark.parametrize("model_name", ["LCRec", "LETTER", "TimelineRec", "TIGER"])
def test_every_method_gets_codes_of_them(data, tmp_path, no_encoder, model_name):
    options = {"item_vectors": write_vectors(tmp_path)}
    if model_name != "LETTER":  # has a tokenizer of its own
        options["tokenizer"] = "rkmeans"
    model, *_ = make(data, tmp_path, model_name, **options)
    assert model.tokenizer.scale.centre.shape == (WIDTH,)


def test_timelinerec_reads_them_in_the_place_of_texts(data, tmp_path, no_encoder):
    options = {"input_text": True, "item_vectors": write_vectors(tmp_path)}
    model, *_ = make(data, tmp_path, "TimelineRec", **options)
    known = expected(model)[1:]
    scaled = (known - known.mean(0)) / known.std(0)
    np.testing.assert_allclose(model.texts[1:].numpy(), scaled, atol=1e-4)


def test_self_improve_reads_them(data, tmp_path, no_encoder):
    from recbole_genrec.model.self_improve.content import content_source

    config = toy_config(data, "TIGER", item_text_fields=None, item_vectors="emb.npy")
    assert content_source(config) == "text"
    config = toy_config(data, "TIGER", item_text_fields=None)
    assert content_source(config) == "cf"


def test_beside_text_both_stand_in_one_row(with_texts, tmp_path):
    options = {"item_vectors": write_vectors(tmp_path), "item_vectors_use": "beside"}
    options |= {"item_text_fields": ["title"], "tokenizer": "rkmeans"}
    model, config, loaders = make(with_texts, tmp_path, **options)
    both = model.content.embeddings()
    assert both.shape == (N + 1, 384 + WIDTH)
    np.testing.assert_array_equal(both[:, 384:], expected(model))
    np.testing.assert_allclose(np.linalg.norm(both[1:, :384], axis=1), 1, atol=1e-5)
    summary = start_summary(config, loaders[0]._dataset)
    assert "beside text" in summary and "text encoder        default" in summary

    model.add_items(["a new soap"], ["new"], vectors=NEW)
    assert len(model.codes) == N + 2
    with pytest.raises(ConfigError, match="1 of 1 new items have no vector"):
        model.add_items(["another soap"], ["other"])


def test_beside_text_needs_texts(data, tmp_path):
    options = {"item_vectors": write_vectors(tmp_path), "item_vectors_use": "beside"}
    with pytest.raises(DataError, match="item_text_fields"):
        make(data, tmp_path, tokenizer="rkmeans", **options)


def test_another_file_gives_another_fit_and_another_run(data, tmp_path, no_encoder, caplog):
    options = {"tokenizer": "rkmeans", "item_vectors": write_vectors(tmp_path)}
    first, config, _ = make(data, tmp_path, **options)
    name = config.run_name()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again, *_ = make(data, tmp_path, **options)
    assert "not fitted again" in caplog.text
    assert torch.equal(again.codes, first.codes)

    write_vectors(tmp_path, table()[::-1].copy())
    assert config.run_name() != name
    other, *_ = make(data, tmp_path, **options)
    assert not torch.equal(other.codes, first.codes)


def test_without_the_key_names_and_stored_fits_stay(with_texts):
    config = toy_config(with_texts, "TIGER")
    content = config.plain()
    assert content["item_vectors"] is None
    from recbole_genrec.settings.classification import named_values

    names = named_values(config.declarations, content)
    assert not {"item_vectors", "item_vectors_use"} & set(names)


# case 45
def test_items_without_a_vector_are_counted_and_named(data, tmp_path, no_encoder, caplog):
    rows, ids = table()[:30], [f"i{n}" for n in range(30)]
    options = {"tokenizer": "rkmeans", "item_vectors": write_vectors(tmp_path, rows, ids)}
    make(data, tmp_path, **options)
    assert "emb.npy has no vector for 10 of 40 items (i3" in caplog.text
    options["item_vectors"] = write_vectors(tmp_path, rows[:19], ids[:19])
    with pytest.raises(DataError, match="has no vector for 21 of 40 items"):
        make(data, tmp_path, **options)


# --- new items ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_name", ["TIGER", "TimelineRec"])
def test_new_items_need_vectors_which_a_checkpoint_keeps(data, tmp_path, no_encoder, model_name):
    options = {"tokenizer": "rkmeans", "item_vectors": write_vectors(tmp_path)}
    if model_name == "TimelineRec":
        options["input_text"] = True
    model, *_ = make(data, tmp_path, model_name, **options)
    with pytest.raises(ConfigError, match=r"1 of 1 new items have no vector .*Give add_items"):
        model.add_items(["a new soap"], ["new"])
    assert len(model.codes) == N + 1, "nothing was half added"

    model.add_items(["a new soap"], ["new"], vectors=NEW)
    twin = model.item_tokens.index("i3")
    model.add_items(["a twin"], ["twin"], vectors=table()[[3]])
    assert model.codes[-1][:-1].equal(model.codes[twin][:-1])
    np.testing.assert_array_equal(model.content.embeddings()[-2:-1], NEW)

    config = toy_config(data, model_name, **model_options(tmp_path, options))
    train = make_loaders(config, create_dataset(config), True)[0]
    loaded = get_model_class(model_name).from_checkpoint(config, train._dataset, model.checkpoint())
    assert loaded.item_tokens[-2:] == ["new", "twin"]
    assert loaded.codes.equal(model.codes)
    np.testing.assert_array_equal(loaded.content.embeddings()[-2:-1], NEW)
    if model_name == "TimelineRec":
        assert loaded.texts.equal(model.texts)


def model_options(cache, options) -> dict:
    return {"item_text_fields": None, "cache_dir": str(cache / "cache"), **options}


def test_setrec_reads_them_and_takes_in_items_with_vectors(data, tmp_path, no_encoder):
    options = {"item_vectors": write_vectors(tmp_path)}
    model, *_ = make(data, tmp_path, "SETRec", **options)
    np.testing.assert_array_equal(model.content.embeddings(), expected(model))
    with pytest.raises(ConfigError, match="1 of 1 new items have no vector"):
        model.add_items(["a new soap"], ["new"])
    model.add_items(["a new soap"], ["new"], vectors=NEW)
    assert model.text_vectors.shape == (N + 2, WIDTH)
    np.testing.assert_array_equal(model.content.embeddings()[-1:], NEW)


def test_new_items_that_the_file_has_need_nothing(data, tmp_path, no_encoder):
    rows = np.concatenate([table(), NEW])
    file = write_vectors(tmp_path, rows, [*(f"i{n}" for n in range(N)), "new"])
    model, *_ = make(data, tmp_path, tokenizer="rkmeans", item_vectors=file)
    model.add_items(["a new soap"], ["new"])
    np.testing.assert_array_equal(model.content.embeddings()[-1:], NEW)


@pytest.mark.parametrize("model_name", ["TIGER", "SETRec"])
def test_an_item_without_a_vector_keeps_no_other_one_out(
    data, tmp_path, no_encoder, caplog, model_name
):
    rows = np.concatenate([table(), NEW])
    file = write_vectors(tmp_path, rows, [*(f"i{n}" for n in range(N)), "new"])
    options = {"item_vectors": file}
    if model_name == "TIGER":
        options["tokenizer"] = "rkmeans"
    model, *_ = make(data, tmp_path, model_name, **options)
    left_out = model.take_in(["", ""], ["bare", "new"], ["", ""], [["u1"], ["u2"]])
    assert left_out == ["bare"] and model.item_tokens[-1] == "new" and model.n_items == N + 2
    assert "1 new items of the data stay out of the lists, for example 'bare'" in caplog.text
    assert "emb.npy (item_vectors) has no vector of them" in caplog.text


def test_codes_that_read_no_content_take_in_items_with_vectors(data, tmp_path, no_encoder):
    options = {"tokenizer": "random", "item_vectors": write_vectors(tmp_path)}
    model, *_ = make(data, tmp_path, **options)
    model.add_items(["a new soap"], ["new"], vectors=NEW)
    assert len(model.codes) == N + 2


# --- a whole run, and collaborative vectors -------------------------------------------------------


def test_a_run_with_vectors_alone(data, tmp_path, no_encoder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = toy_config(data, "TIGER").plain()
    values = {name: config[name] for name in ("backbone_config", "codebook_sizes", "topk")}
    values |= {"data_path": str(data), "item_vectors": write_vectors(tmp_path), "epochs": 1}
    values |= {"tokenizer": "rkmeans", "show_progress": False, "gpu_id": ""}
    result = run_recbole_genrec("TIGER", "toy", config_dict=values)
    assert result["config"]["item_vectors"].endswith("emb.npy")
    assert result["test_result"]["recall@10"] >= 0


# case 45
def test_collaborative_vectors_of_some_items_say_which_are_missing(data, tmp_path, caplog):
    file = tmp_path / "emb.tsv"
    rows = [f"i{n}\t{' '.join(map(str, row))}" for n, row in enumerate(table()[:24])]
    file.write_text("\n".join(rows) + "\n")
    options = {"tokenizer_input": "cf", "allow_external_cf": True, "cf_file": str(file)}
    make(data, tmp_path, tokenizer="rkmeans", **options)
    assert "16 of 40 items have no collaborative vector" in caplog.text
    assert "They take the zero vector" in caplog.text


# case 45
def test_collaborative_vectors_of_an_array(data, tmp_path):
    options = {"tokenizer_input": "cf", "allow_external_cf": True, "tokenizer": "rkmeans"}
    model, *_ = make(data, tmp_path, cf_file=write_vectors(tmp_path), **options)
    np.testing.assert_array_equal(model.content.collaborative(), expected(model))
    (tmp_path / "emb.ids").unlink()
    with pytest.raises(DataError, match="without the ids that they belong to"):
        make(data, tmp_path / "other", cf_file=str(tmp_path / "emb.npy"), **options)


# --- what a checkpoint needs, and keys that nothing reads -----------------------------------------

IMPROVING = {"self_improve": True, "si_rounds": 0}
SERVING = {
    "input_text": ("TimelineRec", {"input_text": True}),
    "self_improve": ("TimelineRec", IMPROVING),
    "tiger": ("TIGER", IMPROVING),
    "codes alone": ("TIGER", {}),
    "setrec": ("SETRec", {}),
}


@pytest.mark.parametrize("name", SERVING)
def test_a_checkpoint_serves_without_the_file(data, tmp_path, no_encoder, name):
    model_name, options = SERVING[name]
    file = write_vectors(tmp_path)
    values = {**TINY_OF[model_name], **model_options(tmp_path, {"item_vectors": file, **options})}
    values |= {"data_path": str(data), "checkpoint_dir": str(tmp_path / "saved"), "epochs": 1}
    if model_name != "SETRec":
        values["tokenizer"] = "rkmeans"
    result = run_recbole_genrec(model_name, "toy", config_dict=values)
    here = recommend(result["checkpoint"], history=["i3", "i9"], k=5)
    tested = evaluate(result["checkpoint"], show_progress=False)["test_result"]

    for path in (tmp_path / "emb.npy", tmp_path / "emb.ids"):
        path.unlink()
    shutil.rmtree(tmp_path / "cache")
    assert recommend(result["checkpoint"], history=["i3", "i9"], k=5) == here
    assert evaluate(result["checkpoint"], show_progress=False)["test_result"] == tested
    nowhere = str(tmp_path / "nowhere")
    assert recommend(result["checkpoint"], history=["i3", "i9"], k=5, data_path=nowhere) == here

    model = load_model(result["checkpoint"]).model
    model.add_items(["a new soap"], ["new"], vectors=NEW)
    with pytest.raises(ConfigError, match="no vector in"):
        model.add_items(["another"], ["other"])
    with pytest.raises(ConfigError, match=r"shape \[1, 9\]"):
        model.add_items(["another"], ["other"], vectors=np.zeros((1, 9), dtype=np.float32))
    model.save(tmp_path / "more.pth")
    again = load_model(str(tmp_path / "more.pth")).model
    lists = [
        [(row["item"], row["score"]) for row in loaded.recommend(["i3"], k=42)]
        for loaded in (model, again)
    ]
    assert lists[0] == lists[1] and "new" in dict(lists[0])


UNREAD = {
    "STORE": {},
    "TokenRec": {},
    "LMIndexer": {},
    "TIGER": {"tokenizer": "random"},
    "SETRec": {"n_sem": 0, "n_cf": 1},
}


@pytest.mark.parametrize("model", UNREAD)
def test_vectors_that_nothing_reads_are_said(with_texts, tmp_path, caplog, model):
    options = {"item_text_fields": ["title"], "item_vectors": write_vectors(tmp_path)}
    make(with_texts, tmp_path, model, **options, **UNREAD[model])
    assert f"item_vectors does nothing: neither {model} nor its tokenizer reads" in caplog.text


@pytest.mark.parametrize("name", SERVING)
def test_vectors_that_are_read_say_nothing(data, tmp_path, no_encoder, caplog, name):
    model, options = SERVING[name]
    options = {"item_vectors": write_vectors(tmp_path), **options}
    make(data, tmp_path, model, **options)
    assert "does nothing" not in caplog.text


def test_models_of_recbole_say_that_they_read_none(data, tmp_path, caplog):
    values = {"data_path": str(data), "item_vectors": write_vectors(tmp_path)}
    create_dataset(GenRecConfig("SASRec", "toy", config_dict=values))
    assert "item_vectors does nothing for SASRec" in caplog.text


def test_tables_say_which_vectors_a_row_had(data, tmp_path, no_encoder):
    values = {**TINY_OF["TIGER"], "data_path": str(data), "item_vectors": write_vectors(tmp_path)}
    values |= {"tokenizer": "rkmeans", "epochs": 1, "result_file": str(tmp_path / "a.json")}
    run_recbole_genrec("TIGER", "toy", config_dict={**values, "item_text_fields": None})
    runs, _ = collect([tmp_path / "a.json"])
    details = make_rows(runs)[0]["details"]
    assert details["item_vectors"] == "emb.npy" and details["item_vectors_use"] == "instead"
