"""RecBole's filters, checked before RecBole applies them."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import Any

import pandas as pd
from recbole.utils import FeatureType

from recbole_genrec.errors import ConfigError


def filter_by_value(dataset: Any) -> None:
    """Apply ``val_interval``: numbers take an interval, ids and other tokens a list of values.

    Args:
        dataset: RecBole's dataset, its files loaded; rows that do not fit leave it.

    Raises:
        ConfigError: an entry does not fit the column it names.
    """
    for field, interval in (dataset.config["val_interval"] or {}).items():
        if field not in dataset.field2type:
            loaded = ", ".join(dataset.field2type)
            raise ConfigError(
                f"val_interval names the column {field!r}, which is not loaded; loaded are "
                f"{loaded}. Add it to load_col."
            )
        kind = dataset.field2type[field]
        if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
            raise ConfigError(
                f"val_interval: {field} holds sequences; it filters by single values only."
            )
        is_list = isinstance(interval, (list, tuple))
        if kind == FeatureType.TOKEN and not is_list:
            raise ConfigError(
                f"val_interval: {field} holds tokens, so it takes a list of the values to keep: "
                f'--val_interval="{{{field}: [a, b]}}", not {interval!r}.'
            )
        if kind == FeatureType.FLOAT and is_list:
            raise ConfigError(
                f"val_interval: {field} holds numbers, so it takes an interval such as "
                f"--val_interval=\"{{{field}: '[3,inf)'}}\", not {interval!r}."
            )
        tables = dataset.field2feats(field)
        if kind == FeatureType.TOKEN:
            kept = _tokens(field, interval)
            _tell_unknown(field, kept, tables)
        for rows in tables:
            if kind == FeatureType.TOKEN:
                fits = rows[field].isin(kept).to_numpy()
            else:
                limits = dataset._parse_intervals_str(interval)
                fits = dataset._within_intervals(rows[field].to_numpy(), limits)
            rows.drop(rows.index[~fits], inplace=True)


def _tokens(field: str, values: Sequence[object]) -> list[str]:
    """The tokens of a list of values to keep.

    Raises:
        ConfigError: a value is neither a text nor a whole number.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ConfigError(
                f"val_interval: {field} holds tokens, and one of those to keep was read as "
                f"{value!r}. Write it in quotes, as it stands in the file: "
                f"--val_interval=\"{{'{field}': ['...']}}\"."
            )
    return [str(value) for value in values]


def _tell_unknown(field: str, kept: Sequence[str], tables: Sequence[pd.DataFrame]) -> None:
    """Warn of tokens to keep that are in no row."""
    there = {token for rows in tables for token in rows[field].unique()}
    unknown = [token for token in kept if token not in there]
    if unknown:
        getLogger().warning(
            f"val_interval: {len(unknown)} of {len(kept)} values of {field} are in no row, for "
            f"example {unknown[0]!r}."
        )
