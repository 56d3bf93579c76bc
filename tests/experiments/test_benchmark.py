"""A benchmark file: what is refused, real runs with one that fails, a second call that runs
nothing again, and how runs are started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from toy import write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments import benchmark as module
from recbole_genrec.experiments.benchmark import last_error, run_benchmark
from recbole_genrec.experiments.benchmark_file import read_benchmark
from recbole_genrec.experiments.command_line import argument
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.settings.parsing import parse_value
from recbole_genrec.storage.artefacts import META, write_json

SMALL = {
    "MAX_ITEM_LIST_LENGTH": 8,
    "topk": [5, 10],
    "gpu_id": "",
    "epochs": 2,
    "SASRec.train_batch_size": 32,
}
SASREC = {"hidden_size": 16, "inner_size": 16, "n_layers": 1}


def content(folder, **changes):
    """A file of two runs on two seeds."""
    runs = [{"name": "pop", "model": "Pop"}, {"name": "sas", "model": "SASRec", "settings": SASREC}]
    plan = {
        "data_path": str(folder),
        "output": "out",
        "datasets": ["toy"],
        "seeds": [1, 2],
        "settings": SMALL,
        "runs": runs,
    }
    return {**plan, **changes}


def write(plan, file="plan.yaml"):
    Path(file).write_text(yaml.safe_dump(plan))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_the_plan_is_every_run_on_every_dataset_and_seed(folder):
    runs = [
        *content(folder)["runs"],
        {
            "name": "one",
            "model": "STORE",
            "tokenizer": "store",
            "seeds": [7],
            "settings": {"epochs": 5, "item_text_fields": ["title"]},
        },
    ]
    plan = read_benchmark(write(content(folder, baseline="pop", processes=2, threads=1, runs=runs)))
    assert [run.id for run in plan.runs] == [
        "pop-toy-1",
        "pop-toy-2",
        "sas-toy-1",
        "sas-toy-2",
        "one-toy-7",
    ]
    assert (plan.baseline, plan.processes, plan.threads, plan.output) == ("pop", 2, 1, Path("out"))
    last = plan.runs[-1]
    assert (last.tokenizer, plan.runs[0].tokenizer) == ("store", None)
    assert {
        "--model=STORE",
        "--tokenizer=store",
        "--epochs=5",
        "--save_ranks=auto",
        "--resume",
        "--topk=[5, 10]",
    } <= set(last.argv)
    assert len({run.run_name for run in plan.runs}) == 5


def test_the_command_line_replaces_keys_of_the_file(folder):
    file = write(content(folder))
    plan = read_benchmark(file, seeds=[5], output="elsewhere", only=["sas"])
    assert (
        [run.id for run in plan.runs] == ["pop-toy-5", "sas-toy-5"]
        and plan.only == ("sas",)
        and plan.output == Path("elsewhere")
    )
    with pytest.raises(ConfigError, match="unknown key 'seed'. Did you mean seeds"):
        read_benchmark(file, seed=5)
    with pytest.raises(ConfigError, match="only 'sass' is no run. Did you mean sas"):
        read_benchmark(file, only=["sass"])
    with pytest.raises(ConfigError, match="only is 'sas'"):
        read_benchmark(file, only="sas")
    with pytest.raises(ConfigError, match="unknown key 'file'"):
        read_benchmark(file, file="x.yaml")


def test_only_some_of_the_runs(folder, quick, capsys, monkeypatch):
    quick(DONE)
    monkeypatch.setattr(
        "recbole_genrec.report.leaderboard.make_leaderboard", lambda *_, **__: "the table"
    )
    assert main(["benchmark", write(content(folder)), "--seeds=[5]", "--only=[sas]"]) == 0
    states = {
        run["name"]: run["status"] for run in json.loads(Path("out/runs.json").read_text())["runs"]
    }
    assert states == {"pop": "pending", "sas": "done"}
    with pytest.raises(SystemExit):
        main(["leaderboard", "out", "--seeds=[5]"])
    assert "No such option: --seeds" in capsys.readouterr().err


def test_runs_of_the_same_settings_have_files_of_their_own(folder):
    runs = [
        {"name": "a", "model": "Pop"},
        {"name": "b", "model": "Pop", "settings": {"eval_batch_size": 64}},
    ]
    first, second = read_benchmark(write(content(folder, runs=runs, seeds=[1]))).runs
    assert first.run_name == second.run_name
    assert (
        "--checkpoint_dir=out/checkpoints/a" in first.argv
        and "--checkpoint_dir=out/checkpoints/b" in second.argv
    )


def test_settings_of_a_run_beat_the_shared_ones_of_its_model(folder):
    runs = [{"name": "sas", "model": "SASRec", "settings": {"train_batch_size": 64}}]
    (run, _) = read_benchmark(write(content(folder, runs=runs))).runs
    assert "--train_batch_size=64" in run.argv and "--SASRec.train_batch_size=32" not in run.argv


def test_the_tokenizer_of_a_run_beats_the_shared_one_of_its_model(folder):
    text = {"item_text_fields": ["title"]}
    runs = [{"name": "a", "model": "TIGER"}, {"name": "b", "model": "TIGER", "tokenizer": "random"}]
    shared = {**text, "TIGER.tokenizer": "rkmeans"}
    one, two = read_benchmark(write(content(folder, runs=runs, settings=shared, seeds=[1]))).runs
    assert (one.tokenizer, two.tokenizer) == ("rkmeans", "random")
    # LETTER's codes under another generator are a run of TimelineRec
    other = {"generator": "timeline", "epochs": 3}
    runs = [{"name": "c", "model": "LETTER", "settings": other}]
    shared = {**text, "TimelineRec.epochs": 5}
    (run,) = read_benchmark(write(content(folder, runs=runs, settings=shared, seeds=[1]))).runs
    assert run.config["epochs"] == 3


def test_paths_may_begin_with_the_home_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(folder)
    plan = read_benchmark(write(content("~/data", output="~/results", seeds=[1])))
    run = plan.runs[0]
    assert plan.output == tmp_path / "results"
    assert run.config["data_path"] == str(tmp_path / "data" / "toy")
    assert run.config["result_file"] == str(plan.result(run))
    assert run.config["checkpoint_dir"] == str(tmp_path / "results" / "checkpoints" / "pop")


def test_dates_are_texts(folder):
    Path("plan.yaml").write_text(
        f"data_path: {folder}\noutput: out\ndatasets: [toy]\nseeds: [1]\n"
        "settings: {val_interval: {item_id: [2024-01-01]}}\nruns: [{name: a, model: Pop}]\n"
    )
    (run,) = read_benchmark("plan.yaml").runs
    assert run.config["val_interval"] == {"item_id": ["2024-01-01"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "runs": [
                    {
                        "name": "a",
                        "model": "TIGER",
                        "tokenizer": "random",
                        "settings": {"TIGER.tokenizer": "cid"},
                    }
                ]
            },
            "run a: tokenizer stands beside settings and in settings",
        ),
        ({"dataset": ["toy"]}, "unknown key 'dataset'. Did you mean datasets"),
        (
            {"runs": [{"name": "a", "model": "Pop", "seed": [1]}]},
            "run a: unknown key 'seed'. Did you mean seeds",
        ),
        ({"runs": [{"name": "a"}]}, "run a: model must be set"),
        ({"runs": []}, "runs is"),
        ({"output": None}, "output must be set"),
        ({"seeds": ["x"]}, "seeds is"),
        ({"seeds": [1, 1]}, "listed twice"),
        ({"processes": 0}, "processes is 0"),
        ({"baseline": "SAS"}, "Did you mean sas"),
        ({"runs": [{"name": "a", "model": "Pop"}] * 2}, "unique"),
        ({"runs": [{"name": "a/b", "model": "Pop"}]}, "becomes a file name"),
        ({"runs": [{"name": "..", "model": "Pop"}]}, "not of points alone"),
        ({"runs": [{"name": "a", "model": "Popp"}]}, "run a: There is no model 'Popp'"),
        (
            {"runs": [{"name": "a", "model": "Pop", "tokenizer": "random"}]},
            "Pop has no item tokenizer",
        ),
        (
            {"runs": [{"name": "a", "model": "STORE", "settings": {"beam_with": 20}}]},
            "Did you mean beam_width",
        ),
        (
            {"runs": [{"name": "a", "model": "STORE"}]},
            "run a: STORE needs texts of items.*title, brand",
        ),
        ({"settings": {"Pop.seed": 3}}, "Pop.seed in settings"),
        ({"settings": {"resume": True}}, "resume in settings"),
    ],
)
def test_a_wrong_file_is_refused_before_any_run(folder, changes, message, capsys):
    file = write(content(folder, **changes))
    with pytest.raises(ConfigError, match=message):
        read_benchmark(file)
    assert main(["benchmark", file]) == 2
    assert "ConfigError" in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize(
    "value",
    [
        1,
        0.1,
        1e-05,
        True,
        None,
        "CE",
        "",
        "True",
        "10",
        "[1",
        [8, 8],
        {"a": None, "b": [True, "x"]},
        "it's",
        [],
        {"a": {"b": 1.5}},
        {1: 2},
    ],
)
def test_arguments_are_read_back(value):
    assert parse_value(argument(value)) == value


def test_runs_failures_and_a_second_call_that_runs_nothing_again(folder, capsys, monkeypatch):
    runs = [
        content(folder)["runs"][1],
        {"name": "diverging", "model": "SASRec", "settings": {**SASREC, "learning_rate": 1e30}},
    ]
    plan = content(folder, seeds=[1], runs=runs, processes=2, threads=1, baseline="sas")
    assert main(["benchmark", write(plan)]) == 1
    printed = capsys.readouterr().out
    assert (
        "1/1" in printed
        and "0/1, 1 FAILED" in printed
        and "FAILED, GenRecError: The training loss is nan" in printed
    )
    states = {run["name"]: run for run in json.loads(Path("out/runs.json").read_text())["runs"]}
    assert [states[name]["status"] for name in ("sas", "diverging")] == ["done", "failed"]
    assert "Traceback" not in Path("out/logs/sas-toy-1.log").read_text()
    result = json.loads(Path("out/results/sas-toy-1.json").read_text())
    assert UserRanks.load("out/results/sas-toy-1.ranks").recall(10).mean() == pytest.approx(
        result["test_result"]["recall@10"], abs=1e-6
    )
    assert (result["seed"], result["config"]["train_batch_size"], result["config"]["epochs"]) == (
        1,
        32,
        2,
    )
    assert [file.name.split("-")[0] for file in Path("out/checkpoints").glob("*/*.resume.pth")] == [
        "SASRec"
    ]  # of the failed one
    assert {file.name for file in Path("out").glob("leaderboard.*")} == {
        "leaderboard.md",
        "leaderboard.csv",
        "leaderboard.json",
        "leaderboard.html",
        "leaderboard.tex",
    }

    monkeypatch.setattr(
        module, "_start", lambda *_: pytest.fail("a finished run was started again")
    )
    assert main(["benchmark", write({**plan, "runs": runs[:1]})]) == 0
    assert "FAILED" not in capsys.readouterr().out
    changed = read_benchmark(write({**plan, "settings": {**SMALL, "epochs": 3}}))
    assert not changed.is_done(changed.runs[0])  # other settings
    kept = read_benchmark(write(plan))
    assert kept.is_done(kept.runs[0])
    Path("out/results/sas-toy-1.json").write_text("{")
    assert not kept.is_done(kept.runs[0])


@pytest.mark.parametrize(
    "eval_args", [{"mode": "uni20"}, {"split": {"RS": [0.6, 0.2, 0.2]}}], ids=str
)
def test_a_test_without_a_rank_for_each_user_is_done_without_ranks(folder, eval_args):
    settings = {**SMALL, "epochs": 1, "eval_args": eval_args}
    runs = content(folder)["runs"][1:]
    plan = read_benchmark(write(content(folder, seeds=[1], settings=settings, runs=runs)))
    (run,) = plan.runs
    assert main(["run", *run.argv]) == 0
    assert json.loads(plan.result(run).read_text())["ranks"] is None
    assert plan.is_done(run)


def test_a_run_whose_named_ranks_are_gone_is_not_done(folder):
    plan = read_benchmark(write(content(folder, seeds=[1])))
    run = plan.runs[0]
    named = {"checkpoint": f"saved/{run.run_name}.pth", "ranks": "pop-toy-1.ranks"}
    write_json(plan.result(run), named)
    assert not plan.is_done(run)
    write_json(plan.result(run), {**named, "ranks": None})
    assert plan.is_done(run)


def test_a_test_with_other_settings_does_not_make_a_run_done(folder):
    plan = read_benchmark(write(content(folder, seeds=[1])))
    run = plan.runs[0]
    tested = {"checkpoint": f"saved/{run.run_name}.pth", "changes": {"exclude_history": True}}
    write_json(plan.result(run), tested)
    assert not plan.is_done(run)
    write_json(plan.result(run), {**tested, "changes": {}})
    assert plan.is_done(run)


def test_runs_that_make_no_table_are_refused_before_any_run(folder):
    filtered = {**SASREC, "user_inter_num_interval": "[9,inf)"}
    sampled = {**SASREC, "eval_args": {"mode": "uni20"}}
    for settings, key in ((filtered, "user_inter_num_interval"), (sampled, "eval_args")):
        runs = [*content(folder)["runs"], {"name": "b", "model": "SASRec", "settings": settings}]
        file = write(content(folder, runs=runs))
        with pytest.raises(ConfigError, match=f"plan.yaml, toy: pop and b cannot .* in {key}"):
            read_benchmark(file)
        assert read_benchmark(file, only=["b"])


@pytest.fixture
def quick(monkeypatch):
    """Runs that are one line of Python; ``seen`` collects how many were alive at each start."""
    alive, seen = [], []

    def install(code):
        def start(benchmark, run, environment):
            benchmark.log(run).parent.mkdir(parents=True, exist_ok=True)
            with open(benchmark.log(run), "wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-S", "-c", code, str(benchmark.result(run)), run.run_name],
                    stdout=stream,
                )
            alive.append(process)
            seen.append(sum(other.poll() is None for other in alive))
            return process, 0

        monkeypatch.setattr(module, "_start", start)
        return alive, seen

    return install


DONE = f"""
import json, os, sys
file, name = sys.argv[1:]
os.makedirs(file[:-5] + ".ranks", exist_ok=True)
open(file[:-5] + ".ranks/{META}", "w").close()
json.dump({{"checkpoint": "saved/" + name + ".pth"}}, open(file, "w"))
"""


def test_several_runs_at_once_but_no_more(folder, quick):
    _, seen = quick(DONE)
    plan = read_benchmark(write(content(folder, processes=2)))
    assert run_benchmark(plan) == 0
    assert len(seen) == 4 and max(seen) == 2
    assert run_benchmark(plan) == 0 and len(seen) == 4


def test_a_killed_run_and_a_silent_one_are_failures(folder, quick):
    quick("import os, sys; 'pop' in sys.argv[1] and os.kill(os.getpid(), 9)")
    lines = []
    plan = read_benchmark(write(content(folder, seeds=[1])))
    assert run_benchmark(plan, lines.append) == 2
    assert (
        "pop-toy-1: killed by signal 9" in lines[0]
        and "sas-toy-1: exit status 0 without a message" in lines[1]
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_benchmark_stops_its_runs(folder, quick, number):
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("these tests were started with nohup, which ignores SIGHUP")
    alive, _ = quick("import time; time.sleep(60)")
    plan = read_benchmark(write(content(folder, processes=2)))
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    with pytest.raises(SystemExit):
        run_benchmark(plan)
    assert len(alive) == 2 and all(process.returncode == -signal.SIGTERM for process in alive)
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_run_has_a_session_of_its_own(folder):
    """Ctrl-C in a terminal reaches the benchmark alone, which then asks the run to save."""
    plan = read_benchmark(write(content(folder, seeds=[1])))
    process, _ = module._start(plan, plan.runs[0], dict(os.environ))
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.kill()
        process.wait()


def test_the_last_error_line_of_this_attempt(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("OldError: before\n")
    offset = log.stat().st_size
    with open(log, "a") as stream:
        stream.write(
            "epoch 1\nTraceback (most recent call last):\n  File "
            "x\ntorch.cuda.OutOfMemoryError: too large\nbye\n"
        )
    assert last_error(log, offset, 1) == "torch.cuda.OutOfMemoryError: too large"
    assert last_error(log, log.stat().st_size, 3) == "exit status 3 without a message"
