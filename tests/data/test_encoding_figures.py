"""What a sentence encoder cannot read of texts is counted and said."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from language_models import save_base
from toy import toy_model, write_dataset
from transformers import BertConfig, BertModel, BertTokenizer

from recbole_genrec.data.vectors.encoding_figures import different_vectors
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import GenRecError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "nail", "oil", "blue"]
COSMETICS = "玫瑰芦荟保湿面霜洁面乳精华液口红眼影"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT that knows four words and reads twelve tokens."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 12}
    BertModel(BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained(folder)
    return str(folder)


def said(encoder, texts, caplog, **options) -> list[logging.LogRecord]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        TextEncoding(encoder, show_progress=False).vectors(texts, **options)
    return [record for record in caplog.records if "loses part" in record.message]


def test_unknown_words_and_equal_vectors_are_counted(encoder, caplog):
    texts = ["", "red oil", "red shampoo", "red cream", "blue nail", "red shampoo"]
    (record,) = said(encoder, texts, caplog)
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"text_encoder: {encoder} loses part")
    assert "2 of 4 different texts (50.0%) got the same vector as another" in record.message
    assert "2 of 8 words (25.0%) are unknown" in record.message
    assert "cut" not in record.message


def test_texts_that_are_cut_are_counted(encoder, caplog):
    shared = "red " * 10
    texts = [f"{shared}oil", f"{shared}nail oil", "blue oil"]
    (record,) = said(encoder, texts, caplog)
    assert "2 of 3 texts (66.7%) are longer than the encoder's 12 tokens" in record.message
    assert "2 of 3 different texts (66.7%) got the same vector" in record.message
    assert "unknown" not in record.message


def test_nothing_is_said_of_texts_that_are_read_whole(encoder, caplog):
    assert not said(encoder, ["", "red oil", "blue oil", "red oil"], caplog)


def test_little_loss_is_no_warning(encoder, caplog):
    kinds = ["red", "oil", "blue", "nail"]
    texts = [f"{a} {b} {c} {d}" for a in kinds for b in kinds for c in kinds for d in kinds]
    (record,) = said(encoder, [*texts, "red soap"], caplog)
    assert record.levelname == "INFO" and "1 of 1026 words" in record.message


def test_the_warning_comes_again_with_stored_embeddings(encoder, caplog, tmp_path):
    texts = ["", "red shampoo", "red cream"]
    first = said(encoder, texts, caplog, cache_dir=tmp_path)
    again = said(encoder, texts, caplog, cache_dir=tmp_path)
    assert [r.message for r in first] == [r.message for r in again] and len(again) == 1


def test_stored_embeddings_of_earlier_versions_have_no_figures(encoder, caplog, tmp_path):
    texts = ["", "red shampoo", "red cream"]
    said(encoder, texts, caplog, cache_dir=tmp_path)
    (file,) = tmp_path.rglob("meta.json")
    tensors, meta = load_artefact(file.parent)
    assert meta.pop("figures")["unknown"] == 2
    save_artefact(file.parent, tensors, meta)
    (record,) = said(encoder, texts, caplog, cache_dir=tmp_path)
    assert "2 of 2 different texts" in record.message and "unknown" not in record.message


def test_rounding_makes_no_vectors_different():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(200, 32)).astype(np.float32)
    twins = rows[:50] + draw.normal(size=(50, 32)).astype(np.float32) * 1e-7
    assert different_vectors(rows) == 200
    assert different_vectors(np.concatenate([rows, twins])) == 150
    assert different_vectors(rows[:1]) == 1
    assert different_vectors(np.ones((5, 3), dtype=np.float32)) == 0


# case 41
def test_item_texts_in_a_language_that_the_encoder_does_not_know(tmp_path, caplog):
    data = write_dataset(tmp_path)
    file = tmp_path / "toy" / "toy.item"
    rows = [f"i{n}\t{COSMETICS[n % 9]}{COSMETICS[n % 7 + 9]}\tb" for n in range(40)]
    file.write_text("\n".join(["item_id:token\ttitle:token_seq\tbrand:token", *rows]) + "\n")
    options = {"item_text_fields": ["title"], "cache_dir": str(tmp_path / "cache")}
    with caplog.at_level(logging.WARNING):
        toy_model(data, "TIGER", **options)
    assert "text_encoder: default loses part of the item texts" in caplog.text
    assert "unknown" in caplog.text


# case 42
def test_texts_that_differ_after_the_end_of_the_encoder(tmp_path, caplog):
    data = write_dataset(tmp_path)
    file = tmp_path / "toy" / "toy.item"
    rows = [f"i{n}\t{'the same words ' * 90}{n}\tb" for n in range(40)]
    file.write_text("\n".join(["item_id:token\ttitle:token_seq\tbrand:token", *rows]) + "\n")
    options = {"item_text_fields": ["title"], "cache_dir": str(tmp_path / "cache")}
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(GenRecError, match="collapsed: 40 of 40 items .* that text_encoder knows"),
    ):
        toy_model(data, "TIGER", **options)
    assert "40 of 40 texts (100.0%) are longer than the encoder's 256 tokens" in caplog.text


def without_padding(folder, end: bool) -> str:
    """A causal language model whose tokenizer has no padding token, and no end token either."""
    base = save_base(folder, "qwen3")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for name in ("pad_token",) if end else ("pad_token", "eos_token"):
        settings.pop(name)
    file.write_text(json.dumps(settings))
    return base


# case 44
@pytest.mark.parametrize(
    "end, message",
    [
        (True, "has no padding token; its end token <sep> is used"),
        (False, "has no padding token"),  # it gets a token that nothing reads
    ],
)
def test_an_encoder_without_a_padding_token_reads_texts_as_if_alone(tmp_path, caplog, end, message):
    encoding = TextEncoding(without_padding(tmp_path, end=end), show_progress=False)
    texts = ["red soap", "a soft brush for dry skin"]
    with caplog.at_level(logging.INFO):
        together = encoding.vectors(texts)
    assert message in caplog.text
    alone = np.concatenate([encoding.vectors([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
