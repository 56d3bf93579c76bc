"""Hyper-parameter search: RecBole's ``HyperTuning`` with our run as its objective."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError, GenRecError, HeldError
from recbole_genrec.experiments.arguments import argument
from recbole_genrec.experiments.run import named_model, run_recbole_genrec
from recbole_genrec.experiments.search_space import Space, ends, read_space, setting
from recbole_genrec.model.registry import model_name
from recbole_genrec.runtime.processes import started_with_others
from recbole_genrec.settings.parsing import config_files, parse_arguments, read_yaml
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import held_alone

OPTIONS: dict[str, Any] = {
    "params_file": None,
    "output_file": "tuning.json",
    "algo": "exhaustive",
    "max_evals": 10,
    "early_stop": 10,
}
ALGORITHMS = ("exhaustive", "random", "bayes")
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
        ``{"best_params", "best_valid_score", "trials": [{"params", "valid", "test"}]}``, which is
        also written to ``output_file``. A trial that fails (a diverging loss) counts as the worst;
        its ``error`` says why.

    Raises:
        ConfigError: hyperopt is missing, a setting is wrong (all are checked before the first
            run), or every trial failed.
        HeldError: another search writes the same file, or another process does one of the runs.
    """
    arguments = parse_arguments(list(argv))
    options: dict[str, Any] = {key: arguments.get(key, default) for key, default in OPTIONS.items()}
    _check_options(options, arguments)
    space = read_space(options["params_file"])
    _check_algorithm(space, options)

    settings = [word for word in argv if word[2:].partition("=")[0] not in OPTIONS]
    files = config_files(config_file_list, arguments)
    for changes in [{}, *ends(space)]:
        config = GenRecConfig(config_file_list=files, config_dict=changes, argv=settings)
    _check_searched(space, str(options["params_file"]), arguments, files)
    if not config.settings.eval_step:
        raise ConfigError("The search compares validation scores: eval_step must be at least 1.")
    if config.settings.hold_out is False:
        raise ConfigError(
            "The search compares validation scores, and hold_out: False holds nothing out. Leave "
            "it out of the search, and train with the best settings and hold_out: False afterwards."
        )
    if importlib.util.find_spec("hyperopt") is None:
        raise ConfigError(INSTALL)

    trials = Trials(space, settings, config_file_list, config)
    with _held(options["output_file"]):
        _search(trials, space, options, config)
        summary = trials.summary()
        write_json(options["output_file"], summary)
    return summary


@contextlib.contextmanager
def _held(output_file: str) -> Iterator[None]:
    """Keep other searches from the output file; of several processes the first does so."""
    if started_with_others() and os.environ["RANK"] != "0":
        yield
        return
    refusal = (
        f"Another process searches and is going to write {output_file}. Wait until it has ended or "
        "stop it, or name another --output_file."
    )
    with held_alone(output_file, refusal, logging.getLogger().warning):
        yield


def _check_options(options: dict[str, Any], arguments: dict[str, object]) -> None:
    if options["params_file"] is None:
        raise ConfigError(
            "Name a file with lines like 'learning_rate choice [0.01,0.001]', "
            "for example --params_file=search.test."
        )
    if arguments.get("result_file"):
        raise ConfigError(
            "--result_file names one file, but a search has many results. Leave it out; "
            "the result of each trial is written beside its checkpoint."
        )
    if options["algo"] not in ALGORITHMS:
        raise ConfigError(f"algo is {options['algo']!r}; it must be exhaustive, random or bayes.")


def _check_algorithm(space: Space, options: dict[str, Any]) -> None:
    if options["algo"] == "exhaustive" and set(space) != {"choice"}:
        raise ConfigError(
            "algo: exhaustive tries listed values; with ranges use --algo=random or --algo=bayes "
            "and --max_evals."
        )


def _check_searched(
    space: Space, params_file: str, arguments: dict[str, object], files: list[str]
) -> None:
    """Refuse a searched key that does not reach the runs, whose trials would all be equal.

    A setting ``Model.key`` wins over ``key``, wherever the two stand.

    Args:
        space: the parameters.
        params_file: where they stand.
        arguments: of the command line.
        files: YAML files of every run.

    Raises:
        ConfigError: names the key and what stands in its way.
    """
    searched = {key for entries in space.values() for key in entries}
    repeated = sorted(searched & arguments.keys())
    if repeated:
        raise ConfigError(
            f"{', '.join(repeated)} stands in {params_file} and on the command line. Remove one of "
            "the two."
        )

    model = model_name(str(named_model(arguments, {}, files)))
    others: dict[str, Collection[str]] = {"on the command line": arguments}
    others[f"in {params_file}"] = searched
    for file in files:
        others[f"in {file}"] = read_yaml(file)
    for key in sorted(searched):
        owner, dot, _ = key.partition(".")
        if dot and owner != model:
            raise ConfigError(
                f"{key} stands in {params_file}, but {model} is trained, and no trial would differ "
                f"from another. Name a key of {model}."
            )
        for place, keys in others.items():
            if f"{model}.{key}" in keys:
                raise ConfigError(
                    f"{key} stands in {params_file}, and {model}.{key}, which wins over it, "
                    f"{place}. Remove one of the two."
                )


class Trials:
    """The runs of a search.

    Args:
        space: the parameters.
        settings: arguments of every run.
        config_file_list: YAML files of every run.
        config: the settings of one of them; reads ``model`` and ``valid_metric_bigger``.

    Attributes:
        entries: what each trial changed, and its scores or its error.
    """

    def __init__(
        self,
        space: Space,
        settings: list[str],
        config_file_list: list[str] | None,
        config: GenRecConfig,
    ) -> None:
        self.kinds = {key: kind for kind, entries in space.items() for key in entries}
        self.settings = settings
        self.config_file_list = config_file_list
        self.model = config.settings.model
        self.bigger_is_better = config.settings.valid_metric_bigger
        self.entries: list[dict[str, Any]] = []

    def run(self, params: dict[str, object], _: object) -> dict[str, Any]:
        """One trial, as RecBole's objective function."""
        changes = {key: setting(self.kinds[key], value) for key, value in params.items()}
        trial: dict[str, Any] = {"params": changes}
        self.entries.append(trial)
        try:
            result = run_recbole_genrec(
                config_file_list=self.config_file_list, config_dict=changes, argv=self.settings
            )
        except HeldError:
            raise  # says nothing about the parameters
        except GenRecError as error:
            trial["error"] = f"{type(error).__name__}: {error}"
            print(trial["error"])
            return self._worst()
        trial["score"] = result["best_valid_score"]
        trial["valid"] = result["best_valid_result"]
        trial["test"] = result["test_result"]
        return result

    def _worst(self) -> dict[str, Any]:
        """The result of a trial that failed."""
        return {
            "model": self.model,
            "best_valid_score": -math.inf if self.bigger_is_better else math.inf,
            "valid_score_bigger": self.bigger_is_better,
            "best_valid_result": {},
            "test_result": {},
        }

    def summary(self) -> dict[str, Any]:
        """The best trial, and all of them.

        Raises:
            ConfigError: every trial failed.
        """
        done = [trial for trial in self.entries if "error" not in trial]
        if not done:
            raise ConfigError(f"Every trial failed; the last one with {self.entries[-1]['error']}")
        choose = max if self.bigger_is_better else min
        best = choose(done, key=_score)
        return {
            "best_params": best["params"],
            "best_valid_score": best["score"],
            "test_result": best["test"],
            "trials": self.entries,
        }


def _score(trial: dict[str, Any]) -> float:
    return trial["score"]


def _search(trials: Trials, space: Space, options: dict[str, Any], config: GenRecConfig) -> None:
    try:
        import hyperopt  # noqa: F401
        from recbole.trainer import HyperTuning
    except ImportError as error:  # setuptools without pkg_resources
        raise ConfigError(f"hyperopt cannot be imported ({error}). {INSTALL}") from error

    # Choices go as text, which GenRecConfig reads back: hyperopt takes lists and mappings apart.
    texts = {}
    for key, values in space.get("choice", {}).items():
        texts[key] = [argument(value) for value in values]
    # RecBole's run() passes no seed on.
    os.environ.setdefault("HYPEROPT_FMIN_SEED", str(config.settings.seed))
    search = HyperTuning(
        trials.run,
        params_dict={**space, "choice": texts},
        algo=options["algo"],
        max_evals=options["max_evals"],
        early_stop=options["early_stop"],
    )
    search.run()
