"""Runs of the command line in forked children of a process that has everything imported, so that
a run costs seconds less.

``python forked_runs.py`` is that process: it reads one JSON request a line and answers with the
number of the child, then with its wait status. A child may get a signal at a moment inside a stage,
or note how long its stages take.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
STAGES = (
    "tokenizer",
    "tokenizer step",
    "embedding",
    "training",
    "training step",
    "evaluation",
    "writing",
)


class ForkedRuns:
    """Client of the process."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            bufsize=1,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(
        self, folder: Path, argv: list[str], moment: dict | None = None, measure: bool = False
    ) -> int:
        """Exit status of ``recbole-genrec run *argv`` in ``folder``, minus the signal's number
        when one ended it.

        Args:
            moment: ``{"signal", "stage", "entry", "delay"}``: that signal comes ``delay`` seconds
                after the ``entry``-th start (from 0) of the stage; at that start itself where
                ``delay`` is None.
            measure: write the seconds of each stage's passes to ``stages.json``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.process.stdin.write(
            json.dumps({"folder": str(folder), "argv": argv, "moment": moment, "measure": measure})
            + "\n"
        )
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    """Body of the process."""
    import torch

    torch.set_num_threads(1)
    import sentence_transformers  # noqa: F401

    from recbole_genrec.model import store, tiger  # noqa: F401

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(**request)
        print(os.waitpid(child, 0)[1], file=answers)


def _child(folder: str, argv: list[str], moment: dict | None, measure: bool) -> None:
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 99
    try:
        from recbole_genrec import cli
        from recbole_genrec.runtime import interrupts

        interrupts.SAVE_EVERY = 0.0
        seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        _watch(seconds, moment)
        status = cli.run(argv)
        if measure:
            Path("stages.json").write_text(json.dumps(seconds))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(seconds: dict[str, list[float]], moment: dict | None) -> None:
    """Time the passes of each stage, and send the signal of ``moment``."""
    from recbole_genrec.data.vectors.text_encoding import TextEncoding
    from recbole_genrec.storage import atomic
    from recbole_genrec.tokenizer.quantiser.dense import DenseTokenizer
    from recbole_genrec.tokenizer.store import STORETokenizer
    from recbole_genrec.tokenizer.vector_tokenizer import VectorTokenizer
    from recbole_genrec.training.trainer import GenRecTrainer

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        passes = seconds[name]
        if moment and moment["stage"] == name and moment["entry"] == len(passes):
            _send(moment["signal"], moment["delay"])
        passes.append(0.0)
        number, started = len(passes) - 1, time.monotonic()
        yield
        passes[number] = time.monotonic() - started

    def watched(function: Callable, name: str) -> Callable:
        @functools.wraps(function)
        def call(*args, **kwargs):
            with stage(name):
                return function(*args, **kwargs)

        return call

    places = [
        (STORETokenizer, "fit", "tokenizer"),
        (VectorTokenizer, "fit", "tokenizer"),
        (TextEncoding, "vectors", "embedding"),
    ]
    places += [
        (GenRecTrainer, "_train_epoch", "training"),
        (GenRecTrainer, "evaluate", "evaluation"),
    ]
    places += [
        (GenRecTrainer, "_optimiser_step", "training step"),
        (DenseTokenizer, "reconstruction_loss", "tokenizer step"),
    ]
    for owner, attribute, name in places:
        setattr(owner, attribute, watched(getattr(owner, attribute), name))
    temporary = atomic._temporary

    @contextlib.contextmanager
    def watched_temporary(*args) -> Iterator[Path]:
        with stage("writing"), temporary(*args) as path:
            yield path

    atomic._temporary = watched_temporary


def _send(number: int, delay: float | None) -> None:
    """After a delay another process sends it, so that it comes at any instant, also in the
    middle of a write.
    """
    target = os.getpid()
    if delay is None:
        os.kill(target, number)
    elif os.fork() == 0:
        time.sleep(delay)
        if os.getppid() == target:
            os.kill(target, number)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
