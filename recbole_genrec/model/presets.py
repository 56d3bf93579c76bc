"""What a published setting leaves of the other files, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole.utils.argument_list import training_arguments

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.classification import shared_keys
from recbole_genrec.settings.property_files import properties_folder, shipped
from recbole_genrec.tokenizer import tokenizer_class


def check_preset(preset: object, model: str, generative: bool) -> None:
    """Refuse a preset that is not there.

    Args:
        preset: value of the key.
        model: name of the method.
        generative: whether it is one of this package's kind; others have no published setting here.

    Raises:
        ConfigError: says which there are.
    """
    if preset not in (None, "paper"):
        raise ConfigError(f"preset is {preset!r}; the only preset is 'paper'.")
    if preset and generative and not shipped(f"paper/{model}"):
        raise ConfigError(
            f"preset: paper is not known for {model}; "
            f"there is no {model}.yaml in {properties_folder() / 'paper'}."
        )


def is_tuning(name: str) -> bool:
    """Whether a key says how a method is trained, not what the data are.

    Args:
        name: of a key in the file of a dataset.
    """
    if name == "MAX_ITEM_LIST_LENGTH":
        return True
    declared = shared_keys().get(name)
    if declared is None:
        return name in training_arguments
    return "data" not in declared.affects and bool({"training", "tokenizer"} & {*declared.affects})


def data_alone(ours: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """The values of a dataset without those with which our file for it tunes every method.

    Args:
        ours: our file for the dataset.
        values: the same with those of the YAML file in the dataset's folder, which all stay.
    """
    dataset_values = {}
    for name, value in values.items():
        of_user = name not in ours or ours[name] != value
        if of_user or not is_tuning(name):
            dataset_values[name] = value
    return dataset_values


def published_notices(
    model: str, dataset: str, values: Mapping[str, object], tokenizer: object, other: str | None
) -> list[str]:
    """What to say of a published setting in this run.

    Args:
        model: name of the method.
        dataset: name of the dataset.
        values: of the dataset, see :func:`data_alone`.
        tokenizer: value of the key ``tokenizer`` that the user has chosen, or ``None``.
        other: the method whose tokenizer it is, where that is another one.
    """
    notices = []
    described = data_alone(shipped(f"dataset/{dataset}"), values)
    names = [name for name in values if name not in described]
    if names:
        notices.append(
            f"preset: paper takes no notice of {', '.join(names)} in dataset/{dataset}.yaml: these "
            "values are ours."
        )
    published = shipped(f"paper/{model}").get(
        "tokenizer", shipped(f"model/{model}").get("tokenizer")
    )
    if other is None and tokenizer not in (None, published):
        notices.append(
            f"preset: paper of {model} has the tokenizer {published}, and this run {tokenizer}: it "
            "takes those of the published values whose keys it knows, and its own for the others. "
            "No paper has this combination."
        )
    return notices


def tokenizer_values(files: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> dict:
    """The complete settings of the tokenizer of a method, for the generator of another one.

    What the files of the other method say about a tokenizer belongs to its own.

    Args:
        files: of the method, later ones win.
        chosen: by the user, which wins in the end.
    """
    values: dict[str, Any] = {}
    for file in files:
        values |= file
    tokenizer = chosen.get("tokenizer", values["tokenizer"])
    made_by = tokenizer_class(tokenizer)
    values = {**shipped(f"tokenizer/{made_by.name}"), **values}
    names = [name for name in made_by.cache_key_names() if name in values]
    return {"tokenizer": tokenizer, **{name: values[name] for name in names}}


def generator_notice(model: str, other: str, tokenizer: object, published: bool) -> str:
    """What to say where the generator of one method runs on the tokenizer of another.

    Args:
        model: the method whose tokenizer it is.
        other: the method that generates.
        tokenizer: its name.
        published: whether both take their published settings.
    """
    text = f"{other} runs on the codes of {model}'s tokenizer ({tokenizer}), all of {model}'s"
    if not published:
        return f"{text} settings for it."
    text = f"{text} published settings for it, and with {other}'s own for the rest"
    if model == "LETTER":
        return f"{text}, as its paper does."
    return f"{text}. No paper has this combination."
