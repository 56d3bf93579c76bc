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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from counts import REFUSED, tried
from toy import TINY, write_dataset

from recbole_genrec.data.text_encoder import encode_texts
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.single import SingleRun
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
from recbole_genrec.tokenizer.simple import StoredCodes

write = SingleRun.write


def write_and_keep_resume_file(self, result: dict) -> None:
    """The end of a run, after which the resume file is there again, as if the run had stopped."""
    content = self.trainer.resume_points.file.read_bytes()
    write(self, result)
    self.trainer.resume_points.file.write_bytes(content)


class Trained:
    """A finished run, and settings for more of them in the same folder."""

    def __init__(self, home: Path) -> None:
        self.home, self.data = home, write_dataset(home / "data")
        self.result = self.run()
        self.checkpoint = Path(self.result["checkpoint"])
        self.resume = self.checkpoint.with_suffix(".resume.pth")
        (self.store,) = (home / "cache").glob("store-*")

    def run(self, data: Path | None = None, **changes) -> dict:
        folders = {
            "cache_dir": str(self.home / "cache"),
            "checkpoint_dir": str(self.home / "saved"),
            "data_path": str(data or self.data),
        }
        settings = {
            **TINY,
            **folders,
            "epochs": 1,
            "tokenizer_epochs": 1,
            "save_ranks": True,
            **changes,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SingleRun, "write", write_and_keep_resume_file)
            return run_recbole_genrec("STORE", "toy", config_dict=settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Trained]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("trained")
        patch.chdir(home)
        yield Trained(home)


@pytest.fixture
def copy(trained, tmp_path) -> Trained:
    """A copy that a test may damage."""
    own = object.__new__(Trained)
    own.home, own.data = tmp_path / "own", trained.data
    shutil.copytree(trained.home / "cache", own.home / "cache")
    shutil.copytree(trained.home / "saved", own.home / "saved")
    own.result = trained.result
    own.checkpoint, own.resume = (
        own.home / "saved" / path.name for path in (trained.checkpoint, trained.resume)
    )
    own.store = own.home / "cache" / trained.store.name
    return own


# --- bits and bytes -------------------------------------------------------------------------------


def flip(content: bytearray, draw: random.Random) -> None:
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8


def truncate(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def zero(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    length = min(512, len(content) - start)
    content[start : start + length] = bytes(length)


def shift(content: bytearray, draw: random.Random) -> None:
    content.insert(draw.randrange(len(content)), draw.randrange(256))


def mix(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    content[start : start + 64] = draw.randbytes(64)


def flip_near_an_end(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(min(600, len(content)))
    content[at if draw.random() < 0.5 else -1 - at] ^= 1 << draw.randrange(8)


DAMAGES = (flip, truncate, zero, shift, mix, flip_near_an_end)


def same(a: object, b: object) -> bool:
    """Whether two values read from files are equal, tensors included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def damaged(file: Path, load: Callable[[], object], cases: int) -> None:
    """Damage ``file`` in many ways; ``load`` must refuse it or give what it gives without
    damage, and leave it alone.
    """
    whole, expected = file.read_bytes(), load()
    assert same(expected, load())
    for case in range(cases):
        content = bytearray(whole)
        DAMAGES[case % len(DAMAGES)](content, random.Random(f"{file.name} {case}"))
        file.write_bytes(content)
        with tried(REFUSED):
            try:
                assert same(load(), expected), f"{file} case {case} was read with other content"
            except ArtefactError as error:
                assert len(str(error)) > 40
            assert file.read_bytes() == content
    file.write_bytes(whole)


@pytest.mark.parametrize("part", ["codes", "tokenizer", "ranks"])
@pytest.mark.parametrize("which", ["meta", "tensors"])
def test_damaged_artefacts(copy, part, which):
    folder = copy.store / part if part != "ranks" else copy.checkpoint.with_suffix(".ranks")
    file = folder / META if which == "meta" else next(folder.glob("tensors-*"))
    damaged(file, lambda: load_artefact(folder), 24)


@pytest.mark.parametrize("which", ["checkpoint", "resume"])
def test_damaged_checkpoints(copy, which):
    file = getattr(copy, which)
    damaged(file, lambda: load_checkpoint(file), 36)


def test_damaged_json(copy):
    file = copy.store / "made-for.json"
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
    (other,) = (path for path in (copy.home / "cache").glob("store-*") if path != copy.store)
    shutil.rmtree(other)
    shutil.copytree(copy.store, other)
    with (
        tried(REFUSED),
        pytest.raises(
            ArtefactError, match="was renamed or replaced: its codes belong to other items"
        ),
    ):
        copy.run(seed=7)


def test_the_parts_of_a_stored_tokenizer_exchanged(copy):
    (copy.store / "codes").rename(copy.store / "other")
    (copy.store / "tokenizer").rename(copy.store / "codes")
    (copy.store / "other").rename(copy.store / "tokenizer")
    with tried(REFUSED), pytest.raises(ArtefactError, match="not item codes"):
        copy.run()


@pytest.mark.parametrize("which", ["checkpoint", "resume"])
def test_the_files_of_another_run(copy, monkeypatch, which):
    other = Path(copy.run(code_lr=0.01)["checkpoint"])
    shutil.copy(
        other if which == "checkpoint" else other.with_suffix(".resume.pth"), getattr(copy, which)
    )
    if which == "checkpoint":  # training would write it anew
        monkeypatch.setattr(
            "recbole_genrec.training.trainer.GenRecTrainer._save_checkpoint", lambda *_, **__: None
        )
    with tried(REFUSED), pytest.raises(ArtefactError, match="belongs to STORE-toy-.*another run"):
        copy.run(resume=True)


def test_text_embeddings_of_other_texts_are_made_again(tmp_path, monkeypatch):
    class Encoder:
        def encode(self, texts, **_):
            return torch.tensor([[float(len(text)), 1.0] for text in texts]).numpy()

    monkeypatch.setattr("recbole_genrec.data.text_encoder._load_encoder", lambda *_: Encoder())
    first, second = ["", "red", "green"], ["", "blue", "yellow"]
    expected = encode_texts(second, cache_dir=tmp_path)
    (own,) = tmp_path.glob("text-embeddings/*")
    encode_texts(first, cache_dir=tmp_path)
    (foreign,) = (path for path in tmp_path.glob("text-embeddings/*") if path != own)
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    with tried(REFUSED):
        assert (encode_texts(second, cache_dir=tmp_path) == expected).all()


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
