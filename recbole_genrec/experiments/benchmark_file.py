"""What a benchmark file asks for: many runs from one YAML.

::

    data_path: dataset            # where the datasets are; as on the command line
    output: results/beauty        # results, ranks, logs, checkpoints and the leaderboard
    baseline: SASRec              # name of the run that the others are tested against
    processes: 2                  # runs at once (default 1)
    threads: 1                    # threads of each (default: all cores shared out)
    datasets: [amazon-beauty]
    seeds: [2020, 2021, 2022]
    settings: {topk: [5, 10, 20], STORE.epochs: 30}
    runs:
      - {name: SASRec, model: SASRec, settings: {loss_type: CE}}
      - {name: timeline-store, model: TimelineRec, tokenizer: store, seeds: [2020]}

On the command line ``--seeds=[2020]`` and the like replace what the file says, and
``--only=[SASRec]`` carries out the runs of these names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, GenRecError
from recbole_genrec.experiments.arguments import argument
from recbole_genrec.model.outside import outside_names
from recbole_genrec.model.registry import get_model_class, model_name, needs_tokenizer
from recbole_genrec.model.text_needs import check_item_texts
from recbole_genrec.report.comparable import check_one_table
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.settings.classification import benchmark_keys
from recbole_genrec.settings.declaration import Key, Settings, key
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.rules import check_value, did_you_mean
from recbole_genrec.storage.artefacts import META, read_json


class RunEntryKeys(Settings):
    """Keys of one run in a benchmark file."""

    name: str = key("letters, digits, '-', '_', '+', '.'")
    model: str = key("name of a model, or package.module:Class")
    tokenizer: str | None = key("item tokenizer")
    settings: dict = key("keys and values for every run")
    datasets: list[str] = key("names of dataset folders")
    seeds: list[int] = key("random seeds", ge=0, le=2**32 - 1)


class BenchmarkKeys(Settings):
    """Keys of a benchmark file."""

    data_path: str | None = key("folder that holds the datasets' folders")
    output: str = key("folder for results, logs and the leaderboard")
    baseline: str | None = key("name of the run that the others are tested against")
    processes: int = key("runs at once", ge=1)
    threads: int | None = key("threads of each run", ge=1)
    datasets: list[str] = key("names of dataset folders")
    seeds: list[int] = key("random seeds", ge=0, le=2**32 - 1)
    settings: dict = key("keys and values for every run")
    runs: list[dict] = key("one mapping a run: name, model, tokenizer, settings, datasets, seeds")


class ArgumentKeys(Settings):
    """Arguments of the command beside the keys of the file."""

    only: list[str] | None = key("names of the runs to carry out")


@dataclass(frozen=True)
class PlannedRun:
    """One (run, dataset, seed).

    Attributes:
        name: name of the run.
        model: name of the model.
        tokenizer: name of the item tokenizer, None for models without.
        dataset: name of the dataset.
        seed: random seed.
        argv: arguments of its command.
        run_name: the name that its settings and data give the checkpoint.
        config: all its settings.
    """

    name: str
    model: str
    tokenizer: str | None
    dataset: str
    seed: int
    argv: tuple[str, ...]
    run_name: str
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def id(self) -> str:
        """Stem of the files of this run."""
        return file_stem(self.name, self.dataset, self.seed)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark file asks for.

    Attributes:
        output: folder for results, logs, checkpoints and the leaderboard.
        baseline: name of the run that the others are tested against.
        processes: runs at once.
        threads: threads of each run.
        runs: all of (run, dataset, seed).
        only: names of the runs to carry out.
    """

    output: Path
    baseline: str | None
    processes: int
    threads: int
    runs: tuple[PlannedRun, ...]
    only: tuple[str, ...]

    def result(self, run: PlannedRun) -> Path:
        """The result file of a run."""
        return result_file(self.output, run.id)

    def log(self, run: PlannedRun) -> Path:
        """Everything that a run printed."""
        return self.output / "logs" / f"{run.id}.log"

    def resume_file(self, run: PlannedRun) -> Path:
        """Where an interrupted run goes on from."""
        return checkpoint_folder(self.output, run.name) / f"{run.run_name}.resume.pth"

    def is_done(self, run: PlannedRun) -> bool:
        """Whether the result of the same settings and data, and the ranks it names, are there."""
        file = self.result(run)
        if not file.is_file():
            return False
        try:
            result = read_json(file, {"checkpoint": str})
        except ArtefactError:
            return False
        if Path(result["checkpoint"]).stem != run.run_name:
            return False
        return not result.get("ranks") or (ranks_folder(file) / META).is_file()


def file_stem(name: str, dataset: str, seed: int) -> str:
    """Stem of the files of a run."""
    return f"{name}-{dataset}-{seed}"


def result_file(output: Path, stem: str) -> Path:
    """The result file of a run."""
    return output / "results" / f"{stem}.json"


def checkpoint_folder(output: Path, name: str) -> Path:
    """Folder of a run's checkpoints.

    Each run has its own, because two runs may have the same settings, which name the files.
    """
    return output / "checkpoints" / name


def read_benchmark(file: str | os.PathLike[str], /, **changes: object) -> Benchmark:
    """Read a benchmark file and check every setting of every run.

    Args:
        file: the YAML file.
        **changes: keys of the file with other values, and ``only``, the names of the runs to carry
            out.

    Returns:
        The runs, which are all ready to start.

    Raises:
        ConfigError: an unknown or missing key, a bad value, two runs of one name, a run whose
            settings cannot work, or runs that cannot stand in one table.
    """
    only: Any = changes.pop("only", None)
    content: dict[str, Any] = {
        "processes": 1,
        "settings": {},
        **read_yaml(Path(file)),
        **changes,
    }
    _check(content, BenchmarkKeys.declared(), str(file))
    check_value(ArgumentKeys.declared()["only"], only)

    entries = _entries(content, str(file))
    names = [entry["name"] for entry in entries.values()]
    baseline = content.get("baseline")
    if baseline is not None:
        _check_run_name(file, "baseline", baseline, names)
    for name in only or []:
        _check_run_name(file, "only", name, names)

    runs: list[PlannedRun] = []
    for where, entry in entries.items():
        runs += _planned_runs(content, entry, where)
    if len({run.id for run in runs}) < len(runs):
        raise ConfigError(
            f"{file}: a dataset or a seed is listed twice, or two names and datasets join to the "
            f"same file name. Remove or rename one of them."
        )
    _check_tables([run for run in runs if run.name in (only or names)], str(file))
    threads = content.get("threads")
    if threads is None:  # share out all cores
        threads = max(1, (os.cpu_count() or 1) // content["processes"])
    return Benchmark(
        Path(content["output"]).expanduser(),
        baseline,
        content["processes"],
        threads,
        tuple(runs),
        tuple(only or names),
    )


def _check_tables(runs: Sequence[PlannedRun], file: str) -> None:
    """Check before the first training that the runs of each dataset make one leaderboard."""
    for dataset in dict.fromkeys(run.dataset for run in runs):
        settings = {run.name: run.config for run in runs if run.dataset == dataset}
        try:
            check_one_table(settings)
        except ConfigError as error:
            raise ConfigError(f"{file}, {dataset}: {error}") from error


def _entries(content: dict[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """The entries of ``runs`` with what the file sets for all, by where they stand.

    All classes are found before any setting is checked: a key like ``Mine.epochs`` in the settings
    of every run needs the name of the class.
    """
    entries: dict[str, dict[str, Any]] = {}
    names = set()
    for number, run in enumerate(content["runs"], start=1):
        where = f"{file}, run {run.get('name', number)}"
        shared = {"settings": {}, "datasets": content["datasets"], "seeds": content["seeds"]}
        entry = {**shared, **run}
        _check(entry, RunEntryKeys.declared(), where)
        try:
            get_model_class(entry["model"])
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if not re.fullmatch(r"[\w+.-]+", entry["name"]) or entry["name"] in names:
            raise ConfigError(
                f"{where}: a name must be unique and of letters, digits, '-', '_', '+', '.'; "
                f"it becomes a file name."
            )
        names.add(entry["name"])
        entries[where] = entry
    return entries


def _check(content: Mapping[str, object], keys: dict[str, Key], where: str) -> None:
    for name in content:
        if name not in keys:
            raise ConfigError(f"{where}: unknown key {name!r}.{did_you_mean(name, keys)}")
    try:
        for name, declared in keys.items():
            check_value(declared, content.get(name))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_run_name(
    file: str | os.PathLike[str], option: str, name: str, names: Sequence[str]
) -> None:
    if name not in names:
        hint = did_you_mean(name, names)
        raise ConfigError(f"{file}: {option} {name!r} is no run.{hint}")


def _planned_runs(content: dict[str, Any], entry: dict[str, Any], where: str) -> list[PlannedRun]:
    """The runs of one entry over its datasets and seeds."""
    settings = _settings(content, entry, where)
    runs = []
    for dataset in entry["datasets"]:
        for seed in entry["seeds"]:
            runs.append(_planned_run(content, entry, settings, dataset, seed, where))
    return runs


def _settings(content: dict[str, Any], entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of an entry, which win over those of every run."""
    own = _own_settings(entry, where)
    settings = {**_beside(own, content["settings"], model_name(entry["model"])), **own}

    taken = [name for name in settings if _key(name) in benchmark_keys()]
    if taken:
        raise ConfigError(
            f"{where}: {', '.join(taken)} in settings; the benchmark sets these keys itself. "
            f"Leave them out."
        )
    if content.get("data_path") is not None:
        settings["data_path"] = os.path.expanduser(content["data_path"])
    return settings


def _own_settings(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings that an entry itself gives, ``tokenizer`` among them.

    Raises:
        ConfigError: it names a tokenizer twice.
    """
    if entry.get("tokenizer") is None:
        return entry["settings"]
    if any(_key(name) == "tokenizer" for name in entry["settings"]):
        raise ConfigError(
            f"{where}: tokenizer stands beside settings and in settings. Remove one of the two."
        )
    return {**entry["settings"], "tokenizer": entry["tokenizer"]}


def _beside(own: dict[str, Any], shared: dict[str, Any], model: str) -> dict[str, Any]:
    """The settings of every run that hold for one beside its own.

    A run reads ``Model.key`` before ``key``, so such a setting of every run would win over the
    run's own ``key``.

    Args:
        own: the settings of the run.
        shared: the settings of every run.
        model: name of the run's model.
    """
    own_keys = {name.removeprefix(f"{model}.") for name in own}
    kept = {}
    for name, value in shared.items():
        section = name.partition(".")[0]
        # The run's process does not know the other classes from outside.
        foreign = section in outside_names() and section != model
        if not foreign and _key(name) not in own_keys:
            kept[name] = value
    return kept


def _key(name: str) -> str:
    """``epochs`` of ``Model.epochs``."""
    return name.rpartition(".")[2]


def _planned_run(
    content: dict[str, Any],
    entry: dict[str, Any],
    settings: dict[str, Any],
    dataset: str,
    seed: int,
    where: str,
) -> PlannedRun:
    """One run; its settings are checked."""
    output = Path(content["output"]).expanduser()
    name = entry["name"]
    model = entry["model"]
    values = {
        "model": model,
        "dataset": dataset,
        "seed": seed,
        **settings,
        "result_file": result_file(output, file_stem(name, dataset, seed)),
        "checkpoint_dir": checkpoint_folder(output, name),
        "save_ranks": "auto",
        "show_progress": False,
    }
    argv = [f"--{option}={argument(value)}" for option, value in values.items()]
    argv.append("--resume")
    try:
        config = GenRecConfig(model, dataset, argv=argv)
        check_item_texts(config)
    except GenRecError as error:
        raise ConfigError(f"{where}: {error}") from error

    tokenizer = None
    if needs_tokenizer(config.model_class):
        tokenizer = config.settings.tokenizer
    elif entry.get("tokenizer") is not None:
        raise ConfigError(f"{where}: {model} has no item tokenizer; leave tokenizer out.")
    return PlannedRun(
        name,
        model_name(model),
        tokenizer,
        dataset,
        seed,
        tuple(argv),
        config.run_name(),
        config.plain(),
    )
