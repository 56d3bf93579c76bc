"""Damaged and exchanged files of SETRec, MetaID and LMIndexer, whose artefacts differ from STORE's:
vectors and no codes, codes of users beside items, the weights of a language model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from counts import REFUSED, tried
from damage import Trained, damaged

from recbole_genrec.errors import ArtefactError, GenRecError
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.storage.artefacts import META, load_artefact, save_artefact
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint

METHODS = ["SETRec", "MetaID", "LMIndexer"]


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory) -> Iterator[Trained]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("trained")
        patch.chdir(home)
        yield Trained(home, request.param)


@pytest.fixture
def copy(trained, tmp_path) -> Trained:
    """A copy that a test may damage."""
    return trained.copy(tmp_path / "copy")


def test_damaged_artefacts(copy):
    folders = copy.artefacts()
    assert len(folders) >= 2
    for folder in folders:
        for file in (folder / META, next(folder.glob("tensors-*"))):
            damaged(file, lambda folder=folder: load_artefact(folder), 12)


@pytest.mark.parametrize("which", ["checkpoint", "resume"])
def test_damaged_checkpoints(copy, which):
    file = getattr(copy, which)
    damaged(file, lambda: load_checkpoint(file), 12)


def test_a_run_never_uses_a_damaged_artefact(copy):
    """Each artefact of the cache loses its end; the next run says so and names the folder."""
    for folder in copy.artefacts():
        if not folder.is_relative_to(copy.home / "cache"):
            continue
        file = next(folder.glob("tensors-*"))
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with tried(REFUSED):
            try:
                result = copy.run()
            except ArtefactError as error:
                assert folder.name in str(error)  # noqa: PT017
            else:
                assert result["test_result"] == copy.result["test_result"]
        file.write_bytes(content)


def test_every_tensor_of_an_artefact_is_missed(copy):
    """With right checksums: a tensor is gone, has another shape, or is not finite."""
    for folder in copy.artefacts():
        if not folder.is_relative_to(copy.home / "cache"):
            continue
        tensors, meta = load_artefact(folder)
        whole = copy.home / "whole"
        shutil.copytree(folder, whole)
        for name, tensor in tensors.items():
            others = {key: value for key, value in tensors.items() if key != name}
            wrong = [others, {**others, name: tensor.new_zeros([*tensor.shape, 2])}]
            if tensor.is_floating_point():
                wrong.append({**others, name: torch.full_like(tensor, float("nan"))})
            for content in wrong:
                shutil.rmtree(folder, ignore_errors=True)
                save_artefact(folder, content, meta)
                if folder.parent.name == "text-embeddings":
                    assert copy.run()["test_result"] == copy.result["test_result"]
                    continue
                kind = folder.relative_to(copy.home / "cache").parts[0].partition("-")[0]
                with tried(REFUSED), pytest.raises(ArtefactError, match=kind):
                    copy.run()
        shutil.rmtree(folder)
        shutil.move(whole, folder)


NEEDED = {
    "SETRec": ["added", "widths"],
    "MetaID": ["added", "item_codes", "tokenizer"],
    "LMIndexer": ["added", "item_codes", "tokenizer"],
}
WRONG = {"gone": ..., "nothing": None, "text": "x", "tensor": torch.zeros(3)}


@pytest.mark.parametrize("wrong", WRONG)
def test_checkpoints_with_a_wrong_part(copy, wrong):
    """Each entry that a method needs beside its weights, one after another."""
    path = copy.home / "wrong.pth"
    for key in NEEDED[copy.model]:
        state = load_checkpoint(copy.checkpoint)
        state["other_parameter"][key] = WRONG[wrong]
        if wrong == "gone":
            del state["other_parameter"][key]
        save_checkpoint(path, state)
        with tried(REFUSED), pytest.raises(GenRecError, match=r"wrong\.pth"):
            load_data_and_model(str(path))
