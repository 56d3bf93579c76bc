"""One explicit table: model name -> class. Everything else is looked up in RecBole."""

from __future__ import annotations

import importlib
from pathlib import Path

from recbole_genrec.errors import ConfigError
from recbole_genrec.runtime.recbole_repairs import (
    check_installation,
    check_model_runs,
    quiet_anomaly_detection,
)
from recbole_genrec.settings.rules import nearest

MODELS = {
    "STORE": "recbole_genrec.model.store:STORE",
    "TIGER": "recbole_genrec.model.tiger:TIGER",
    "LETTER": "recbole_genrec.model.letter:LETTER",
    "LCRec": "recbole_genrec.model.lcrec.model:LCRec",
    "TimelineRec": "recbole_genrec.model.timeline.model:TimelineRec",
    "TokenRec": "recbole_genrec.model.tokenrec.model:TokenRec",
    "LightGCN": "recbole_genrec.model.baselines.lightgcn:LightGCN",
    "LightGCNDot": "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNDot",
    "LightGCNCosine": "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNCosine",
    "Pop": "recbole_genrec.model.baselines.pop:Pop",
}

# (model, generator) -> the model that runs instead, on the tokenizer of the first and with the section of its files named after the second
GENERATORS = {
    ("TIGER", "timeline"): "TimelineRec",
    ("LETTER", "timeline"): "TimelineRec",
    ("TIGER", "lcrec"): "LCRec",
    ("LETTER", "lcrec"): "LCRec",
}


def recbole_model_names() -> list[str]:
    """Names of the models that RecBole ships (its model YAMLs)."""
    import recbole

    return sorted(
        path.stem
        for path in (Path(recbole.__file__).parent / "properties" / "model").glob("*.yaml")
    )


def model_names() -> list[str]:
    """Every name that ``--model`` takes."""
    return sorted({*MODELS, *recbole_model_names()})


def get_model_class(name: str) -> type:
    """The class for ``--model=name``: our table first, then RecBole's models.

    Raises:
        ConfigError: unknown name; the message carries the nearest known ones.
    """
    check_installation()
    check_model_runs(name)
    if name in MODELS:
        module, _, attribute = MODELS[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        known = model_names()
        if name not in known:
            near = nearest(name, known, n=3) or list(MODELS)
            raise ConfigError(
                f"There is no model {name!r}. Did you mean {' or '.join(near)}? Ours: {', '.join(MODELS)}."
            )
        from recbole.utils import ModelType, get_model

        try:
            found = get_model(name)
        except ImportError as error:
            raise ConfigError(
                f"RecBole's {name} needs the package {error.name}, which is not installed."
            ) from error
        if found.type in (ModelType.CONTEXT, ModelType.KNOWLEDGE, ModelType.DECISIONTREE):
            raise ConfigError(
                f"RecBole's {name} is a {found.type.name.lower()} model and needs other data than user, item and time; "
                "general, traditional and sequential models run here."
            )
    quiet_anomaly_detection()
    return found


def build_model(config, dataset):
    """The model of a run, untrained.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
    """
    model_class = config.model_class
    if is_generative(model_class):
        return model_class.build(config, dataset)
    return model_class(config, dataset)


def is_generative(model_class: type) -> bool:
    """Whether a class is one of our generative methods (they alone carry ``generative = True``)."""
    return getattr(model_class, "generative", False)
