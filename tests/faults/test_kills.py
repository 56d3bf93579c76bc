"""kill -9, SIGTERM and SIGINT at any moment: the same command with ``--resume`` ends with the
numbers of an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from counts import KILLS, SIGNALS, tried
from forked_runs import ForkedRuns
from toy import TINY_OF, write_dataset

from recbole_genrec.experiments.command_line import argument

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
LETTER = {
    "tokenizer": "letter",
    "hidden_sizes": [16],
    "code_dim": 8,
    "cf_dim": 4,
    "cf_epochs": 2,
    "n_clusters": 2,
    "alpha": 0.1,
}
CASES = {
    "STORE": {
        **TINY_OF["STORE"],
        "tokenizer_epochs": 4,
        "epochs": 3,
        "align_mode": "alternate",
        "lr_scheduler": "cosine",
    },
    "TIGER": {
        **TINY_OF["TIGER"],
        **LETTER,
        "tokenizer_epochs": 6,
        "tokenizer_eval_interval": 2,
        "epochs": 3,
        "train_batch_size": 128,
    },
}
STAGES_OF = {
    "STORE": ("tokenizer", "training", "evaluation", "writing"),
    "TIGER": ("tokenizer", "embedding", "training", "evaluation", "writing"),
}


class Harness:
    """Reference runs of the two models, and interrupted ones beside them."""

    def __init__(self, home: Path) -> None:
        self.home, self.runs = home, ForkedRuns()
        write_dataset(home / "data")
        self.known: dict[str, dict] = {}

    def command(self, model: str, *more: str) -> list[str]:
        settings = {
            **CASES[model],
            "model": model,
            "dataset": "toy",
            "data_path": str(self.home / "data"),
            "result_file": "result.json",
        }
        return [*(f"--{key}={argument(value)}" for key, value in settings.items()), *more]

    def reference(self, model: str) -> dict:
        """Seconds of the stages, and the numbers, of an uninterrupted run."""
        folder = self.home / f"{model}-whole"
        if model not in self.known:
            assert self.runs.run(folder, self.command(model), measure=True) == 0, (
                folder / "output.txt"
            ).read_text()
            self.known[model] = {
                "stages": json.loads((folder / "stages.json").read_text()),
                "numbers": numbers(folder),
            }
        return self.known[model]

    def interrupted(self, folder: Path, model: str, moment: dict) -> int:
        """Start a run, with what it needs from the cache when its evaluation is meant; halve the
        delay until the signal comes in time.
        """
        self.reference(model)
        while True:
            shutil.rmtree(folder, ignore_errors=True)
            if moment["stage"] == "evaluation":
                shutil.copytree(self.home / f"{model}-whole" / ".cache", folder / ".cache")
            status = self.runs.run(folder, self.command(model), moment)
            if status != 0:
                return status
            assert moment["delay"] > 1e-4, "the stage was never entered"
            moment = {**moment, "delay": moment["delay"] / 2}

    def continues(self, folder: Path, model: str) -> None:
        """The same command with ``--resume`` gives the same numbers and leaves no half-written
        file.
        """
        assert self.runs.run(folder, self.command(model, "--resume")) == 0, (
            folder / "output.txt"
        ).read_text()[-3000:]
        assert numbers(folder) == self.reference(model)["numbers"]
        assert not [
            path
            for path in folder.rglob("*")
            if path.suffix == ".tmp" or path.name.startswith("fit-")
        ]

    def moments(
        self, model: str, seed: int, stages: tuple[str, ...], number: int
    ) -> Iterator[dict]:
        """Random moments, the stages in turn."""
        draw = random.Random(seed)
        for index in range(number):
            passes = self.reference(model)["stages"][stages[index % len(stages)]]
            entry = draw.randrange(len(passes))
            delay = draw.random() * passes[entry]
            yield {
                "stage": stages[index % len(stages)],
                "entry": entry,
                "delay": delay,
                "signal": signal.SIGKILL,
            }


def numbers(folder: Path) -> dict:
    """Everything in the result file that must not depend on interruptions."""
    result = json.loads((folder / "result.json").read_text())
    result["report"]["tokenizer"].pop("fit_cpu_seconds")
    return {
        key: result[key]
        for key in ("test_result", "best_valid_score", "best_valid_result", "epochs", "report")
    }


@pytest.fixture(scope="module")
def harness(tmp_path_factory) -> Iterator[Harness]:
    made = Harness(tmp_path_factory.mktemp("kills"))
    yield made
    made.runs.close()


def survives(harness: Harness, folder: Path, model: str, moment: dict) -> None:
    with tried(KILLS):
        assert harness.interrupted(folder, model, moment) == -signal.SIGKILL
        harness.continues(folder, model)


@pytest.mark.parametrize("stage", ["tokenizer", "training"])
def test_a_killed_run_continues(harness, tmp_path, stage):
    for moment in harness.moments("STORE", 1, (stage,), 1):
        survives(harness, tmp_path / "run", "STORE", moment)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "number"), [("STORE", 24), ("TIGER", 26)])
def test_runs_survive_kills_at_random_moments(harness, tmp_path, model, number):
    for index, moment in enumerate(harness.moments(model, 2026, STAGES_OF[model], number)):
        survives(harness, tmp_path / str(index), model, moment)


@pytest.mark.parametrize(
    ("stage", "entry", "number", "status", "saved", "continues"),
    [  # the first five steps of an epoch are those of align_mode: alternate
        (
            "training step",
            5,
            signal.SIGTERM,
            143,
            "saved/*.resume.pth",
            "Resuming at epoch 0, batch 1 from",
        ),
        (
            "tokenizer step",
            0,
            signal.SIGINT,
            130,
            ".cache/fit-store-*.pth",
            "The fit continues at epoch 1 from",
        ),
        (
            "evaluation",
            0,
            signal.SIGTERM,
            143,
            "saved/*.resume.pth",
            "Resuming at epoch 0, batch 2 from",
        ),
    ],
)
def test_a_signal_saves_and_says_how_to_go_on(
    harness, tmp_path, stage, entry, number, status, saved, continues
):
    folder = tmp_path / "run"
    with tried(SIGNALS):
        assert (
            harness.interrupted(
                folder, "STORE", {"stage": stage, "entry": entry, "delay": None, "signal": number}
            )
            == status
        )
        output = (folder / "output.txt").read_text()
        assert f"Stopped by {number.name}" in output and "Traceback" not in output
        assert (
            shlex.join(["recbole-genrec", "run", *harness.command("STORE", "--resume")]) in output
        )
        assert len(list(folder.glob(saved))) == 1 and not (folder / "result.json").exists()
        harness.continues(folder, "STORE")
        assert continues in (folder / "output.txt").read_text()
