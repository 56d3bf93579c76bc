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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.experiments.benchmark_plan import (
    Benchmark,
    PlannedRun,
    checkpoint_folder,
    file_stem,
    result_file,
)
from recbole_genrec.experiments.command_line import argument
from recbole_genrec.model.outside import outside_names
from recbole_genrec.model.registry import get_model_class, model_name, needs_tokenizer, reads_codes
from recbole_genrec.model.text_needs import check_item_texts
from recbole_genrec.report.comparable import check_one_table
from recbole_genrec.settings.classification import benchmark_keys
from recbole_genrec.settings.declaration import Settings, SettingsType, key
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.rules import check_value, did_you_mean


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
class Entry:
    """One entry of ``runs``.

    Attributes:
        where: it stands, for messages.
        keys: its keys; of datasets and seeds those of the file, where it names none.
        file: keys of the file.
    """

    where: str
    keys: RunEntryKeys
    file: BenchmarkKeys

    def planned_runs(self) -> list[PlannedRun]:
        """Its runs over its datasets and seeds.

        Raises:
            ConfigError: a setting is wrong, or they cannot work together.
        """
        settings = self._settings()
        runs = []
        for dataset in self.keys.datasets:
            for seed in self.keys.seeds:
                runs.append(self._planned_run(settings, dataset, seed))
        return runs

    def _settings(self) -> dict[str, Any]:
        """Its settings, which win over those of every run."""
        own = self._own_settings()
        settings = {**self._shared_beside(own), **own}

        taken = [name for name in settings if _key(name) in benchmark_keys()]
        if taken:
            raise ConfigError(
                f"{self.where}: {', '.join(taken)} in settings; the benchmark sets these keys "
                f"itself. Leave them out."
            )
        if self.file.data_path is not None:
            settings["data_path"] = os.path.expanduser(self.file.data_path)
        return settings

    def _own_settings(self) -> dict[str, Any]:
        """The settings that it gives itself, ``tokenizer`` among them.

        Raises:
            ConfigError: it names a tokenizer twice.
        """
        settings = self.keys.settings
        if self.keys.tokenizer is None:
            return settings
        if any(_key(name) == "tokenizer" for name in settings):
            raise ConfigError(
                f"{self.where}: tokenizer stands beside settings and in settings. Remove one of "
                "the two."
            )
        return {**settings, "tokenizer": self.keys.tokenizer}

    def _shared_beside(self, own: dict[str, Any]) -> dict[str, Any]:
        """The settings of every run that hold for this one beside its own.

        A run reads ``Model.key`` before ``key``, so such a setting of every run would win over the
        run's own ``key``.

        Args:
            own: its own settings.
        """
        model = model_name(self.keys.model)
        own_keys = {name.removeprefix(f"{model}.") for name in own}
        of_all = self.file.settings
        kept = {}
        for name, value in of_all.items():
            section = name.partition(".")[0]
            # The run's process does not know the other classes from outside.
            foreign = section in outside_names() and section != model
            if not foreign and _key(name) not in own_keys:
                kept[name] = value
        return kept

    def _planned_run(self, settings: dict[str, Any], dataset: str, seed: int) -> PlannedRun:
        """One run; its settings are checked."""
        output = Path(self.file.output).expanduser()
        name = self.keys.name
        model = self.keys.model
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
            raise ConfigError(f"{self.where}: {error}") from error

        if self.keys.tokenizer is not None and not needs_tokenizer(config.model_class):
            raise ConfigError(f"{self.where}: {model} has no item tokenizer; leave tokenizer out.")
        tokenizer = config.settings.tokenizer if reads_codes(config) else None
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
    keys = _checked(BenchmarkKeys, content, str(file))
    check_value(ArgumentKeys.declared()["only"], only)

    entries = _entries(keys, str(file))
    names = [entry.keys.name for entry in entries]
    if keys.baseline is not None:
        _check_run_name(file, "baseline", keys.baseline, names)
    for name in only or []:
        _check_run_name(file, "only", name, names)

    runs: list[PlannedRun] = []
    for entry in entries:
        runs += entry.planned_runs()
    if len({run.id for run in runs}) < len(runs):
        raise ConfigError(
            f"{file}: a dataset or a seed is listed twice, or two names and datasets join to the "
            f"same file name. Remove or rename one of them."
        )
    _check_tables([run for run in runs if run.name in (only or names)], str(file))
    threads = keys.threads
    if threads is None:  # share out all cores
        threads = max(1, (os.cpu_count() or 1) // keys.processes)
    return Benchmark(
        Path(keys.output).expanduser(),
        keys.baseline,
        keys.processes,
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


def _entries(file_keys: BenchmarkKeys, file: str) -> list[Entry]:
    """The entries of ``runs``.

    All classes are found before any setting is checked: a key like ``Mine.epochs`` in the settings
    of every run needs the name of the class.
    """
    entries: list[Entry] = []
    shared = {"settings": {}, "datasets": file_keys.datasets, "seeds": file_keys.seeds}
    for number, run in enumerate(file_keys.runs, start=1):
        where = f"{file}, run {run.get('name', number)}"
        keys = _checked(RunEntryKeys, {**shared, **run}, where)
        try:
            get_model_class(keys.model)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        is_repeated = any(keys.name == entry.keys.name for entry in entries)
        is_folder = not keys.name.strip(".")  # "." and ".." name folders that are there
        if not re.fullmatch(r"[\w+.-]+", keys.name) or is_folder or is_repeated:
            raise ConfigError(
                f"{where}: a name must be unique and of letters, digits, '-', '_', '+', '.', not "
                "of points alone; it becomes a file name."
            )
        entries.append(Entry(where, keys, file_keys))
    return entries


def _checked(kind: type[SettingsType], content: Mapping[str, object], where: str) -> SettingsType:
    """The keys of a file or of an entry.

    Raises:
        ConfigError: one is unknown or missing, or has a wrong value.
    """
    declared = kind.declared()
    for name in content:
        if name not in declared:
            raise ConfigError(f"{where}: unknown key {name!r}.{did_you_mean(name, declared)}")
    try:
        for name, declaration in declared.items():
            check_value(declaration, content.get(name))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return kind.from_values(content)


def _check_run_name(
    file: str | os.PathLike[str], option: str, name: str, names: Sequence[str]
) -> None:
    if name not in names:
        hint = did_you_mean(name, names)
        raise ConfigError(f"{file}: {option} {name!r} is no run.{hint}")


def _key(name: str) -> str:
    """``epochs`` of ``Model.epochs``."""
    return name.rpartition(".")[2]
