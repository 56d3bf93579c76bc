"""Files on disk: atomic, with ordinary permissions, and refused when damaged or edited."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.artefacts import (
    META,
    check_finite,
    check_tensors,
    load_artefact,
    read_json,
    save_artefact,
    write_json,
)
from recbole_genrec.storage.atomic import atomic_write, check_writable
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint_folder
from recbole_genrec.storage.digests import digest

TENSORS = {
    "codes": torch.arange(6).view(2, 3),
    "scale": torch.tensor(0.5),
    "none": torch.empty(0, 4),
}
DETAILS = {"sizes": (4, 8), "by_level": {10: "b", 2: "a"}, "name": "é", "nothing": None}


@pytest.fixture
def folder(tmp_path):
    save_artefact(tmp_path / "stored", TENSORS, DETAILS)
    return tmp_path / "stored"


def edit_header(folder, **changes):
    header = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**header, **changes}))


def blob(folder):
    (found,) = folder.glob("tensors-*.safetensors")
    return found


# --- atomic_write ---------------------------------------------------------------------------------


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent and temporary != path
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_first_write_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {("a", "tuple"): 1})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_to_write(tmp_path):
    check_writable(tmp_path / "new.json")
    with pytest.raises(
        ArtefactError, match="is a folder, and a file is to be written. Name a file"
    ):
        check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_new_files_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "file.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == mode


# --- JSON and digests -----------------------------------------------------------------------------


def test_json_round_trip_is_readable_text(tmp_path):
    write_json(tmp_path / "file.json", {"title": "Amélie"})
    assert read_json(tmp_path / "file.json") == {"title": "Amélie"}
    assert "Amélie" in (tmp_path / "file.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe{}"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"file\.json is damaged"):
        read_json(path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"names": {}}', "[" * 100_000])
def test_the_advice_is_that_of_the_caller(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(
        ArtefactError, match=r"file\.json is damaged .*\. Make it yourself\."
    ) as error:
        read_json(path, {"names": list}, "Make it yourself.")
    assert "Delete" not in str(error.value)
    with pytest.raises(ArtefactError, match="Delete it; it is made again"):
        read_json(path, {"names": list})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "it has no 'names'"),
        ({"names": None}, "'names' is not a list"),
        ({"names": "ab", "count": 1}, "'names' is not a list"),
        ({"names": []}, "it has no 'count'"),
        ({"names": [], "count": "1"}, "'count' is not a whole number"),
    ],
)
def test_required_names_and_types(tmp_path, content, reason):
    path = tmp_path / "file.json"
    write_json(path, content)
    with pytest.raises(ArtefactError, match=reason):
        read_json(path, {"names": list, "count": int})
    write_json(path, {"names": [], "count": 1})
    assert read_json(path, {"names": list, "count": int}) == {"names": [], "count": 1}


def test_a_file_that_cannot_be_read_is_not_to_be_deleted(tmp_path):
    with pytest.raises(ArtefactError, match="cannot be read") as error:
        read_json(tmp_path)
    assert "Delete" not in str(error.value)


def test_digest_depends_on_content_only():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert digest("a", "b") != digest("ab") and len(digest("a", size=8)) == 8


# --- artefacts ------------------------------------------------------------------------------------


def test_round_trip(folder):
    tensors, meta = load_artefact(folder)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    assert meta == {
        "sizes": [4, 8],
        "by_level": {"10": "b", "2": "a"},
        "name": "é",
        "nothing": None,
    }


def test_saving_again_replaces_the_tensors(folder):
    save_artefact(folder, {"codes": torch.ones(2)}, {})
    tensors, meta = load_artefact(folder)
    assert torch.equal(tensors["codes"], torch.ones(2)) and meta == {}
    assert sorted(path.name for path in folder.iterdir()) == sorted([META, blob(folder).name])


def test_truncated_tensors(folder):
    blob(folder).write_bytes(blob(folder).read_bytes()[:-1])
    with pytest.raises(
        ArtefactError, match=r"tensors-.* is truncated or was edited.*Delete the folder"
    ):
        load_artefact(folder)


def test_edited_tensors(folder):
    content = bytearray(blob(folder).read_bytes())
    content[-1] ^= 1
    blob(folder).write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match="truncated or was edited"):
        load_artefact(folder)


def test_an_artefact_that_nothing_makes_again_has_its_own_advice(folder):
    advice = "Copy it again."
    damage = [lambda: check_finite(folder, {"codes": torch.tensor(torch.nan)}, advice)]
    blob(folder).write_bytes(b"")
    damage.append(lambda: load_artefact(folder, advice))
    for read in damage:
        with pytest.raises(ArtefactError, match=r"\. Copy it again\.$") as error:
            read()
        assert "Delete" not in str(error.value)
    for content in ("{", "{}"):
        (folder / META).write_text(content)
        with pytest.raises(ArtefactError, match=r"\. Copy it again\.$"):
            load_artefact(folder, advice)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({}, "does not hold 'codes'"), (TENSORS, r"'codes' has shape \(.*\) instead of \(2, 4\)")],
)
def test_tensors_that_are_not_what_is_expected(folder, tensors, message):
    with pytest.raises(ArtefactError, match=f"{message}.*Delete the folder"):
        check_tensors(folder, tensors, {"codes": (2, 4)})


@pytest.mark.parametrize("which", ["meta", "tensors"])
def test_a_damaged_export_is_not_to_be_deleted(tmp_path, which):
    save_checkpoint_folder(tmp_path / "export", {"state_dict": TENSORS}, {})
    file = tmp_path / "export" / META if which == "meta" else blob(tmp_path / "export")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtefactError, match="Copy the folder again .* or export") as error:
        load_checkpoint(tmp_path / "export")
    assert "Delete" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"meta": {"sizes": [4, 9]}}, {"meta_digest": "0"}, {"meta": None}]
)
def test_edited_meta(folder, changes):
    edit_header(folder, **changes)
    with pytest.raises(ArtefactError, match=r"meta\.json was edited or is damaged"):
        load_artefact(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\0b",
        "tensors-x/../y.safetensors",
        5,
        None,
    ],
)
def test_tensors_are_read_from_the_folder_only(folder, name):
    (folder.parent / "secret.safetensors").write_bytes(blob(folder).read_bytes())
    edit_header(folder, tensors=name)
    with pytest.raises(ArtefactError, match=r"meta\.json was edited or is damaged"):
        load_artefact(folder)


def test_missing_parts(folder, tmp_path):
    blob(folder).unlink()
    with pytest.raises(ArtefactError, match=r"tensors-.* cannot be read"):
        load_artefact(folder)
    with pytest.raises(ArtefactError, match=r"nowhere.meta\.json does not exist"):
        load_artefact(tmp_path / "nowhere")


def test_a_checksum_of_something_that_is_no_safetensors_file(folder):
    import hashlib

    content = b"not safetensors"
    blob(folder).write_bytes(content)
    edit_header(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ArtefactError, match="is no safetensors file"):
        load_artefact(folder)


def test_weights_that_are_not_numbers_are_refused():
    layer = torch.nn.Linear(2, 2)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    load_state(layer, state)
    state["bias"][1] = torch.nan
    with pytest.raises(ArtefactError, match="holds values of bias that are not numbers"):
        load_state(layer, state)
    assert layer.bias.isfinite().all()
