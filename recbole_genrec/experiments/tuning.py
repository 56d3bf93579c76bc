"""Hyper-parameter search: RecBole's ``HyperTuning`` with our run as its objective."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
from collections.abc import Iterator, Sequence
from logging import getLogger
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, GenRecError, HeldError
from recbole_genrec.experiments.command_line import argument
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.tuning_checks import (
    TuningKeys,
    check_algorithm,
    check_searched,
    checked_options,
    checked_settings,
)
from recbole_genrec.experiments.tuning_space import Space, read_space, setting
from recbole_genrec.runtime.processes import is_first_started, started_with_others
from recbole_genrec.settings.parsing import config_files, parse_arguments
from recbole_genrec.settings.plain import plain_value
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.atomic import check_writable, held_alone

WORST = 1e30
"""Distance from 0 of the score of a trial that failed.

hyperopt subtracts 0 % of the best score from it, which is not a number for infinity: a search whose
first trial failed would then see no progress for ever.
"""
FMIN_SEED = "HYPEROPT_FMIN_SEED"
"""The environment variable from which hyperopt takes the seed of its draws."""
INSTALL = (
    "The search needs the package hyperopt, version 0.2.5 (RecBole hands it a random state that "
    "newer ones refuse): pip install 'hyperopt==0.2.5' 'setuptools<81'."
)


def tune(argv: Sequence[str], config_file_list: list[str] | None = None) -> dict[str, Any]:
    """Search the parameters of a model with RecBole's ``HyperTuning``.

    Args:
        argv: settings of every run, and ``--params_file`` (:func:`read_space`), ``--output_file``,
            ``--algo`` (``exhaustive``, ``random``, ``bayes``), ``--max_evals`` (not for
            ``exhaustive``), ``--early_stop`` (trials without improvement).
        config_file_list: YAML files with settings.

    Returns:
        ``{"search", "best_params", "best_valid_score", "test_result", "trials": [{"params",
        "score", "valid", "test"}]}``, which is also written to ``output_file`` after every trial. A
        trial that fails (a diverging loss, no memory) counts as the worst; its ``error`` says why.

    Raises:
        ConfigError: hyperopt is missing, a setting is wrong or changes what the scores measure (all
            are checked before the first run), or every trial failed.
        HeldError: another search writes the same file, or another process does one of the runs.
    """
    arguments = parse_arguments(list(argv), texts=("params_file", "output_file", "algo"))
    options = checked_options(arguments)
    space = read_space(Path(options.params_file).expanduser())
    check_algorithm(space, options.algo)

    keys = TuningKeys.declared()
    words = [word for word in argv if word[2:].partition("=")[0] not in keys]
    files = config_files(config_file_list, arguments)
    config = checked_settings(space, options.params_file, files, words)
    check_searched(space, options.params_file, arguments, files)
    if importlib.util.find_spec("hyperopt") is None:
        raise ConfigError(INSTALL)

    output_file = Path(options.output_file).expanduser()
    check_writable(output_file)
    trials = Trials(space, words, config_file_list, config, output_file)
    with _held(output_file):
        trials.name_earlier_search()
        _search(trials, space, options, config)
    trials.check_some_succeeded()
    return trials.summary()


@contextlib.contextmanager
def _held(output_file: Path) -> Iterator[None]:
    """Keep other searches from the output file; of several processes the first does so."""
    if not is_first_started():
        yield
        return
    refusal = (
        f"Another process searches and is going to write {output_file}. Wait until it has ended or "
        "stop it, or name another --output_file."
    )
    with held_alone(output_file, refusal, getLogger().warning):
        yield


class Trials:
    """The runs of a search.

    Args:
        space: the parameters.
        words: arguments of every run.
        config_file_list: YAML files of every run.
        config: the settings that all of them share; reads ``model``, ``dataset`` and
            ``valid_metric_bigger``.
        output_file: where the summary is written after every trial.

    Attributes:
        entries: what each trial changed, and its scores or its error.
    """

    def __init__(
        self,
        space: Space,
        words: list[str],
        config_file_list: list[str] | None,
        config: GenRecConfig,
        output_file: Path,
    ) -> None:
        self.kinds = {key: kind for kind, entries in space.items() for key in entries}
        self.words = words
        self.config_file_list = config_file_list
        self.model = config.settings.model
        self.bigger_is_better = config.settings.valid_metric_bigger
        self.output_file = output_file
        self.search = {
            "model": self.model,
            "dataset": config.settings.dataset,
            "parameters": plain_value(space),
            "settings": [word for word in words if not word.startswith("--resume")],
        }
        self.entries: list[dict[str, Any]] = []

    def name_earlier_search(self) -> None:
        """Warn where the output file holds something else than an earlier call of this search."""
        if not self.output_file.exists() or not is_first_started():
            return
        text = f"{self.output_file} is there already and holds no search"
        with contextlib.suppress(ArtefactError):
            earlier = read_json(self.output_file, {"trials": list})
            if earlier.get("search") == self.search:
                return
            text = f"{self.output_file} holds {len(earlier['trials'])} trials of another search"
        getLogger().warning(
            f"{text}; it is replaced when the first trial has ended. Name another --output_file to "
            "keep it."
        )

    def run(self, params: dict[str, object], _: object) -> dict[str, Any]:
        """One trial, as RecBole's objective function."""
        changes = {key: setting(self.kinds[key], value) for key, value in params.items()}
        trial: dict[str, Any] = {"params": changes}
        self.entries.append(trial)
        result = self._result(trial)
        if "error" in trial:
            gc.collect()  # what the run held on the GPU
            torch.cuda.empty_cache()
        if is_first_started():
            write_json(self.output_file, self.summary())
        return result

    def _result(self, trial: dict[str, Any]) -> dict[str, Any]:
        """The result of a trial, which is noted; the worst one where it fails."""
        try:
            result = run_recbole_genrec(
                config_file_list=self.config_file_list,
                config_dict=trial["params"],
                argv=self.words,
            )
        except HeldError:
            raise  # says nothing about the parameters
        except Exception as error:
            if started_with_others() and not isinstance(error, GenRecError):
                raise  # the other processes would wait for this one
            known = isinstance(error, GenRecError)
            return self._failed(trial, f"{type(error).__name__}: {error}", with_traceback=not known)
        if result["best_valid_score"] is None:
            return self._failed(trial, "It has no validation score.")
        trial["score"] = result["best_valid_score"]
        trial["valid"] = result["best_valid_result"]
        trial["test"] = result["test_result"]
        return result

    def _failed(
        self, trial: dict[str, Any], reason: str, with_traceback: bool = False
    ) -> dict[str, Any]:
        """Note why a trial failed.

        Args:
            trial: the trial.
            reason: in words.
            with_traceback: whether the log shows where, too.

        Returns:
            The worst result.
        """
        trial["error"] = reason
        getLogger().warning(
            f"Trial {len(self.entries)}, {trial['params']}, failed and counts as the worst: "
            f"{reason}",
            exc_info=with_traceback,
        )
        return {
            "model": self.model,
            "best_valid_score": -WORST if self.bigger_is_better else WORST,
            "valid_score_bigger": self.bigger_is_better,
            "best_valid_result": {},
            "test_result": {},
        }

    def check_some_succeeded(self) -> None:
        """Refuse a search without a score.

        Raises:
            ConfigError: every trial failed.
        """
        if all("error" in trial for trial in self.entries):
            raise ConfigError(f"Every trial failed; the last one with {self.entries[-1]['error']}")

    def summary(self) -> dict[str, Any]:
        """What is searched, the best trial so far, and all of them."""
        done = [trial for trial in self.entries if "error" not in trial]
        best: dict[str, Any] = {}
        if done:
            choose = max if self.bigger_is_better else min
            best = choose(done, key=itemgetter("score"))
        return {
            "search": self.search,
            "best_params": best.get("params"),
            "best_valid_score": best.get("score"),
            "test_result": best.get("test"),
            "trials": self.entries,
        }


def _search(trials: Trials, space: Space, options: TuningKeys, config: GenRecConfig) -> None:
    try:
        import hyperopt  # noqa: F401
        from recbole.trainer import HyperTuning
    except ImportError as error:  # setuptools without pkg_resources
        raise ConfigError(f"hyperopt cannot be imported ({error}). {INSTALL}") from error

    # Choices go as text, which GenRecConfig reads back: hyperopt takes lists and mappings apart.
    texts = {}
    for key, values in space.get("choice", {}).items():
        texts[key] = [argument(value) for value in values]
    search = HyperTuning(
        trials.run,
        params_dict={**space, "choice": texts},
        algo=options.algo,
        max_evals=options.max_evals,
        early_stop=options.early_stop,
    )
    with _seeded(config.settings.seed):
        search.run()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Give hyperopt a seed, which RecBole's ``run()`` does not; one that the user has set stays."""
    if FMIN_SEED in os.environ:
        yield
        return
    os.environ[FMIN_SEED] = str(seed)
    try:
        yield
    finally:
        del os.environ[FMIN_SEED]
