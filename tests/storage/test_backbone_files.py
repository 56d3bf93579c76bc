"""What a checkpoint keeps of a language model's folder, and what tells two folders apart."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from recbole_genrec.backbone.sources import backbone_identity, is_identity_of
from recbole_genrec.backbone.text_vocabulary import token_ids, train_text_vocabulary
from recbole_genrec.storage.backbone_files import small_files, stand_in
from recbole_genrec.storage.digests import folder_fingerprint

MIB = 2**20


def test_a_tokenizer_of_sentencepiece_is_kept_as_text(tmp_path, monkeypatch):
    words = train_text_vocabulary(["red soap", "green soap"], 300)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\x00")
    with monkeypatch.context() as patch:
        patch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: words)
        files = small_files(str(tmp_path))
    with stand_in(files) as folder:
        again = AutoTokenizer.from_pretrained(folder)
    assert token_ids(again, "red soap") == token_ids(words, "red soap")


def test_a_tokenizer_that_nothing_can_read_is_left_out(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "spiece.model").write_bytes(b"\xff\x00")
    assert set(small_files(str(tmp_path))) == {"config.json"}


@pytest.mark.parametrize("size", [5 * MIB, 40 * MIB])
def test_weights_that_differ_inside_are_told_apart(tmp_path, size):
    file = tmp_path / "model.safetensors"
    content = bytearray(size)
    file.write_bytes(content)
    names = [folder_fingerprint(tmp_path), folder_fingerprint(tmp_path, ends_only=True)]
    content[2 * MIB : 3 * MIB] = b"\1" * MIB
    file.write_bytes(content)
    assert folder_fingerprint(tmp_path) != names[0]
    assert folder_fingerprint(tmp_path, ends_only=True) == names[1]


def test_an_identity_of_an_earlier_version_still_names_its_weights(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(5 * MIB))
    earlier = folder_fingerprint(tmp_path, ends_only=True)
    assert earlier != backbone_identity(str(tmp_path))
    assert is_identity_of(earlier, str(tmp_path))
    assert is_identity_of(backbone_identity(str(tmp_path)), str(tmp_path))
    file.write_bytes(b"\1" + bytes(5 * MIB - 1))
    assert not is_identity_of(earlier, str(tmp_path))
    assert is_identity_of("scratch", "scratch") and not is_identity_of(earlier, "scratch")
