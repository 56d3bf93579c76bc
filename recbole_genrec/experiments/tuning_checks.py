"""What a hyper-parameter search refuses before its first run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import joined_names, named_model
from recbole_genrec.experiments.tuning_space import Space, ends
from recbole_genrec.model.registry import model_name
from recbole_genrec.report.comparable import different_tests
from recbole_genrec.settings.declaration import Settings, key
from recbole_genrec.settings.parsing import parse_arguments, read_yaml
from recbole_genrec.settings.rules import check_values
from recbole_genrec.storage.digests import digest

MEASURE = (
    "dataset",
    "eval_args",
    "ratio_rows",
    "topk",
    "tail_ratio",
    "valid_metric",
    "valid_users",
)
"""Keys that say what a score measures, beside those by which tests are compared."""


class TuningKeys(Settings):
    """Keys of a search beside those of its runs."""

    params_file: str = key("file with lines like 'learning_rate choice [0.01,0.001]'")
    output_file: str = key("file for the best settings and all trials", default="tuning.json")
    algo: Literal["exhaustive", "random", "bayes"] = key(
        "how values are chosen", default="exhaustive"
    )
    max_evals: int = key("trials, not of exhaustive", ge=1, default=10)
    early_stop: int = key("trials without improvement that end the search", ge=1, default=10)


def checked_options(arguments: Mapping[str, object]) -> TuningKeys:
    """The keys of the search.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: the parameter file is not named, or a value is wrong.
    """
    if arguments.get("params_file") is None:
        raise ConfigError(
            "Name a file with lines like 'learning_rate choice [0.01,0.001]', "
            "for example --params_file=search.test."
        )
    check_values(TuningKeys.declared(), arguments)
    return TuningKeys.from_values(arguments)


def check_algorithm(space: Space, algorithm: str) -> None:
    """Refuse ranges where listed values alone are tried.

    Raises:
        ConfigError: says what to do.
    """
    if algorithm == "exhaustive" and set(space) != {"choice"}:
        raise ConfigError(
            "algo: exhaustive tries listed values; with ranges use --algo=random or --algo=bayes "
            "and --max_evals."
        )


def checked_settings(
    space: Space, params_file: str, files: list[str], words: list[str]
) -> GenRecConfig:
    """The settings of a run without its searched parameters, once all trials can be compared.

    Args:
        space: the parameters.
        params_file: where they stand.
        files: YAML files of every run.
        words: arguments of every run.

    Raises:
        ConfigError: a value is wrong, a run would have no validation score, or a parameter changes
            what the scores measure.
    """
    model = joined_names(named_model(parse_arguments(words), {}, files))
    if isinstance(model, str) and "," in model:
        raise ConfigError(f"A search is for one model, but model is {model}. Give one of them.")
    common = GenRecConfig(config_file_list=files, argv=words)
    _check_has_score(common)
    for changes in ends(space):
        config = GenRecConfig(config_file_list=files, config_dict=changes, argv=words)
        _check_has_score(config)
        keys = _different_measures(common.plain(), config.plain())
        if keys:
            raise ConfigError(
                f"{', '.join(changes)} stands in {params_file} and changes what the scores of the "
                f"trials measure ({', '.join(keys)}), so they cannot be compared. Set it for all "
                "trials, on the command line, and search once for each value."
            )
    return common


def _check_has_score(config: GenRecConfig) -> None:
    """Refuse a run that has no validation score, or no result of its own.

    Raises:
        ConfigError: says what to do.
    """
    settings = config.settings
    if settings.result_file:
        raise ConfigError(
            "--result_file names one file, but a search has many results. Leave it out; "
            "the result of each trial is written beside its checkpoint."
        )
    if not settings.eval_step:
        raise ConfigError("The search compares validation scores: eval_step must be at least 1.")
    if settings.hold_out is False:
        raise ConfigError(
            "The search compares validation scores, and hold_out: False holds nothing out. Leave "
            "it out of the search, and train with the best settings and hold_out: False afterwards."
        )
    if "test_only" in settings.eval_args["split"].values():
        raise ConfigError(
            "The search compares validation scores, and the split test_only of eval_args has no "
            "validation part. Use LS: valid_and_test."
        )


def _different_measures(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys by which the scores of two runs measure something else.

    Args:
        one: settings of a run.
        other: settings of another.
    """
    keys = [name for name in MEASURE if digest(one.get(name)) != digest(other.get(name))]
    return list(dict.fromkeys([*keys, *different_tests(one, other)]))


def check_searched(
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

    model = model_name(str(joined_names(named_model(arguments, {}, files))))
    others: dict[str, Collection[str]] = {"on the command line": arguments}
    others[f"in {params_file}"] = searched
    for file in files:
        others[f"in {file}"] = read_yaml(file)
    for name in sorted(searched):
        owner, dot, _ = name.partition(".")
        if dot and owner != model:
            raise ConfigError(
                f"{name} stands in {params_file}, but {model} is trained, and no trial would "
                f"differ from another. Name a key of {model}."
            )
        for place, keys in others.items():
            if f"{model}.{name}" in keys:
                raise ConfigError(
                    f"{name} stands in {params_file}, and {model}.{name}, which wins over it, "
                    f"{place}. Remove one of the two."
                )
