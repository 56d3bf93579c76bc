"""Hyper-parameter search: RecBole's ``HyperTuning`` with our run as its objective."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.experiments.benchmark import argument
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.settings.parsing import config_files, parse_arguments, parse_value
from recbole_genrec.storage.artefacts import write_json

KINDS = {"choice": None, "uniform": 2, "loguniform": 2, "quniform": 3}  # how many numbers follow
OPTIONS = {
    "params_file": None,
    "output_file": "tuning.json",
    "algo": "exhaustive",
    "max_evals": 10,
    "early_stop": 10,
}
INSTALL = (
    "The search needs the package hyperopt, version 0.2.5 (RecBole hands it a random state that newer ones refuse): "
    "pip install 'hyperopt==0.2.5' 'setuptools<81'."
)


def read_space(file: str | os.PathLike) -> dict[str, dict[str, list]]:
    """A parameter file of RecBole as ``{kind: {key: values}}``.

    A line is ``key kind values``: ``learning_rate choice [0.01,0.001]``, ``dropout uniform 0.1,0.5``, ``learning_rate loguniform -8,0``
    (exponents of e), ``hidden_size quniform 32,128,32`` (low, high, step). Values are literals; RecBole would run them as code.

    Raises:
        ConfigError: the file is missing or empty, or a line is none of these.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The parameter file {file} cannot be read: {error}") from error
    space: dict[str, dict[str, list]] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        key, kind, text = [*words, "", ""][:3]
        values = parse_value(text if kind == "choice" else f"[{text}]")
        known = any(key in found for found in space.values())
        numbers = (
            kind in KINDS
            and isinstance(values, list)
            and all(type(value) in (int, float) for value in values)
        )
        fits = (kind == "choice" and isinstance(values, list) and values) or (
            numbers and len(values) == KINDS[kind]
        )
        if known or not fits or (kind != "choice" and not values[0] < values[1]):
            raise ConfigError(
                f"{file}, line {number}: {line.strip()!r} is not 'key choice [a,b,...]', 'key uniform low,high', 'key loguniform low,high' "
                "or 'key quniform low,high,step', or the key stands there twice."
            )
        space.setdefault(kind, {})[key] = values
    if not space:
        raise ConfigError(f"The parameter file {file} holds no parameter.")
    return space


def ends(space: dict[str, dict[str, list]]) -> list[dict[str, object]]:
    """Settings that reach every listed value and both ends of every range, one key changed at a time."""
    found = []
    for kind, entries in space.items():
        for key, values in entries.items():
            tried = (
                values
                if kind == "choice"
                else [math.exp(v) if kind == "loguniform" else v for v in values[:2]]
            )
            found += [{key: _setting(kind, value)} for value in tried]
    return found


def _setting(kind: str, value: object) -> object:
    """A value as a setting: hyperopt gives 64.0 for ``hidden_size quniform 32,128,32``, and choices come back as text."""
    if isinstance(value, str):
        return parse_value(value)
    return int(value) if kind == "quniform" and float(value).is_integer() else value


def tune(argv: Sequence[str], config_file_list: list[str] | None = None) -> dict:
    """Search the parameters of a model with RecBole's ``HyperTuning``.

    Args:
        argv: settings of every run, and ``--params_file`` (:func:`read_space`), ``--output_file``, ``--algo`` (``exhaustive``, ``random``,
            ``bayes``), ``--max_evals`` (not for ``exhaustive``), ``--early_stop`` (trials without improvement).

    Returns:
        ``{"best_params", "best_valid_score", "trials": [{"params", "valid", "test"}]}``, which is also written to ``output_file``. A trial
        that fails (a diverging loss) counts as the worst; its ``error`` says why.

    Raises:
        ConfigError: hyperopt is missing, a setting is wrong (all are checked before the first run), or every trial failed.
    """
    arguments = parse_arguments(list(argv))
    options = {key: arguments.get(key, default) for key, default in OPTIONS.items()}
    if options["params_file"] is None:
        raise ConfigError(
            "Name a file with lines like 'learning_rate choice [0.01,0.001]', for example --params_file=search.test."
        )
    if arguments.get("result_file"):
        raise ConfigError(
            "--result_file names one file; the result of each trial is written beside its checkpoint."
        )
    if options["algo"] not in ("exhaustive", "random", "bayes"):
        raise ConfigError(f"algo is {options['algo']!r}; it must be exhaustive, random or bayes.")
    space = read_space(options["params_file"])
    if options["algo"] == "exhaustive" and set(space) != {"choice"}:
        raise ConfigError(
            "algo: exhaustive tries listed values; with ranges use --algo=random or --algo=bayes and --max_evals."
        )
    settings = [argument for argument in argv if argument[2:].partition("=")[0] not in OPTIONS]
    twice = sorted({key for entries in space.values() for key in entries} & arguments.keys())
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} stands in {options['params_file']} and on the command line."
        )
    files = config_files(config_file_list, arguments)
    for changes in [{}, *ends(space)]:
        config = GenRecConfig(config_file_list=files, config_dict=changes, argv=settings)
    if not config["eval_step"]:
        raise ConfigError("The search compares validation scores: eval_step must be at least 1.")
    if importlib.util.find_spec("hyperopt") is None:
        raise ConfigError(INSTALL)
    return _search(space, options, settings, config_file_list, config)


def _search(space, options: dict, settings: list[str], config_file_list, config) -> dict:
    try:
        import hyperopt  # noqa: F401
        from recbole.trainer import HyperTuning
    except ImportError as error:  # setuptools without pkg_resources
        raise ConfigError(f"hyperopt cannot be imported ({error}). {INSTALL}") from error
    kinds = {key: kind for kind, entries in space.items() for key in entries}
    worst = -math.inf if config["valid_metric_bigger"] else math.inf
    trials = []

    def objective(params: dict, _) -> dict:
        changes = {key: _setting(kinds[key], value) for key, value in params.items()}
        trials.append({"params": changes})
        try:
            result = run_recbole_genrec(
                config_file_list=config_file_list, config_dict=changes, argv=settings
            )
        except GenRecError as error:
            trials[-1]["error"] = f"{type(error).__name__}: {error}"
            print(trials[-1]["error"])
            empty = {"best_valid_result": {}, "test_result": {}}
            return {
                "model": config["model"],
                "best_valid_score": worst,
                "valid_score_bigger": config["valid_metric_bigger"],
                **empty,
            }
        trials[-1] |= {
            "score": result["best_valid_score"],
            "valid": result["best_valid_result"],
            "test": result["test_result"],
        }
        return result

    # as text, which GenRecConfig reads back: hyperopt takes lists and mappings apart
    texts = {
        "choice": {
            key: [argument(value) for value in values]
            for key, values in space.get("choice", {}).items()
        }
    }
    os.environ.setdefault(
        "HYPEROPT_FMIN_SEED", str(config["seed"])
    )  # RecBole's run() passes no seed on
    search = HyperTuning(
        objective,
        params_dict={**space, **texts},
        algo=options["algo"],
        max_evals=options["max_evals"],
        early_stop=options["early_stop"],
    )
    search.run()
    done = [trial for trial in trials if "error" not in trial]
    if not done:
        raise ConfigError(f"Every trial failed; the last one with {trials[-1]['error']}")
    best = max(
        done, key=lambda trial: trial["score"] if config["valid_metric_bigger"] else -trial["score"]
    )
    summary = {
        "best_params": best["params"],
        "best_valid_score": best["score"],
        "test_result": best["test"],
        "trials": trials,
    }
    write_json(options["output_file"], summary)
    return summary
