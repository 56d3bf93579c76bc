"""The parameter file, what is refused before the first run, and a search through RecBole's
HyperTuning.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import recbole.trainer
import torch
from toy import write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ConfigError, HeldError
from recbole_genrec.experiments import tuning
from recbole_genrec.experiments.tuning import tune
from recbole_genrec.experiments.tuning_space import ends, read_space

SASREC = [
    "--hidden_size=16",
    "--inner_size=16",
    "--n_layers=1",
    "--epochs=1",
    "--MAX_ITEM_LIST_LENGTH=8",
    "--topk=[5,10]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def arguments(folder, *more):
    fixed = [
        f"--data_path={folder}",
        "--gpu_id=",
        "--show_progress=False",
        "--params_file=space.test",
    ]
    return ["--model=SASRec", "--dataset=toy", *fixed, *SASREC, *more]


def write(text):
    Path("space.test").write_text(text)


def test_recboles_parameter_file():
    write(
        "# comment\n\nlearning_rate loguniform -8, 0\nloss_type choice ['CE', "
        "'BPR']\ndropout uniform 0.1,0.5\nhidden quniform 32,128,32\n"
    )
    space = read_space("space.test")
    assert space == {
        "loguniform": {"learning_rate": [-8, 0]},
        "choice": {"loss_type": ["CE", "BPR"]},
        "uniform": {"dropout": [0.1, 0.5]},
        "quniform": {"hidden": [32, 128, 32]},
    }
    tried = ends(space)
    assert (
        tried[0] == {"learning_rate": pytest.approx(0.000335, rel=1e-2)}
        and {"loss_type": "BPR"} in tried
        and {"hidden": 128} in tried
    )


@pytest.mark.parametrize(
    "line",
    [
        "learning_rate choice",
        "learning_rate choice 0.1",
        "learning_rate choice []",
        "learning_rate chocie [0.1]",
        "dropout uniform 0.5,0.1",
        "dropout uniform 0.1",
        "hidden quniform 1,2",
        "dropout uniform a,b",
        "dropout uniform __import__('os').system('x'),1",
        "a choice [1]\na choice [2]",
        "",
    ],
)
def test_bad_parameter_files(line):
    write(line + "\n")
    with pytest.raises(ConfigError, match="space.test"):
        read_space("space.test")


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("learning_rate choice [0.01,-1]", [], "learning_rate is -1"),
        ("learning_rat choice [0.01]", [], "Did you mean learning_rate"),
        ("epochs choice [1,2]", [], "epochs stands in space.test and on the command line"),
        (
            "learning_rate choice [0.01]",
            ["--SASRec.learning_rate=0.5"],
            "learning_rate stands in space.test, and SASRec.learning_rate, which wins over it, on",
        ),
        (
            "SASRec.learning_rate choice [0.01]",
            ["--SASRec.learning_rate=0.5"],
            "SASRec.learning_rate stands in space.test and on the command line",
        ),
        (
            "learning_rate choice [0.01]\nSASRec.learning_rate choice [0.5]",
            [],
            "SASRec.learning_rate, which wins over it, in space.test",
        ),
        ("GRU4Rec.learning_rate choice [0.01]", [], "but SASRec is trained, and no trial would"),
        ("learning_rate loguniform -8,0", [], "exhaustive tries listed values"),
        ("learning_rate choice [0.01]", ["--algo=grid"], "algo is 'grid'"),
        ("learning_rate choice [0.01]", ["--result_file=x.json"], "names one file"),
        ("learning_rate choice [0.01]", ["--eval_step=0"], "eval_step"),
        ("eval_step choice [0,1]", [], "eval_step must be at least 1"),
        ("hold_out choice [False,True]", [], "hold_out: False holds nothing out"),
        (
            "learning_rate choice [0.01]",
            ["--eval_args={split: {LS: test_only}}"],
            "test_only of eval_args has no validation part",
        ),
        ("result_file choice ['a.json']", [], "a search has many results"),
        ("learning_rate choice [0.01]", ["--params_file"], "params_file needs a value"),
        ("learning_rate choice [0.01]", ["--max_evals=abc"], "max_evals is 'abc'"),
    ],
)
def test_wrong_searches_are_refused_before_the_first_run(folder, text, more, message):
    write(text + "\n")
    with pytest.raises(ConfigError, match=message):
        tune(without_repeated(arguments(folder, *more)))


def without_repeated(words):
    """Of two arguments of one key the later."""
    return list({word.partition("=")[0]: word for word in words}.values())


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("exclude_history choice [False,True]", "exclude_history"),
        ("valid_metric choice ['NDCG@10','Recall@10']", "valid_metric"),
        ("valid_users choice [0,10]", "valid_users"),
        ("topk choice [[5,10],[10]]", "topk"),
        ("val_interval choice [{'timestamp':'[0,inf)'}]", "val_interval"),
        ("user_inter_num_interval choice ['[0,inf)','[5,inf)']", "user_inter_num_interval"),
        ("eval_args choice [{'mode':'uni100'}]", "eval_args"),
        ("tail_ratio choice [0.1,0.5]", "tail_ratio"),
    ],
)
def test_a_search_over_what_its_scores_measure_is_refused(folder, line, keys):
    write(line + "\n")
    argv = [word for word in arguments(folder) if not word.startswith("--topk")]
    with pytest.raises(ConfigError, match=rf"changes what the scores of .* measure \({keys}"):
        tune(argv)


def test_a_search_is_for_one_model(folder):
    write("learning_rate choice [0.01]\n")
    for models in ("[SASRec,Pop]", "SASRec,Pop"):
        with pytest.raises(ConfigError, match="for one model, but model is SASRec,Pop"):
            tune([f"--model={models}", *arguments(folder)[1:]])


TRIAL = {"params": {}, "score": 0, "valid": {}, "test": {}}


@pytest.mark.parametrize("owner", ["SASRec", "GRU4Rec"])
def test_a_section_of_a_config_file_wins_over_a_trial(folder, monkeypatch, owner):
    monkeypatch.setattr(tuning, "_search", lambda trials, *_: trials.entries.append(TRIAL))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: name == "hyperopt" or find(name, *rest)
    )
    write("learning_rate choice [0.01]\n")
    Path("own.yaml").write_text(f"{owner}.learning_rate: 0.5\n")
    argv = arguments(folder, "--config_files=own.yaml", "--GRU4Rec.learning_rate=0.1")
    if owner == "GRU4Rec":  # another method's
        assert tune(argv)["trials"] == [TRIAL]
        return
    with pytest.raises(ConfigError, match=r"SASRec\.learning_rate, .*, in own\.yaml\. Remove one"):
        tune(argv)


def test_settings_of_config_files_are_checked_before_the_first_run(folder, tmp_path):
    (tmp_path / "some settings.yaml").write_text("model: SASRec\ndataset: toy\neval_step: 0\n")
    (tmp_path / "space.txt").write_text("learning_rate choice [0.01]")
    argv = [
        f"--config_files={tmp_path / 'some settings.yaml'}",
        f"--params_file={tmp_path / 'space.txt'}",
        f"--data_path={folder}",
    ]
    with pytest.raises(ConfigError, match="eval_step must be at least 1"):
        tune(argv)


def test_a_missing_hyperopt_is_named_with_its_version(folder, monkeypatch, capsys):
    write("learning_rate choice [0.01]\n")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "hyperopt" else find(name, *rest),
    )
    assert main(["tune", *arguments(folder)]) == 2
    assert "pip install 'hyperopt==0.2.5' 'setuptools<81'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["tune"])
    assert "--params_file" in capsys.readouterr().out


class Grid:
    """What our code uses of RecBole's HyperTuning: every combination of the listed choices."""

    def __init__(self, objective, params_dict, algo, max_evals, early_stop):
        self.objective, self.choices = objective, params_dict["choice"]

    def run(self):
        for values in itertools.product(*self.choices.values()):
            self.objective(dict(zip(self.choices, values, strict=True)), None)


def test_trials_their_best_and_one_that_fails(folder, monkeypatch):
    stub = types.ModuleType("hyperopt")
    stub.__spec__ = ModuleSpec("hyperopt", None)
    monkeypatch.setitem(sys.modules, "hyperopt", stub)
    monkeypatch.setattr(recbole.trainer, "HyperTuning", Grid)
    write("learning_rate choice [0.00001,0.01,1e30]\n")
    found = tune(arguments(folder, "--train_batch_size=32"))
    scores = {trial["params"]["learning_rate"]: trial.get("score") for trial in found["trials"]}
    assert list(scores) == [1e-05, 0.01, 1e30]
    best = max((0.00001, 0.01), key=scores.get)
    assert (
        found["best_params"] == {"learning_rate": best}
        and found["best_valid_score"] == scores[best]
    )
    assert json.loads(Path("tuning.json").read_text())["trials"] == found["trials"]


@pytest.fixture
def trials_of(folder, monkeypatch):
    """Carries out a search whose runs are those of a function of the learning rate."""

    def search(run, *more):
        stub = types.ModuleType("hyperopt")
        stub.__spec__ = ModuleSpec("hyperopt", None)
        monkeypatch.setitem(sys.modules, "hyperopt", stub)
        monkeypatch.setattr(recbole.trainer, "HyperTuning", Grid)
        monkeypatch.setattr(
            tuning, "run_recbole_genrec", lambda config_dict, **_: run(config_dict["learning_rate"])
        )
        return tune(arguments(folder, *more))

    return search


def result(score):
    return {"best_valid_score": score, "best_valid_result": {}, "test_result": {"recall@10": 0.1}}


def test_a_trial_that_fails_for_any_reason_does_not_end_the_search(trials_of, caplog):
    files = []

    def run(rate):
        if Path("tuning.json").is_file():
            files.append(json.loads(Path("tuning.json").read_text()))
        if rate == 0.1:
            raise ValueError("The hidden size (64) is not a multiple of the number of heads (3)")
        if rate == 0.2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return result(None if rate == 0.3 else rate)

    write("learning_rate choice [0.1,0.2,0.3,0.4]\n")
    found = trials_of(run)
    assert found["best_params"] == {"learning_rate": 0.4}
    assert (
        "Trial 1, {'learning_rate': 0.1}, failed and counts as the worst: ValueError: The hid"
        in (caplog.text)
    )
    assert [len(file["trials"]) for file in files] == [1, 2, 3]  # written after every trial
    assert files[2]["best_params"] is None
    reasons = [trial.get("error") for trial in found["trials"]]
    assert reasons[1:] == [
        "OutOfMemoryError: CUDA out of memory.",
        "It has no validation score.",
        None,
    ]


def test_a_search_without_a_score_is_refused(trials_of):
    def run(rate):
        raise RuntimeError(f"no {rate}")

    write("learning_rate choice [0.1,0.2]\n")
    with pytest.raises(ConfigError, match=r"Every trial failed; the last one with .* no 0\.2"):
        trials_of(run)
    assert len(json.loads(Path("tuning.json").read_text())["trials"]) == 2


@pytest.mark.parametrize("error", [HeldError("another process"), KeyboardInterrupt()])
def test_what_says_nothing_of_the_parameters_ends_the_search(trials_of, error):
    def run(rate):
        if rate == 0.2:
            raise error
        return result(rate)

    write("learning_rate choice [0.1,0.2,0.3]\n")
    with pytest.raises(type(error)):
        trials_of(run)
    assert len(json.loads(Path("tuning.json").read_text())["trials"]) == 1


def test_the_file_of_another_search_is_named(trials_of, caplog):
    write("learning_rate choice [0.1]\n")
    trials_of(result)
    trials_of(result, "--resume")
    assert "tuning.json" not in caplog.text
    write("learning_rate choice [0.1,0.2]\n")
    trials_of(result)
    assert "tuning.json holds 1 trials of another search; it is replaced" in caplog.text


def test_the_worst_score_leaves_hyperopt_able_to_see_progress():
    stopping = pytest.importorskip("hyperopt.early_stop", reason="needs the package hyperopt")
    config = types.SimpleNamespace(
        settings=types.SimpleNamespace(model="SASRec", dataset="toy", valid_metric_bigger=False)
    )
    trials = tuning.Trials({}, [], None, config, Path("tuning.json"))
    losses = [trials._failed({"params": {}}, "no")["best_valid_score"], 0.5]
    stops = stopping.no_progress_loss(2)
    state = []
    for number in (1, 2):
        documents = [{"result": {"loss": loss}} for loss in losses[:number]]
        ended, state = stops(types.SimpleNamespace(trials=documents), *state)
    assert not ended and state == [0.5, 0]


def test_the_seed_of_a_search_ends_with_it(monkeypatch):
    seeds = []

    class Search(Grid):
        def run(self):
            seeds.append(os.environ["HYPEROPT_FMIN_SEED"])

    monkeypatch.delenv("HYPEROPT_FMIN_SEED", raising=False)
    monkeypatch.setitem(sys.modules, "hyperopt", types.ModuleType("hyperopt"))
    monkeypatch.setattr(recbole.trainer, "HyperTuning", Search)
    trials = types.SimpleNamespace(run=None)
    options = types.SimpleNamespace(algo="random", max_evals=1, early_stop=10)
    for seed in (1, 2):
        config = types.SimpleNamespace(settings=types.SimpleNamespace(seed=seed))
        tuning._search(trials, {}, options, config)
    assert seeds == ["1", "2"] and "HYPEROPT_FMIN_SEED" not in os.environ


def test_recboles_search_itself(folder, monkeypatch):
    pytest.importorskip("hyperopt", reason="needs the package hyperopt (extra 'tune')")
    monkeypatch.delenv("HYPEROPT_FMIN_SEED", raising=False)
    write("loss_type choice ['CE','BPR']\nlearning_rate choice [0.001,0.01]\n")
    found = tune(arguments(folder))
    assert len(found["trials"]) == 4  # each combination once
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in found["trials"]}) == 4
    assert found["best_valid_score"] == max(trial["score"] for trial in found["trials"])


def test_whole_steps_and_lists_reach_the_runs_as_such(folder, monkeypatch):
    pytest.importorskip("hyperopt", reason="needs the package hyperopt (extra 'tune')")
    seen = []

    def run(config_file_list, config_dict, argv):
        seen.append(config_dict)
        return {
            "model": "SASRec",
            "best_valid_score": 0.1,
            "valid_score_bigger": True,
            "best_valid_result": {},
            "test_result": {},
        }

    monkeypatch.setattr(tuning, "run_recbole_genrec", run)
    monkeypatch.setenv("HYPEROPT_FMIN_SEED", "1")
    write(
        "train_batch_size quniform 16,64,16\nmetrics choice [['Recall','NDCG'],['NDCG','Recall']]\n"
    )
    tune(arguments(folder, "--algo=random", "--max_evals=3"))
    assert len(seen) == 3
    assert all(
        type(params["train_batch_size"]) is int and isinstance(params["metrics"], list)
        for params in seen
    )


def test_nothing_to_compare(folder):
    write("learning_rate choice [0.01,0.001]\n")
    with pytest.raises(ConfigError, match="hold_out: False holds nothing out"):
        tune(arguments(folder, "--hold_out=False"))
    with pytest.raises(ConfigError, match="eval_step must be at least 1"):
        tune(arguments(folder, "--eval_step=0"))
