"""Methods that stand outside the package: a folder of modules that the package has never seen."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from recbole.model.abstract_recommender import AbstractRecommender
from toy import write_dataset

from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.experiments.new_method import write_new_method
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import (
    evaluate,
    export,
    load_data_and_model,
    recommend,
)
from recbole_genrec.model import outside
from recbole_genrec.model.ranking import VectorRecommender
from recbole_genrec.model.text_needs import check_item_texts
from recbole_genrec.runtime import outside_classes
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.trainer import GenRecTrainer

METHODS = Path(__file__).parent / "outside"
MEAN_TEXT = "mean_text:MeanText"
NEXT_CODE = "next_code:NextCode"
CODED = {"tokenizer": "initials", "item_text_fields": ["title"], "width": 16, "beam_width": 30}
NO_TEXT = {"item_text_fields": None}
SETTINGS = {
    "train_batch_size": 32,
    "epochs": 3,
    "MAX_ITEM_LIST_LENGTH": 8,
    "topk": [5, 10],
    "show_progress": False,
    "gpu_id": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def names_of_its_own():
    """Other files know nothing of what is registered and imported here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outside, "_classes", cache(outside._classes.__wrapped__))
        yield
    sys.modules.pop("next_code", None)


@pytest.fixture(autouse=True)
def methods_on_the_path(monkeypatch):
    """The folder of the methods is a place of modules, and no test knows what another
    registered.
    """
    monkeypatch.syspath_prepend(str(METHODS))
    outside._classes.cache_clear()


def train(folder, model=MEAN_TEXT, **changes):
    values = {**SETTINGS, "data_path": str(folder), "cache_dir": str(folder / "cache"), **changes}
    return run_recbole_genrec(model, "toy", config_dict=values)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A trained MeanText."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(METHODS))
        return train(folder, checkpoint_dir=str(tmp_path_factory.mktemp("saved")))


# --- continuous vectors, no codes -----------------------------------------------------------------


def test_a_method_of_a_few_lines_learns(run):
    assert len((METHODS / "mean_text.py").read_text().splitlines()) <= 44
    assert run["test_result"]["recall@10"] > 1.2 * 10 / 40  # chance
    assert run["epochs"][-1]["loss"][0] < run["epochs"][0]["loss"][0]
    assert run["config"]["width"] == 16 and run["model"] == "MeanText"
    assert "codes" not in load_checkpoint(run["checkpoint"])["state_dict"]


def test_what_validation_decides_is_in_the_checkpoint_and_in_the_test(run):
    """after_fit chooses the decay with the best validation metric; an independent loop agrees."""
    trained = load_data_and_model(run["checkpoint"], MEAN_TEXT)
    trainer = GenRecTrainer(trained.config, trained.model)
    trainer.eval_collector.data_collect(trained.train)
    chosen = float(trained.model.decay)
    figures = {}
    for decay in (0.2, 0.5, 0.8):
        trained.model.decay.fill_(decay)
        figures[decay] = trainer.evaluate(trained.valid, load_best_model=False)["ndcg@10"]
    assert max(figures.values()) == pytest.approx(figures[round(chosen, 1)])
    assert len(set(figures.values())) > 1
    assert evaluate(run["checkpoint"], MEAN_TEXT)["test_result"] == run["test_result"]


def test_a_run_killed_in_after_fit_decides_when_it_resumes(folder, monkeypatch):
    whole = train(folder, checkpoint_dir="whole")
    module = sys.modules["mean_text"]

    class Killed(BaseException):
        pass

    def killed(self, validate):
        validate()
        self.decay.fill_(0.123)
        raise Killed

    monkeypatch.setattr(module.MeanText, "after_fit", killed)
    with pytest.raises(Killed):
        train(folder, checkpoint_dir="cut")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(METHODS))
    resumed = train(folder, checkpoint_dir="cut", resume=True)
    assert resumed["test_result"] == whole["test_result"]
    stored = [load_checkpoint(result["checkpoint"])["state_dict"] for result in (whole, resumed)]
    assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[0])


def test_an_interrupted_training_continues_exactly(folder, monkeypatch):
    whole = train(folder, checkpoint_dir="whole")
    calls = []

    class Killed(BaseException):
        pass

    step = GenRecTrainer._optimiser_step

    def killed(self):
        calls.append(0)
        if len(calls) == 9:
            raise Killed
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GenRecTrainer, "_optimiser_step", killed)
        with pytest.raises(Killed):
            train(folder, checkpoint_dir="cut")
    resumed = train(folder, checkpoint_dir="cut", resume=True)
    assert resumed["test_result"] == whole["test_result"]
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [
        epoch["loss"] for epoch in whole["epochs"]
    ]


def test_it_recommends_as_it_scores(run):
    _, model, *_, test = load_data_and_model(run["checkpoint"], MEAN_TEXT)
    batch = next(iter(test))[0]
    scores = model.full_sort_predict(batch)
    history = batch["item_id_list"][3, : batch["item_length"][3]]
    rows = model.recommend([model.item_tokens[item] for item in history.tolist()], k=40)
    order = scores[3].argsort(descending=True)[:40]
    assert [row["item"] for row in rows] == [model.item_tokens[item] for item in order.tolist()]
    assert rows[0]["text"] == model.content.text[int(order[0])]
    chosen = recommend(run["checkpoint"], user="u3", k=2, model_class=MEAN_TEXT)
    assert len(chosen) == 2


def test_kept_item_vectors_follow_the_weights(run):
    _, model, *_, test = load_data_and_model(run["checkpoint"], MEAN_TEXT)
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    assert torch.equal(model.full_sort_predict(batch), before)
    with torch.no_grad():
        model.encoder.weight.mul_(-1)  # as an optimiser's step: in place
    flipped = model.full_sort_predict(batch)
    assert not torch.allclose(flipped, before)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["encoder.weight"] *= -1
    model.load_state_dict(state)
    assert torch.equal(model.full_sort_predict(batch), before)


def test_history_can_be_left_out(run):
    _, model, *_, test = load_data_and_model(run["checkpoint"], MEAN_TEXT, mask_history=True)
    batch = next(iter(test))[0]
    hidden = model.full_sort_predict(batch) == -torch.inf
    data = test._dataset
    lines = (Path(data.dataset_path) / "toy.inter").read_text().splitlines()[1:]
    expected = torch.zeros_like(hidden)
    expected[:, 0] = True
    for row, user in enumerate(data.id2token("user_id", batch["user_id"].numpy())):
        items = [line.split("\t")[1] for line in lines if line.startswith(f"{user}\t")][:-1]
        expected[row, data.token2id("item_id", items)] = True
    assert expected.gather(1, batch["item_id_list"]).all()
    assert torch.equal(hidden, expected)


def test_an_export_is_safetensors_and_json_and_loads_again(run, tmp_path, capsys):
    export(run["checkpoint"], str(tmp_path / "out"), model_class=MEAN_TEXT)
    suffixes = {file.suffix for file in (tmp_path / "out").iterdir()}
    assert suffixes == {".safetensors", ".json", ".md"}  # the last is the model card
    _, model, *_, test = load_data_and_model(run["checkpoint"], MEAN_TEXT)
    again = load_data_and_model(str(tmp_path / "out"), MEAN_TEXT).model
    batch = next(iter(test))[0]
    assert torch.equal(again.full_sort_predict(batch), model.full_sort_predict(batch))
    with pytest.raises(ConfigError, match="MeanText trains none. Export without merge"):
        export(run["checkpoint"], str(tmp_path / "merged"), merge=True, model_class=MEAN_TEXT)
    assert not (tmp_path / "merged").exists()


def test_items_that_it_cannot_take_in(run):
    model = load_data_and_model(run["checkpoint"], MEAN_TEXT).model
    with pytest.raises(ConfigError, match="MeanText cannot take in new items"):
        model.add_items(["a new thing"])


@pytest.mark.parametrize("kind", ["tables", "rows_by_id"])
def test_new_items_have_a_row_in_every_table(run, tmp_path, monkeypatch, kind):
    """append_items, as a method's add_items calls it; the checkpoint brings the items back."""
    mean_text = importlib.import_module("mean_text")
    monkeypatch.setattr(mean_text.MeanText, "tables", {})
    monkeypatch.setattr(mean_text.MeanText, kind, {"texts": "items"})
    _, model, *_, test = load_data_and_model(run["checkpoint"], MEAN_TEXT)
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    texts = ["soft soap no 99", "dark oil no 7"]
    rows = torch.from_numpy(model.content.embed(texts))
    names = model.catalogue.new_items(texts, ["n1", "n2"])
    with pytest.raises(TypeError, match="needs rows for .'texts'. of MeanText"):
        model.append_items(texts, names)
    assert model.append_items(texts, names, texts=rows) == [41, 42]
    after = model.full_sort_predict(batch)
    assert after.shape[1] == model.n_items == 43 and torch.equal(after[:, :41], before)
    model.save(tmp_path / "more.pth")
    again = load_data_and_model(str(tmp_path / "more.pth"), MEAN_TEXT).model
    torch.testing.assert_close(again.full_sort_predict(batch), after, atol=1e-5, rtol=0)
    assert again.recommend(["n1"], k=1, candidates=["n2"])[0]["item"] == "n2"


# --- codes, from a tokenizer of its own -----------------------------------------------------------


@pytest.fixture(scope="module")
def coded(folder, tmp_path_factory):
    """The skeleton that init-method writes, trained on codes that another module gives."""
    methods = tmp_path_factory.mktemp("methods")
    write_new_method("NextCode", methods)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(METHODS))
        patch.syspath_prepend(str(methods))
        importlib.import_module("initials")
        importlib.import_module("next_code")
        saved = str(tmp_path_factory.mktemp("saved"))
        result = train(folder, NEXT_CODE, **CODED, checkpoint_dir=saved)
    return {**result, "methods": str(methods)}


def test_codes_of_a_tokenizer_from_outside(coded, folder):
    assert coded["config"]["n_initials"] == 2 and coded["test_result"]["recall@10"] > 0
    model = load_data_and_model(coded["checkpoint"], NEXT_CODE).model
    letters = [
        [ord(word[0]) - 97 for word in text.split()[:2]] for text in model.content.titles[1:]
    ]
    assert model.codes[1:, :2].tolist() == letters
    assert len(model.codes[1:].unique(dim=0)) == 40, "the extra token tells items apart"
    assert coded["report"]["search"]["beam_width"] == 30


def test_its_checkpoint_is_tested_recommends_takes_items_and_is_exported(coded, tmp_path):
    again = evaluate(coded["checkpoint"], NEXT_CODE)
    assert again["test_result"] == coded["test_result"]
    _, model, *_, test = load_data_and_model(coded["checkpoint"], NEXT_CODE)
    batch = next(iter(test))[0]
    export(coded["checkpoint"], str(tmp_path / "out"), model_class=NEXT_CODE)
    exported = load_data_and_model(str(tmp_path / "out"), NEXT_CODE).model
    assert torch.equal(exported.full_sort_predict(batch), model.full_sort_predict(batch))
    before = model.full_sort_predict(batch)
    assert model.add_items(["soft soap no 99"], ["n1"]) == [41]
    assert model.codes[41, :2].tolist() == [ord("s") - 97, ord("s") - 97]
    torch.testing.assert_close(model.full_sort_predict(batch)[:, :41].amax(1), before.amax(1))
    assert len(model.recommend(["n1", "i3"], k=5)) == 5


def test_its_training_continues_exactly(coded, folder, monkeypatch):
    calls = []

    class Killed(BaseException):
        pass

    step = GenRecTrainer._optimiser_step

    def killed(self):
        calls.append(0)
        if len(calls) == 9:
            raise Killed
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GenRecTrainer, "_optimiser_step", killed)
        with pytest.raises(Killed):
            train(folder, NEXT_CODE, **CODED, checkpoint_dir="cut")
    resumed = train(folder, NEXT_CODE, **CODED, checkpoint_dir="cut", resume=True)
    assert resumed["test_result"] == coded["test_result"]


# --- where a class may come from ------------------------------------------------------------------


def test_a_checkpoint_runs_no_code_that_nobody_named(run, tmp_path):
    (tmp_path / "mean_text.py").write_text("raise SystemExit('code of the checkpoint ran')")
    command = [sys.executable, "-m", "recbole_genrec.cli", "recommend", "--user=u3"]
    done = subprocess.run(
        [*command, "--checkpoint", run["checkpoint"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 2 and "code of the checkpoint ran" not in done.stderr
    assert f"--model={MEAN_TEXT}" in done.stderr


def test_registered_classes_and_entry_points_load_by_name(run, monkeypatch):
    with pytest.raises(ArtefactError, match="holds a model of the class mean_text:MeanText"):
        load_data_and_model(run["checkpoint"])
    import mean_text

    outside.register(mean_text.MeanText)
    assert load_data_and_model(run["checkpoint"]).model.n_items == 41
    outside._classes.cache_clear()
    point = EntryPoint("MeanText", MEAN_TEXT, outside.ENTRY_POINTS)
    monkeypatch.setattr(outside_classes, "entry_points", lambda group: [point])
    assert load_data_and_model(run["checkpoint"]).model.n_items == 41
    assert GenRecConfig("MeanText", "toy", config_dict=SETTINGS)["width"] == 16


def test_a_class_that_a_program_hands_over_is_registered(folder):
    import mean_text

    class Shorter(mean_text.MeanText):
        properties = {"width": 4}

    result = train(folder, Shorter, epochs=1)
    assert result["config"]["width"] == 4 and result["config"]["learning_rate"] == 0.01
    assert load_data_and_model(result["checkpoint"]).model.encoder.out_features == 4
    with pytest.raises(ConfigError, match="holds a model of the class Shorter, not MeanText"):
        load_data_and_model(result["checkpoint"], mean_text.MeanText)


def test_keys_of_the_class_are_checked_and_may_be_meant_for_it_alone(folder):
    with pytest.raises(ConfigError, match="Unknown key 'widht' for MeanText. Did you mean width"):
        train(folder, widht=3)
    with pytest.raises(ConfigError, match="width is 0; it must be at least 1"):
        train(folder, width=0)
    both = train(folder, f"SASRec,{MEAN_TEXT}", epochs=1, **{"MeanText.width": 5})
    assert list(both) == ["SASRec", "MeanText"]
    assert both["MeanText"]["config"]["width"] == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean_text:Nothing", "mean_text:Nothing cannot be loaded.*package.module:Class"),
        ("no_such_module:Thing", "No module named 'no_such_module'"),
        ("json:JSONDecoder", "is no model"),
        ("MeanTxt", "There is no model 'MeanTxt'"),
    ],
)
def test_names_that_are_no_model(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        train(folder, name)


def test_a_name_that_is_taken(folder):
    import mean_text

    taken = type("SASRec", (mean_text.MeanText,), {"__module__": "mine"})
    with pytest.raises(ConfigError, match="There is a model SASRec already"):
        train(folder, taken)


def test_settings_may_stand_beside_the_module(folder, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(
        "from mean_text import MeanText\nclass Beside(MeanText):\n    pass\n"
    )
    (tmp_path / "Beside.yaml").write_text("width: 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = GenRecConfig("beside:Beside", "toy", config_dict=SETTINGS)
    assert config["width"] == 3 and config["item_text_fields"] == ["title"]


# --- item texts -----------------------------------------------------------------------------------


def test_a_class_says_once_that_it_reads_texts(run, folder):
    values = {**SETTINGS, "data_path": str(folder)}
    config = GenRecConfig(MEAN_TEXT, "toy", config_dict=values)
    assert config.model_class.describe(config)["item text"] == "title"
    with pytest.raises(DataError, match="^MeanText needs texts of items"):
        check_item_texts(GenRecConfig(MEAN_TEXT, "toy", config_dict=values | NO_TEXT))
    model = load_data_and_model(run["checkpoint"], MEAN_TEXT).model
    lacks = model.lacks_of_new_items(["a red soap", " "], ["n1", "n2"], [[], []])
    assert lacks == {"n2": "they have no text in the .item file."}


def test_a_class_that_says_it_in_another_word_is_told_so(folder):
    class WithBoolean(VectorRecommender):
        @classmethod
        def text_use(cls, config):
            return True

    message = "WithBoolean returns True. It must return one of 'none', 'optional', 'required'"
    with pytest.raises(ConfigError, match=message):
        train(folder, WithBoolean)


def test_a_class_that_says_it_in_an_older_way_is_told_so(folder):
    class WithHook(VectorRecommender):
        @classmethod
        def requires_texts(cls, config):
            return True

    class WithArgument(VectorRecommender):
        def __init__(self, config, dataset, stored=None):
            super().__init__(config, dataset, stored, needs_text=True)

    class ByPosition(VectorRecommender):
        def __init__(self, config, dataset, stored=None):
            super().__init__(config, dataset, stored, True)

    class OfRecBole(AbstractRecommender):
        reads_text = False

    advice = r"Write the class method text_use\(cls, config\)"
    assert outside.register(OfRecBole) is OfRecBole
    with pytest.raises(ConfigError, match=f"ByPosition says by needs_text .*{advice}"):
        train(folder, ByPosition)
    with pytest.raises(ConfigError, match=f"WithHook says by requires_texts .*{advice}"):
        train(folder, WithHook)
    with pytest.raises(ConfigError, match=f"WithArgument says by needs_text .*{advice}"):
        train(folder, WithArgument)


# --- beside RecBole's models ----------------------------------------------------------------------


def benchmark_file(folder, *runs, **settings):
    content = {
        "data_path": str(folder),
        "output": "results",
        "baseline": "SASRec",
        "processes": 1,
        "threads": 1,
        "datasets": ["toy"],
        "seeds": [1, 2],
        "settings": {
            **{key: value for key, value in SETTINGS.items() if key != "show_progress"},
            "epochs": 1,
            **settings,
        },
        "runs": [
            {
                "name": "SASRec",
                "model": "SASRec",
                "settings": {"hidden_size": 16, "inner_size": 16, "n_layers": 1},
            },
            *runs,
        ],
    }
    Path("plan.yaml").write_text(yaml.safe_dump(content))


def test_a_leaderboard_with_seeds_beside_sasrec(folder, tmp_path, monkeypatch):
    """A method of vectors, and one of codes with a tokenizer of its own."""
    write_new_method("NextCode", tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(METHODS), str(tmp_path)]))
    vectors = {"name": "mean", "model": MEAN_TEXT}
    of_codes = {**CODED, "tokenizer": "initials:InitialsTokenizer"}
    codes = {"name": "codes", "model": NEXT_CODE, "settings": of_codes}
    benchmark_file(folder, vectors, codes, **{"MeanText.width": 6})
    assert main(["benchmark", "plan.yaml"]) == 0
    rows = json.loads(Path("results/leaderboard.json").read_text())["rows"]
    assert {row["run"] for row in rows} == {"SASRec", "mean", "codes"}
    for row in rows:
        assert row["seeds"] == [1, 2] and row["test"]["recall@10"]["std"] is not None
        assert row["is_baseline"] or row["against_baseline"]["users"] == row["users"]
    state = json.loads(Path("results/runs.json").read_text())["runs"]
    assert [run["status"] for run in state] == ["done"] * 6
    result = json.loads(Path("results/results/mean-toy-2.json").read_text())
    assert result["config"]["width"] == 6 and result["seed"] == 2
    for seed in (1, 2):
        result = json.loads(Path(f"results/results/codes-toy-{seed}.json").read_text())
        assert result["seed"] == seed and result["config"]["n_initials"] == 2
        levels = result["report"]["tokenizer"]["levels"]
        assert [level["size"] for level in levels][:2] == [26, 26]
    assert main(["benchmark", "plan.yaml"]) == 0  # everything is done already
