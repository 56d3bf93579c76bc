"""Damaged, swapped and foreign files: refused with a sentence, or read with the content they
were written with; never anything between.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from counts import REFUSED, tried
from damage import Trained, damaged, mix, truncate

from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError, GenRecError
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.storage.artefacts import (
    META,
    load_artefact,
    read_json,
    save_artefact,
    write_json,
)
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.stored_codes import StoredCodes


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Trained]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("trained")
        patch.chdir(home)
        yield Trained(home)


@pytest.fixture
def copy(trained, tmp_path) -> Trained:
    """A copy that a test may damage."""
    return trained.copy(tmp_path / "copy")


# --- bits and bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["codes", "tokenizer", "ranks"])
@pytest.mark.parametrize("which", ["meta", "tensors"])
def test_damaged_artefacts(copy, part, which):
    folder = copy.stores[0] / part if part != "ranks" else copy.checkpoint.with_suffix(".ranks")
    file = folder / META if which == "meta" else next(folder.glob("tensors-*"))
    damaged(file, lambda: load_artefact(folder), 24)


@pytest.mark.parametrize("which", ["checkpoint", "resume"])
def test_damaged_checkpoints(copy, which):
    file = getattr(copy, which)
    damaged(file, lambda: load_checkpoint(file), 36)


def test_damaged_json(copy):
    file = copy.stores[0] / "made-for.json"
    for case in range(24):
        content = bytearray(file.read_bytes())
        (truncate, mix)[case % 2](content, random.Random(case))
        (copy.home / "damaged.json").write_bytes(content)
        with tried(REFUSED):
            try:
                assert isinstance(read_json(copy.home / "damaged.json"), dict)
            except ArtefactError as error:
                assert "Delete it" in str(error)


# --- swapped --------------------------------------------------------------------------------------


def test_a_stored_tokenizer_under_the_name_of_another(copy):
    copy.run(seed=7)
    (other,) = (path for path in (copy.home / "cache").glob("store-*") if path != copy.stores[0])
    shutil.rmtree(other)
    shutil.copytree(copy.stores[0], other)
    with (
        tried(REFUSED),
        pytest.raises(
            ArtefactError, match="was renamed or replaced: its codes belong to other items"
        ),
    ):
        copy.run(seed=7)


def test_the_parts_of_a_stored_tokenizer_exchanged(copy):
    (copy.stores[0] / "codes").rename(copy.stores[0] / "other")
    (copy.stores[0] / "tokenizer").rename(copy.stores[0] / "codes")
    (copy.stores[0] / "other").rename(copy.stores[0] / "tokenizer")
    with tried(REFUSED), pytest.raises(ArtefactError, match="not item codes"):
        copy.run()


@pytest.mark.parametrize("which", ["checkpoint", "resume"])
def test_the_files_of_another_run(copy, monkeypatch, which):
    other = Path(copy.run(code_lr=0.01)["checkpoint"])
    shutil.copy(
        other if which == "checkpoint" else other.with_suffix(".resume.pth"), getattr(copy, which)
    )
    if which == "checkpoint":  # training would write it anew
        monkeypatch.setattr("recbole_genrec.training.evaluation.write_checkpoint", lambda *_: None)
    with tried(REFUSED), pytest.raises(ArtefactError, match="belongs to STORE-toy-.*another run"):
        copy.run(resume=True)


def test_text_embeddings_of_other_texts_are_made_again(tmp_path, monkeypatch):
    class Encoder:
        def encode(self, texts, **_):
            return torch.tensor([[float(len(text)), 1.0] for text in texts]).numpy()

    monkeypatch.setattr(
        "recbole_genrec.data.vectors.text_encoding.load_encoder", lambda *_: Encoder()
    )
    first, second = ["", "red", "green"], ["", "blue", "yellow"]
    encoding = TextEncoding()
    expected = encoding.vectors(second, tmp_path)
    (own,) = tmp_path.glob("text-embeddings/*")
    encoding.vectors(first, tmp_path)
    (foreign,) = (path for path in tmp_path.glob("text-embeddings/*") if path != own)
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    with tried(REFUSED):
        assert (encoding.vectors(second, tmp_path) == expected).all()


# --- made by hand: checksums are right, the content is not ----------------------------------------


def raw_artefact(folder: Path, blob: bytes, meta: dict | None = None) -> None:
    """An artefact whose checksums fit any content, as an attacker can make it."""
    checksum = hashlib.sha256(blob).hexdigest()
    name = f"tensors-{checksum[:12]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(blob)
    write_json(
        folder / META,
        {
            "tensors": name,
            "sha256": checksum,
            "meta_digest": digest(meta or {}, size=64),
            "meta": meta or {},
        },
    )


def safetensors(header: object, data: bytes = bytes(64), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(**changes) -> dict:
    return {"codes": {"dtype": "I64", "shape": [4, 2], "data_offsets": [0, 64], **changes}}


LIES = {
    "offsets beyond the file": safetensors(tensor(data_offsets=[0, 2**40])),
    "offsets backwards": safetensors(tensor(data_offsets=[64, 0])),
    "offsets negative": safetensors(tensor(data_offsets=[-8, 56])),
    "offsets of less than the shape": safetensors(tensor(data_offsets=[0, 8])),
    "huge shape": safetensors(tensor(shape=[2**40, 2**40])),
    "negative shape": safetensors(tensor(shape=[-4, 2])),
    "unknown dtype": safetensors(tensor(dtype="OBJECT")),
    "dtype of another size": safetensors(tensor(dtype="F64", shape=[8, 2])),
    "overlapping tensors": safetensors({**tensor(), "more": tensor()["codes"]}),
    "a hole": safetensors(tensor(data_offsets=[8, 72]), bytes(72)),
    "header longer than the file": safetensors(tensor(), length=10**6),
    "header longer than memory": safetensors(tensor(), length=2**63 - 1),
    "header of no length": safetensors(b"", b"", length=0),
    "no JSON": safetensors(b"{codes}"),
    "not UTF-8": safetensors(b'{"\xff": {}}'),
    "a list": safetensors([1, 2]),
    "an endless nest": safetensors(b"[" * 100_000),
    "metadata that is no text": safetensors({"__metadata__": {"a": 1}, **tensor()}),
    "nothing": b"",
    "seven bytes": b"1234567",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_header_that_lies(tmp_path, lie):
    raw_artefact(tmp_path / "codes", LIES[lie])
    with (
        tried(REFUSED),
        pytest.raises(ArtefactError, match=r"no safetensors file.*Delete the folder"),
    ):
        load_artefact(tmp_path / "codes")


@pytest.mark.parametrize(
    "lie", ["offsets beyond the file", "huge shape", "header longer than memory", "nothing"]
)
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_a_backbone_whose_weights_lie(tmp_path, kind, lie):
    from recbole_genrec.backbone import load_encoder_decoder
    from recbole_genrec.backbone.causal.load import load_causal_lm

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").write_bytes(LIES[lie])
    with tried(REFUSED), pytest.raises(BackboneError, match="cannot be loaded"):
        (load_causal_lm if kind == "opt" else load_encoder_decoder)(str(tmp_path))


GOOD = {
    "kind": "item_codes",
    "sizes": [4, 4],
    "tokens": ["[PAD]", "a", "b"],
    "stats_before": {"levels": 2},
    "policy": ["none"],
}


@pytest.mark.parametrize(
    "meta",
    [{key: value for key, value in GOOD.items() if key != gone} for gone in GOOD],
    ids=[*GOOD],
)
def test_stored_codes_without_a_part(tmp_path, meta):
    save_artefact(tmp_path / "codes", {"codes": torch.zeros(3, 2, dtype=torch.long)}, meta)
    with tried(REFUSED), pytest.raises(ArtefactError):
        StoredCodes({"tokenizer": str(tmp_path)}, 0).fit(None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": "4"}, {"sizes": [4]}, {"sizes": None}, {"sizes": [4, "x"]},
        {"tokens": ["[PAD]", "a", "a"]}, {"tokens": 3}, {"tokens": ["a", "b", "c"]},
        {"policy": ["bogus"]}, {"policy": 7}, {"kind": "other"}, {"stats_before": 5},
    ],
    ids=str,
)  # fmt: skip
def test_stored_codes_with_wrong_parts(tmp_path, changes):
    save_artefact(tmp_path, {"codes": torch.tensor([[0, 0], [1, 2], [3, 3]])}, {**GOOD, **changes})
    with tried(REFUSED), contextlib.suppress(ArtefactError, ConfigError):
        assert ItemCodes.load(tmp_path).stats_before == 5  # read, and of no consequence


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(3, 2),
        torch.full((3, 2), -1),
        torch.full((3, 2), 99),
        torch.zeros(3, dtype=torch.long),
    ],
)
def test_stored_codes_with_wrong_numbers(tmp_path, codes):
    save_artefact(tmp_path, {"codes": codes}, GOOD)
    with tried(REFUSED), pytest.raises(ArtefactError, match="unusable"):
        ItemCodes.load(tmp_path)


def test_ranks_that_are_none(tmp_path):
    save_artefact(tmp_path, {"ranks": torch.zeros(2)}, {"users": ["a"], "depth": 3})
    with tried(REFUSED), pytest.raises(ArtefactError, match="no test ranks"):
        UserRanks.load(tmp_path)


WRONG = {"gone": ..., "nothing": None, "text": "x", "list": [], "tensor": torch.zeros(3)}


@pytest.mark.parametrize("key", ["config", "state_dict", "other_parameter"])
@pytest.mark.parametrize("wrong", WRONG)
def test_checkpoints_with_a_wrong_part(copy, key, wrong):
    state = load_checkpoint(copy.checkpoint)
    state[key] = WRONG[wrong]
    if wrong == "gone":
        del state[key]
    path = copy.home / "wrong.pth"
    save_checkpoint(path, state)
    with tried(REFUSED), pytest.raises(GenRecError):
        load_data_and_model(str(path))


@pytest.mark.parametrize("key", ["item_codes", "tokenizer", "added"])
@pytest.mark.parametrize("wrong", ["gone", "text"])
def test_checkpoints_with_a_wrong_code_table(copy, key, wrong):
    state = load_checkpoint(copy.checkpoint)
    state["other_parameter"][key] = "x"
    if wrong == "gone":
        del state["other_parameter"][key]
    path = copy.home / "wrong.pth"
    save_checkpoint(path, state)
    with tried(REFUSED), pytest.raises(ArtefactError, match=r"wrong\.pth cannot be used"):
        load_data_and_model(str(path))


@pytest.mark.parametrize(
    "key",
    ["dataset", "data_path", "model", "tokenizer", "train_neg_sample_args", "topk", "eval_args"],
)
@pytest.mark.parametrize("value", ["../../etc", None, 7, ["x"]], ids=str)
def test_checkpoints_with_wrong_settings(copy, key, value):
    state = load_checkpoint(copy.checkpoint)
    state["config"][key] = value
    path = copy.home / "wrong.pth"
    save_checkpoint(path, state)
    before = sorted(copy.home.parent.rglob("*"))
    with tried(REFUSED), pytest.raises(GenRecError):
        load_data_and_model(str(path))
    assert sorted(copy.home.parent.rglob("*")) == before


@pytest.mark.parametrize("key", ["optimizer", "random", "loader", "epoch", "history", "run"])
@pytest.mark.parametrize("wrong", ["gone", "text"])
def test_resume_files_with_a_wrong_part(copy, key, wrong):
    state = load_checkpoint(copy.resume)
    state[key] = "x"
    if wrong == "gone":
        del state[key]
    save_checkpoint(copy.resume, state)
    with tried(REFUSED), pytest.raises(ArtefactError):
        copy.run(resume=True)
