"""What the benchmarks share: arguments, a STORE without training, and the files that hold a
result.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from recbole.utils import init_seed

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.model.registry import build_model, is_generative
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import atomic_write
from recbole_genrec.training.accounting import commit, versions

RESULTS = Path(__file__).parent / "results"


def arguments(description: str, **defaults: object) -> argparse.Namespace:
    """``--key=value`` options with their defaults; every benchmark knows ``--dataset`` and
    ``--data_path``.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, default in {"dataset": "ml-100k", "data_path": None, **defaults}.items():
        parser.add_argument(
            f"--{name}", type=str if default is None else type(default), default=default
        )
    return parser.parse_args()


def load(model: str, options: argparse.Namespace, **settings: object):
    """``(config, dataset, (train, valid, test))`` of a model with its default settings, on the
    CPU.
    """
    settings |= {"gpu_id": "", "show_progress": False, "state": "WARNING"}
    if options.data_path:
        settings["data_path"] = options.data_path
    config = GenRecConfig(model, options.dataset, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return config, dataset, make_loaders(config, dataset, is_generative(config.model_class))


def untrained(
    model: str, options: argparse.Namespace, cache_dir: str | None = None, **settings: object
):
    """``(model, test loader)``: a model in its default size with random weights, on codes that
    its tokenizer makes of the texts.

    The codes are stored in ``cache_dir`` and taken from there the next time.
    """
    if cache_dir is None:
        with tempfile.TemporaryDirectory() as folder:
            return untrained(model, options, folder, **settings)
    config, _, (train, _, test) = load(model, options, cache_dir=cache_dir, **settings)
    return build_model(config, train._dataset).eval(), test


def medians(repeats: int, *functions: Callable[[], float]) -> list[list[float]]:
    """Seconds of each function, ``repeats`` values each; they take turns, and one round before
    is not counted.
    """
    rounds = [[function() for function in functions] for _ in range(repeats + 1)]
    return [list(values) for values in zip(*rounds[1:], strict=True)]


def write_result(
    name: str,
    title: str,
    result: dict,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    notes: str,
) -> None:
    """Print a table and write ``results/<name>.json`` and ``.md`` with the command, the versions
    and the machine.
    """
    shown = [
        argument
        for argument in sys.argv[1:]
        if not argument.startswith(("--data_path", "--cache_dir", "--fits", "--static"))
    ]
    about = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown]),
        "commit": commit(),
        "versions": versions(),
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processor": _processor(),
        },
    }
    write_json(RESULTS / f"{name}.json", {**result, **about})
    table = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    table += [
        "| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row) + " |"
        for row in rows
    ]
    packages = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    machine = (
        f"{about['machine']['cores']} cores, {about['machine']['threads']} thread(s) used, "
        f"{about['machine']['processor']}"
    )
    text = [
        f"# {title}",
        "",
        *table,
        "",
        notes,
        "",
        f"* command: `{about['command']}`",
        f"* commit {about['commit']}; {packages}",
        f"* {machine}",
    ]
    with atomic_write(RESULTS / f"{name}.md") as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


def unpack(commit: str, folder: str) -> Path:
    """The files of a commit, in ``folder``."""
    archive = subprocess.run(
        ["git", "-C", str(RESULTS.parents[1]), "archive", commit], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return Path(folder)


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def _processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
