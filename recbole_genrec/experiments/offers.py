"""What can be chosen: methods, tokenizers and datasets, as tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recbole_genrec.data.known_datasets import RECIPES, datasets_in
from recbole_genrec.model.names import MODELS, recbole_model_names
from recbole_genrec.model.outside import outside_names
from recbole_genrec.tokenizer.descriptions import TOKENIZER_DESCRIPTIONS, Description
from recbole_genrec.tokenizer.registry import tokenizer_names

FROM_OUTSIDE = Description("a class from outside this package", "outside")
OF_RECBOLE = Description("RecBole's own, under the same protocol", "RecBole")
SHIPPED = "ml-100k"
"""The dataset that lies inside RecBole's package."""


def list_models(all_of_recbole: bool = False) -> pd.DataFrame:
    """The methods that ``--model`` takes.

    Args:
        all_of_recbole: whether those of RecBole are listed too. Some of them need other data than
            users, items and times, and are refused.

    Returns:
        Columns ``name``, ``what`` and ``source``.
    """
    rows = {name: Description(method.text, method.source) for name, method in MODELS.items()}
    rows |= dict.fromkeys(outside_names(), FROM_OUTSIDE)
    if all_of_recbole:
        others = [name for name in recbole_model_names() if name not in rows]
        rows |= dict.fromkeys(others, OF_RECBOLE)
    return _table(rows)


def list_tokenizers() -> pd.DataFrame:
    """The tokenizers that ``--tokenizer`` takes.

    Returns:
        Columns ``name``, ``what`` and ``source``.
    """
    names = tokenizer_names()
    return _table({name: TOKENIZER_DESCRIPTIONS.get(name, FROM_OUTSIDE) for name in names})


def list_datasets(data_path: str | Path = "dataset") -> pd.DataFrame:
    """The datasets at hand and those that ``prepare`` makes.

    Args:
        data_path: folder of all datasets.

    Returns:
        Columns ``name``, ``state``, and the published counts ``users``, ``items`` and
        ``interactions`` where they are known.
    """
    at_hand = sorted(datasets_in(Path(data_path)))
    rows = []
    for name in [*RECIPES, *(name for name in at_hand if name not in RECIPES)]:
        counts: tuple[int | None, ...] = (None, None, None)
        if name in RECIPES:
            counts = RECIPES[name].published
        rows.append([name, _state(name, at_hand, data_path), *counts])
    frame = pd.DataFrame(rows, columns=["name", "state", "users", "items", "interactions"])
    return frame.astype({"users": "Int64", "items": "Int64", "interactions": "Int64"})


def _state(name: str, at_hand: list[str], data_path: str | Path) -> str:
    if name in at_hand:
        return f"in {data_path}"
    if name == SHIPPED:
        return "comes with RecBole"
    return f"recbole-genrec prepare {name}"


def _table(rows: dict[str, Description]) -> pd.DataFrame:
    content = [(name, *description) for name, description in rows.items()]
    return pd.DataFrame(content, columns=["name", "what", "source"])
