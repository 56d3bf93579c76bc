"""The parameter file, what is refused before the first run, and a search through RecBole's
HyperTuning.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import recbole.trainer
from toy import write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments import tuning
from recbole_genrec.experiments.search_space import ends, read_space
from recbole_genrec.experiments.tuning import tune

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
    ],
)
def test_wrong_searches_are_refused_before_the_first_run(folder, text, more, message):
    write(text + "\n")
    with pytest.raises(ConfigError, match=message):
        tune(arguments(folder, *more))


@pytest.mark.parametrize("owner", ["SASRec", "GRU4Rec"])
def test_a_section_of_a_config_file_wins_over_a_trial(folder, monkeypatch, owner):
    monkeypatch.setattr(tuning, "_search", lambda trials, *_: trials.entries.append({"score": 0}))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: name == "hyperopt" or find(name, *rest)
    )
    monkeypatch.setattr(tuning.Trials, "summary", lambda trials: {"trials": trials.entries})
    write("learning_rate choice [0.01]\n")
    Path("own.yaml").write_text(f"{owner}.learning_rate: 0.5\n")
    argv = arguments(folder, "--config_files=own.yaml", "--GRU4Rec.learning_rate=0.1")
    if owner == "GRU4Rec":  # another method's
        assert tune(argv)["trials"] == [{"score": 0}]
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
