"""Files of strangers: none of them runs anything, leaves its folder, or switches anything on."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from counts import COUNTS, EXECUTED
from toy import SMALL, TINY, TINY_T5, write_dataset

from recbole_genrec.backbone import load_encoder_decoder
from recbole_genrec.backbone.causal.load import load_causal_lm
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.preparation.prepare import prepare_dataset
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.data.vectors.vector_files import read_vectors
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError, DataError, GenRecError
from recbole_genrec.experiments.benchmark_file import read_benchmark
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.settings.parsing import parse_value, read_yaml
from recbole_genrec.storage.artefacts import META, load_artefact, write_json
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.storage.digests import digest


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "executed"


@contextlib.contextmanager
def refused(marker: Path, *errors: type[GenRecError]) -> Iterator[None]:
    """The block must end in one of ``errors`` and nothing may have run."""
    COUNTS[EXECUTED][1] += 1
    with pytest.raises(errors or GenRecError):
        yield
    COUNTS[EXECUTED][0] += marker.exists()
    assert not marker.exists()


def pickled(path: Path, marker: Path, how: str) -> None:
    """A file whose unpickling makes ``marker``, in the forms that torch reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "state_dict": {}, "config": Payload(marker)}
    if how == "plain":
        path.write_bytes(pickle.dumps(content))
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(content, path)


def test_the_payload_is_live(tmp_path, marker):
    """Otherwise the tests below would prove nothing."""
    pickled(tmp_path / "x", marker, "plain")
    pickle.loads((tmp_path / "x").read_bytes())  # noqa: S301
    assert marker.is_dir()


forms = pytest.mark.parametrize("how", ["plain", "legacy", "zip"])


@forms
def test_checkpoints(tmp_path, marker, how):
    path = tmp_path / "run.pth"
    pickled(path, marker, how)
    with refused(marker, ArtefactError):
        load_checkpoint(path)
    with refused(marker, ArtefactError):
        load_data_and_model(str(path))


@forms
@pytest.mark.parametrize(
    "name", ["{run}.resume.pth", "toy-SequentialDataset.pth", "toy-for-TIGER-dataloader.pth"]
)
def test_files_that_a_run_finds_by_itself(tmp_path, marker, how, name):
    settings = {
        **SMALL,
        **TINY_T5,
        "codebook_sizes": [8, 8],
        "tokenizer": "random",
        "data_path": str(write_dataset(tmp_path / "data")),
    }
    run = GenRecConfig("TIGER", "toy", config_dict=settings).run_name()
    pickled(Path("saved") / name.format(run=run), marker, how)
    with refused(marker, ArtefactError, DataError):
        run_recbole_genrec("TIGER", "toy", config_dict={**settings, "resume": True})


@forms
def test_pickles_under_other_names(tmp_path, marker, how):
    for name in ("tensors-0123456789ab.safetensors", "meta.json"):
        pickled(tmp_path / "codes" / name, marker, how)
    with refused(marker, ArtefactError):
        load_artefact(tmp_path / "codes")
    pickled(tmp_path / "vectors.txt", marker, how)
    with refused(marker, DataError):
        read_vectors(tmp_path / "vectors.txt")
    pickled(tmp_path / "settings.yaml", marker, how)
    with refused(marker, ConfigError):
        read_yaml(tmp_path / "settings.yaml")


# --- models of strangers --------------------------------------------------------------------------


def model_folder(folder: Path, marker: Path, **config: object) -> Path:
    """A folder with Python files that would make ``marker`` when imported."""
    folder.mkdir(parents=True, exist_ok=True)
    code = f"import os\nos.mkdir({str(marker)!r})\nclass Evil:\n    pass\n"
    for name in (
        "modeling_evil.py",
        "configuration_evil.py",
        "tokenization_evil.py",
        "evil.py",
        "__init__.py",
    ):
        (folder / name).write_text(code)
    own = {
        "AutoConfig": "configuration_evil.Evil",
        "AutoModel": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", None],
    }
    own |= dict.fromkeys(("AutoModelForCausalLM", "AutoModelForSeq2SeqLM"), "modeling_evil.Evil")
    (folder / "config.json").write_text(
        json.dumps({"auto_map": own, "trust_remote_code": True, **config})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": own, "tokenizer_class": "Evil", "trust_remote_code": True})
    )
    return folder


LOADERS = {
    "causal": load_causal_lm,
    "t5": load_encoder_decoder,
    "encoder": lambda folder: TextEncoding(folder, show_progress=False).vectors(["x"]),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("model_type", ["evil", "opt", "t5", "bert"])
def test_models_with_code_of_their_own(tmp_path, marker, load, model_type):
    folder = model_folder(tmp_path / "model", marker, model_type=model_type, architectures=["Evil"])
    with refused(marker, BackboneError):
        load(str(folder))


@forms
@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_models_with_pickled_weights(tmp_path, marker, load, how):
    kind = "t5" if load is load_encoder_decoder else "opt"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({"model_type": kind, "hidden_size": 8})
    )
    pickled(tmp_path / "model" / "pytorch_model.bin", marker, how)
    with refused(marker, BackboneError):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize(
    "kind", ["evil.Evil", "modeling_evil.Evil", "os.system", "builtins.exec", "subprocess.Popen"]
)
def test_encoders_whose_modules_are_not_the_librarys(tmp_path, marker, monkeypatch, kind):
    folder = model_folder(tmp_path / "model", marker)
    monkeypatch.chdir(folder)  # where `import evil` would find it
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}])
    )
    with refused(marker, BackboneError):
        TextEncoding(str(folder), show_progress=False).vectors(["x"])


@pytest.mark.parametrize(
    "key", ["trust_remote_code", "STORE.trust_remote_code", "backbone_trust_remote_code"]
)
def test_remote_code_has_no_key(tmp_path, marker, key):
    settings = {**TINY, "data_path": str(write_dataset(tmp_path / "data"))}
    with refused(marker, ConfigError):
        GenRecConfig("STORE", "toy", config_dict={**settings, key: True})
    with refused(marker, BackboneError):
        load_causal_lm("scratch", {"model_type": "opt", "trust_remote_code": True}, ["x"], 300)


# --- settings -------------------------------------------------------------------------------------

YAMLS = [
    "epochs: !!python/object/apply:os.mkdir ['{marker}']",
    "epochs: !!python/object/new:os.mkdir ['{marker}']",
    "? !!python/object/apply:os.mkdir ['{marker}']\n: 1",
    "epochs: !!python/name:os.mkdir",
    "epochs: !!python/module:os",
    "epochs: !!python/tuple [1, 2]",
    "epochs: !evil 1",
    "- epochs\n- 3",
    "epochs: [1",
    "epochs: 1\n\tseed: 2",
    "1: 2",
    "\x00epochs: 1",
    "epochs: &a [*a]",
    "epochs: &a {{b: *a}}",
    "%YAML 9.9\n---\nepochs: 1",
    "epochs: 1\n---\nepochs: 2",
    "[" * 1_200,
]


@pytest.mark.parametrize("text", YAMLS, ids=range(len(YAMLS)))
def test_yaml_files(tmp_path, marker, text):
    path = tmp_path / "hostile.yaml"
    path.write_text(text.format(marker=marker))
    settings = {**TINY, "data_path": str(write_dataset(tmp_path / "data"))}
    settings.pop("epochs")
    with refused(marker, ConfigError):
        GenRecConfig("STORE", "toy", config_file_list=[str(path)], config_dict=settings)
    with refused(marker, GenRecError):
        read_benchmark(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{marker}')",
        "os.mkdir('{marker}')",
        "[c for c in ().__class__.__mro__]",
        "exec('1')",
    ],
)
@pytest.mark.parametrize("key", ["epochs", "topk", "eval_args", "data_path", "backbone_config"])
def test_values_are_never_code(tmp_path, marker, key, text):
    text = text.format(marker=marker)
    assert text.strip("[]") in str(parse_value(text))
    with contextlib.suppress(GenRecError):
        GenRecConfig("STORE", "toy", argv=[f"--{key}={text}"])
    with contextlib.suppress(GenRecError):
        GenRecConfig("STORE", "toy", config_dict={key: text})
    COUNTS[EXECUTED][0] += marker.exists()
    COUNTS[EXECUTED][1] += 1
    assert not marker.exists()


NAMES = [
    "..",
    "../toy",
    "toy/../toy",
    "/etc/passwd",
    "a/b",
    ".hidden",
    "toy\n",
    "toy\0",
    "",
    " ",
    "C:\\toy",
    "~",
    "$HOME",
    "*",
    "toy?",
    "%2e%2e/x",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_leave_their_folder(tmp_path, marker, name):
    settings = {**TINY, "data_path": str(write_dataset(tmp_path / "data"))}
    before = sorted(tmp_path.rglob("*"))
    for model, dataset in (("STORE", name), (name, "toy")):
        with refused(marker, ConfigError):
            run_recbole_genrec(model, dataset, config_dict=settings)
    with refused(marker, DataError):
        prepare_dataset(name, tmp_path / "prepared")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_leaves_its_folder(tmp_path, marker):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("../../executed", "/executed", f"{marker}", "..\\executed"):
            archive.writestr(name, "x")
    with refused(marker, DataError):
        prepare_dataset("ml-100k", tmp_path / "prepared", tmp_path / "data.zip")
    assert not (tmp_path.parent / "executed").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "tensors-0123456789ab.safetensors/../../x",
        "tensors-x.safetensors",
    ],
)
def test_an_artefact_that_names_a_file_elsewhere(tmp_path, marker, name):
    write_json(
        tmp_path / "codes" / META,
        {"tensors": name, "sha256": "0", "meta_digest": digest({}, size=64), "meta": {}},
    )
    with refused(marker, ArtefactError):
        load_artefact(tmp_path / "codes")
