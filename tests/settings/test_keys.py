"""One declaration a key: every key of every file is declared, every declaration has a place, and
code reads no other key.
"""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.registry import GENERATORS, MODELS, get_model_class, is_generative
from recbole_genrec.settings.classification import (
    RECBOLE_ARGUMENTS,
    display_keys,
    merged,
    named_values,
)
from recbole_genrec.settings.declaration import EFFECTS, GIVEN, REQUIRED, Settings, active, key
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.settings.rules import check_value
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.settings.tokenizer_keys import CodeKeys, TokenizerSettings
from recbole_genrec.tokenizer import TOKENIZERS, fit_or_load, tokenizer_class
from recbole_genrec.tokenizer.random_tokenizer import RandomTokenizer

METHODS = [name for name in MODELS if is_generative(get_model_class(name))]
PACKAGE = Path(recbole_genrec.__file__).parent


def declared_by_anyone() -> dict:
    methods = [get_model_class(name).settings_class for name in METHODS]
    tokenizers = [tokenizer_class(name).settings_class for name in TOKENIZERS]
    return merged(SharedSettings, *methods, *tokenizers)


def flat_keys(file: Path) -> dict[str, str]:
    """Keys of a property file with the model that they belong to; those of its sections too."""
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    owner = file.stem if file.parent.name in ("model", "paper") else ""
    keys = {}
    for name, value in content.items():
        if (
            isinstance(value, dict)
            and name[:1].isupper()
            and name in {*MODELS, "SASRec", "BERT4Rec", "GRU4Rec"}
        ):
            keys |= dict.fromkeys(value, name)
        elif name != "like":
            keys[name] = owner
    return keys


FILES = [file for file in properties_folder().rglob("*.yaml") if file.parent.name != "prompts"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_key_of_every_file_is_declared(file):
    declared = declared_by_anyone()
    undeclared = [
        name
        for name, owner in flat_keys(file).items()
        if name not in declared and (not owner or owner in METHODS)
    ]
    assert undeclared == []


@pytest.mark.parametrize("method", [*METHODS, "SASRec"])
def test_every_declared_key_has_a_place(method):
    config = GenRecConfig(method, "ml-100k", config_dict={"gpu_id": ""})
    without = [
        name
        for name, declared in config.declarations.items()
        if name not in config.places and declared.default is REQUIRED and not declared.computed
    ]
    assert set(without) <= {
        "model",
        "dataset",
        # of methods with a tokenizer or a backbone
        *({"tokenizer", "backbone", "codebook_sizes", "collision", "dedup_spare"}),
        *({"train_rows", "group_by_length"}),
        *({"tokenizer_epochs", "tokenizer_lr", "tokenizer_batch_size"}),
    }


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_key_of_a_tokenizer_stands_in_its_file(name):
    content = yaml.safe_load((properties_folder() / "tokenizer" / f"{name}.yaml").read_text())
    own = set(tokenizer_class(name).cache_key_names())
    assert own - set(content) <= {"precision", "quantisation"}
    elsewhere = {"gradient_checkpointing"}
    if name == "letter":
        elsewhere.add("cf_rows")  # a shared key; its vectors have a cache key of their own
    assert set(content) - own <= elsewhere


def test_a_key_of_tokenizers_is_declared_once():
    """A class may narrow a key of another; then its words say what is different."""
    places = defaultdict(set)
    for settings in (
        SharedSettings,
        *(tokenizer_class(name).settings_class for name in TOKENIZERS),
    ):
        for name, declared in settings.declared().items():
            places[name, str(declared.annotation), declared.help].add(declared.place)
    assert [words for words, found in places.items() if len(found) > 1] == []


def _is_get(node: ast.AST) -> bool:
    is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return is_method and node.func.attr == "get" and bool(node.args)


def keys_that_code_reads() -> dict[str, str]:
    """Keys in ``config["..."]``, ``values["..."]`` and ``.get("...")`` of both, with the file."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            target = name = None
            if isinstance(node, ast.Subscript):
                target, name = node.value, node.slice
            elif _is_get(node):
                target, name = node.func.value, node.args[0]
            is_config = ast.unparse(target).rpartition(".")[2] == "config" if target else False
            if is_config and isinstance(name, ast.Constant) and isinstance(name.value, str):
                found[name.value] = str(file.relative_to(PACKAGE))
    return found


def test_code_reads_no_undeclared_key():
    declared = set(declared_by_anyone()) | RECBOLE_ARGUMENTS
    assert {
        name: file for name, file in keys_that_code_reads().items() if name not in declared
    } == {}


def kinds_of(base: type) -> set[type]:
    """All classes below ``base``."""
    below = set(base.__subclasses__())
    return below.union(*map(kinds_of, below))


def test_views_read_no_undeclared_key():
    """Attributes of ``self.settings`` and ``config.settings`` are fields or properties of some
    class of settings.
    """
    declared = {*declared_by_anyone(), *dir(Settings)}
    for settings_class in kinds_of(Settings):
        properties = inspect.getmembers(settings_class, lambda value: isinstance(value, property))
        declared |= {name for name, _ in properties}
    wrong = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Attribute):
                continue
            if node.value.attr == "settings" and node.attr not in declared:
                wrong[node.attr] = str(file.relative_to(PACKAGE))
    assert wrong == {}


def test_every_declaration_says_what_it_affects_and_names_a_known_switch():
    keys = declared_by_anyone()
    for name, declared in keys.items():
        assert declared.affects and set(declared.affects) <= set(EFFECTS), name
        assert declared.help, name
        assert declared.only_if is None or declared.only_if[0] in keys, name
    assert all(keys[name].affects == ("display",) for name in display_keys())


# --- a method from outside ----------------------------------------------------------------------


class Margin(SharedSettings):
    margin: float = key("margin of the negatives", ge=0, default=0.5)
    hinge: bool = key("whether there is a margin", default=True)
    slope: int | None = key("of the hinge", default=None, only_if=("hinge", True))
    file: str | None = key("of the hinge", default=None)
    depth: int = key("of what stands in the file", default=1, only_if=("file", GIVEN))


def test_a_class_of_settings_is_a_typed_view_and_a_check():
    view = Margin.from_values({"margin": 0.25, "beam_width": "auto", "unknown": 1})
    assert (view.margin, view.beam_width, view.hinge, view.epochs) == (0.25, "auto", True, None)
    keys = Margin.declared()
    with pytest.raises(ConfigError, match=r"margin is -1; it must be at least 0 \(margin of"):
        check_value(keys["margin"], -1)
    check_value(keys["slope"], None)
    assert keys["margin"].range_text == "float, at least 0"


def test_a_view_follows_its_configuration():
    config = GenRecConfig("TIGER", "ml-100k", config_dict={"gpu_id": ""})
    view = config.view(config.model_class.settings_class)
    config["beam_width"] = 77
    assert view.beam_width == config.settings.beam_width == 77


# --- switches -----------------------------------------------------------------------------------


def test_keys_of_a_switch_that_is_off_are_not_active():
    names = ["hinge", "slope", "depth", "unknown"]
    keys = Margin.declared()
    assert active(keys, {"hinge": False, "file": None}, names) == ["hinge", "unknown"]
    assert active(keys, {"hinge": True, "file": "a"}, names) == names


OFF = [
    ("TIGER", {}, {"si_rounds": 5}),
    ("TIGER", {"self_improve": True}, {"si_temperature": 0.5}),
    ("STORE", {}, {"lora_rank": 3}),
    ("STORE", {}, {"beam_max": 300}),
    ("TIGER", {}, {"subset_norm": "subset"}),
    ("TimelineRec", {}, {"depth_layers": 7}),
    ("SASRec", {}, {"si_rounds": 5}),
]
ON = [
    ("TIGER", {"self_improve": True}, {"si_rounds": 1}),
    ("STORE", {"tuning": "lora"}, {"lora_rank": 3}),
    ("STORE", {"beam_width": "auto"}, {"beam_max": 300}),
    ("TimelineRec", {"depth": "transformer"}, {"depth_layers": 7}),
    ("STORE", {}, {"tuning": "lora"}),
]


def name(model, **changes):
    return GenRecConfig(model, "ml-100k", config_dict={"gpu_id": "", **changes}).run_name()


@pytest.mark.parametrize(("model", "switch", "changes"), OFF)
def test_a_switch_that_is_off_keeps_its_keys_out_of_the_name(model, switch, changes):
    assert name(model, **switch, **changes) == name(model, **switch)


@pytest.mark.parametrize(("model", "switch", "changes"), ON)
def test_a_switch_that_is_on_does_not(model, switch, changes):
    assert name(model, **switch, **changes) != name(model, **switch)


NEWER = [
    ("TimelineRec", {"generator": None}),
    ("TIGER", {"extra_token_size": None, "cold_share": 0.0}),
    ("SASRec", {"max_cpu_minutes": None, "ema_decay": 0.0}),
    ("SASRec", {"cf_rows": "all"}),
]


@pytest.mark.parametrize(("model", "values"), NEWER)
def test_a_key_that_acts_as_if_it_did_not_exist_is_in_no_name(model, values):
    config = GenRecConfig(model, "ml-100k", config_dict={"gpu_id": "", **values})
    assert not values.keys() & named_values(config.declarations, config.plain()).keys()


def test_the_rows_of_collaborative_vectors_are_in_the_names_of_those_who_use_them():
    assert name("TIGER") == name("TIGER", cf_rows="all")
    assert name("LETTER") != name("LETTER", cf_rows="all")
    assert name("SETRec") != name("SETRec", cf_rows="all")


READERS = [
    ("TIGER", {"tokenizer_input": "cf"}),
    ("TimelineRec", {"tokenizers": ["clusters", "letter"]}),
    ("TIGER", {"tokenizer": "cid", "self_improve": True, "item_text_fields": None}),
]


@pytest.mark.parametrize(("model", "values"), READERS)
def test_so_they_are_where_only_a_setting_asks_for_these_vectors(model, values):
    assert name(model, **values) == name(model, **values, cf_rows="windows")
    assert name(model, **values) != name(model, **values, cf_rows="all")
    config = GenRecConfig(model, "ml-100k", config_dict={"gpu_id": "", **values, "cf_rows": "all"})
    assert "cf_rows" not in named_values(config.declarations, config.plain())  # the name of before


# --- the list for people ------------------------------------------------------------------------


def lines_by_key(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line[:1].strip()}


def test_the_list_names_every_key_of_a_method(capsys):
    assert main(["keys", "LETTER"]) == 0
    text = capsys.readouterr().out
    config = GenRecConfig("LETTER", "ml-100k", config_dict={"gpu_id": ""})
    for name, declared in config.declarations.items():
        if not declared.computed:
            assert f"\n{name} " in text, name
            assert f"    {declared.help} [{declared.range_text}]" in text
    lines = lines_by_key(text)
    assert lines["alpha"].split()[1:] == ["0.02", "tokenizer", "properties/tokenizer/letter.yaml"]
    assert lines["beam_width"].split()[1:] == ["20", "search", "properties/overall.yaml"]
    assert lines["epochs"].split()[1:3] == ["50", "training"]


def test_methods_that_need_texts_are_listed_without_a_dataset(capsys):
    assert main(["keys", "SETRec"]) == 0
    lines = lines_by_key(capsys.readouterr().out)
    assert lines["item_text_fields"].split()[1] == "~"
    assert lines["n_sem"].split()[1] == "4"


def test_a_default_of_the_declaration_is_shown_with_its_file(capsys):
    assert main(["keys", "LCRec"]) == 0
    lines = lines_by_key(capsys.readouterr().out)
    assert lines["model"].endswith("an argument")
    assert lines["dataset"].endswith("not set")
    assert lines["result_file"].endswith("recbole_genrec/settings/shared_keys.py")

    assert main(["keys"]) == 0
    text = capsys.readouterr().out
    assert lines_by_key(text)["model"].split()[1] == "~"
    tables = dict(table.split("\n", 1) for table in text.split("\n\nKeys of "))
    line = lines_by_key(tables["SETRec"])["mask_history"]
    assert line.split()[1:] == ["False", "search", "recbole_genrec/model/ranking.py"]


def test_the_list_follows_dataset_preset_and_arguments(capsys):
    assert main(["keys", "TIGER", "--dataset=ml-100k", "--beam_width=40"]) == 0
    lines = lines_by_key(capsys.readouterr().out)
    assert lines["epochs"].endswith("properties/dataset/ml-100k.yaml, TIGER")
    assert lines["beam_width"].split()[1] == "40" and lines["beam_width"].endswith("an argument")
    assert main(["keys", "TIGER", "--preset=paper"]) == 0
    assert "properties/paper/TIGER.yaml" in capsys.readouterr().out
    assert main(["keys", "SASRec"]) == 0 and "\nhidden_size " in capsys.readouterr().out
    assert main(["keys", "TIGGER"]) == 2 and "Did you mean TIGER" in capsys.readouterr().err
    assert main(["keys", "--help"]) == 0 and "Usage:" in capsys.readouterr().out


def test_without_a_method_every_method_and_tokenizer_is_listed(capsys):
    assert main(["keys", "--dataset=ml-100k"]) == 0
    titles, names = [], {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("Keys "):
            titles.append(line)
        elif line and not line.startswith(" "):
            names.setdefault(titles[-1], set()).add(line.split()[0])

    assert titles[0] == "Keys that all methods share" and "beam_width" in names[titles[0]]
    assert "n_user_tokens" in names["Keys of TIGER"]
    assert not names["Keys of TIGER"] & names[titles[0]]
    for name in TOKENIZERS:
        file = properties_folder() / "tokenizer" / f"{name}.yaml"
        declared = set(tokenizer_class(name).settings_class.declared())
        expected = (
            set(yaml.safe_load(file.read_text()) or {}) & declared if file.is_file() else set()
        )
        assert expected <= names.get(f"Keys of tokenizer: {name}", set())


def test_another_generator_is_listed_as_what_runs(capsys):
    assert main(["keys", "LETTER", "--generator=timeline"]) == 0
    assert f"Keys of {GENERATORS['LETTER', 'timeline']}" in capsys.readouterr().out


# --- stored results of earlier versions ---------------------------------------------------------


def test_the_result_of_an_earlier_version_is_used(tmp_path):
    """A tokenizer's key had settings whose switch was off; the folder of that key is still
    found.
    """

    class Keys(CodeKeys, TokenizerSettings):
        tuning: str = key("which weights train", affects="tokenizer")
        rank: int = key("of the adapter", affects="tokenizer", only_if=("tuning", "lora"))

    class Coder(RandomTokenizer):
        name = "coder"
        settings_class = Keys
        fits = 0

        def fit(self, content):
            self.fits += 1
            return super().fit(content)

    class EarlierCoder(Coder):
        def config_key(self, switches=True):
            return super().config_key(switches=False)

    values = {"codebook_sizes": [4, 4], "collision": ["extra_token"], "dedup_spare": 0}
    values |= {"tuning": "full", "rank": 8}
    content = SimpleNamespace(tokens=["[PAD]", "a", "b", "c"], fingerprint="data")
    codes = fit_or_load(EarlierCoder(values, 1), content, tmp_path, 1, print)
    (folder,) = tmp_path.glob("coder-*")

    log: list[str] = []
    coder = Coder(values, 1)
    again = fit_or_load(coder, content, tmp_path, 1, log.append)
    assert coder.fits == 0 and again.codes.equal(codes.codes)
    assert "of an earlier version" in log[0] and f"reused from {folder}" in log[1]

    tuned = Coder({**values, "tuning": "lora"}, 1)
    fit_or_load(tuned, content, tmp_path, 1, log.append)
    assert tuned.fits == 1, "with the switch on the settings count"
    other = Coder({**values, "rank": 9}, 1)
    assert other.config_key() == coder.config_key(), "with the switch off they do not"
