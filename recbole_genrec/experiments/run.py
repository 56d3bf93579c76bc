"""Train and test models: one, or several on the same split, in one process or in many."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.idle_keys import unread_keys
from recbole_genrec.data.inter_files import interaction_files
from recbole_genrec.data.preparation.prepare import prepare_if_missing
from recbole_genrec.errors import ConfigError, explained_files
from recbole_genrec.experiments.single import run_single_model
from recbole_genrec.model.registry import get_model_class, model_name
from recbole_genrec.model.text_needs import check_item_texts
from recbole_genrec.report.comparable import check_one_table
from recbole_genrec.report.objects import Result, Results, results_of
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.launcher import launch, launches
from recbole_genrec.settings.parsing import config_files, parse_arguments, read_yaml
from recbole_genrec.training.trainer import GenRecTrainer
from recbole_genrec.training.trainer_class import get_trainer_class


@explained_files()
def run_recbole_genrec(
    model: str | type | list[str] | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    argv: list[str] | None = None,
) -> Result | Results:
    """Train and test one model, or several (``model="STORE,SASRec"``) on the same split.

    With ``nproc`` above 1 the calling script needs Python's ``if __name__ == "__main__":``, because
    the processes import it.

    Args:
        model: a name, ``package.module:Class``, several of these with commas between or in a list,
            or a model class.
        dataset: name of the dataset's folder below ``data_path``.
        config_file_list: YAML files with settings.
        config_dict: settings, which win over those of the files.
        saved: whether to write checkpoints. Without them there is no resume, and the last epoch is
            tested.
        argv: ``--key=value`` arguments, which win over the dictionary.

    Returns:
        The result of the run (the content of its JSON file); for several models
        ``{name: result}``. Both are dictionaries that a notebook shows as tables, with
        ``to_frame()`` and ``plot()``.

    Raises:
        GenRecError: a setting, a file or a number is wrong; the message says which, and what to do.
    """
    arguments = parse_arguments(list(argv or []))
    config_file_list = config_files(config_file_list, arguments)
    if model is None:
        model = named_model(arguments, config_dict or {}, config_file_list)
    model = joined_names(model)
    several = isinstance(model, str) and "," in model

    # Models from outside are found first: a key like Mine.epochs needs their names.
    _find_classes(model)

    # Every setting is checked before the first training starts.
    options = {"dataset": dataset, "config_file_list": config_file_list, "config_dict": config_dict}
    arguments_of = _arguments_by_model(model, argv)
    configs = {
        name: GenRecConfig(name, argv=words, **options) for name, words in arguments_of.items()
    }
    if several:
        _check_together(list(configs.values()))
    if processes.is_first_started():
        for sentence in unread_keys(list(configs.values())):
            getLogger().warning(sentence)

    for config in configs.values():
        prepare_if_missing(config, interaction_files(config))
    for config in configs.values():
        check_item_texts(config)

    results: dict[Any, dict[str, Any]] = {}
    first = next(iter(configs.values()))
    with processes.joined(first.settings.device):
        for name, config in configs.items():
            settings = {"model": name, "argv": arguments_of[name], "saved": saved, **options}
            results[name] = _run_in_processes(config, settings)
    if not several:
        return Result(results[model])
    return results_of({model_name(name): result for name, result in results.items()})


def _check_together(configs: list[GenRecConfig]) -> None:
    """Refuse models that cannot run in one command, or stand in one table.

    Raises:
        ConfigError: they also share a result file, or their settings ask for several machines.
    """
    files = [config.settings.result_file for config in configs]
    named = [file for file in files if file is not None]
    if len(set(named)) < len(named):
        raise ConfigError(
            "--result_file names one file, but several models run. Leave it out; "
            "with several models each result is written beside its checkpoint."
        )
    check_one_table({config.settings.model: config.plain() for config in configs})
    if any(config.settings.world_size > config.settings.nproc for config in configs):
        raise ConfigError("Several machines train one model at a time: give --model a single name.")


def _split_names(model: str) -> list[str]:
    """The names in ``--model=A,B``."""
    names = [name.strip() for name in model.split(",") if name.strip()]
    if not names:
        raise ConfigError(
            f"--model={model} names no model. Give a name, for example --model=STORE."
        )
    return list(dict.fromkeys(names))


def _find_classes(model: str | type | None) -> None:
    """Import the classes that ``model`` names.

    Raises:
        ConfigError: a name is unknown, or two classes have the same name.
    """
    if not isinstance(model, str):
        return
    places: dict[str, str] = {}
    for place in _split_names(model):
        get_model_class(place)
        name = model_name(place)
        if places.setdefault(name, place) != place:
            raise ConfigError(
                f"--model names {places[name]} and {place}, two classes called {name}; their "
                f"results could not be told apart. Rename one, or run them one after the other."
            )


def joined_names(model: object) -> str | type | None:
    """Several models as one text: ``[STORE, SASRec]`` is ``STORE,SASRec``.

    Args:
        model: a name, a class, or a list of names; ``None`` where none is named.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(model, (list, tuple)) and all(isinstance(name, str) for name in model):
        model = ",".join(model)
    if model is not None and not isinstance(model, (str, type)):
        raise ConfigError(
            f"model is {model!r}; give a name, or several with commas between: "
            "--model=STORE,SASRec."
        )
    return model


def named_model(arguments: dict[str, Any], config_dict: dict[str, Any], files: list[str]) -> Any:
    """The model that the settings name; arguments win over the dictionary, and that over files.

    Args:
        arguments: of the command line.
        config_dict: settings of a program.
        files: YAML files, of which later ones win.
    """
    for settings in (arguments, config_dict, *map(read_yaml, reversed(files))):
        if settings.get("model") is not None:
            return settings["model"]
    return None


def _arguments_by_model(
    model: str | type | None, argv: list[str] | None
) -> dict[str | type | None, list[str] | None]:
    """The arguments of each model's own run, by its name or class."""
    if not isinstance(model, str) or "," not in model:
        return {model: argv}
    others = [argument for argument in argv or [] if not argument.startswith("--model=")]
    return {name: [f"--model={name}", *others] for name in _split_names(model)}


def _run_in_processes(config: GenRecConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one model here, or in the processes that its settings ask for."""
    together = processes.size() > 1  # this is one of them
    launched = launches(config) and not together
    _check_processes(config, together or launched)
    if launched:
        return launch(config, run_recbole_genrec, settings)
    return run_single_model(**settings)


def _check_processes(config: GenRecConfig, several: bool) -> None:
    settings = config.settings
    trainer = get_trainer_class(config.model_class, settings.model)
    if several and trainer is not GenRecTrainer:
        raise ConfigError(
            f"{settings.model} does not learn in the common training loop ({trainer.__name__}), "
            f"so several processes cannot share its work. Leave out --nproc, or add "
            f"--{settings.model}.nproc=1."
        )
    if settings.fsdp and not several:
        raise ConfigError(
            "fsdp shares a model among several processes; add --nproc=2, or leave fsdp out."
        )
