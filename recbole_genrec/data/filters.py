"""RecBole's filters, checked before RecBole applies them."""

from __future__ import annotations

from typing import Any

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
        for rows in dataset.field2feats(field):
            if kind == FeatureType.TOKEN:
                fits = rows[field].isin([str(value) for value in interval]).to_numpy()
            else:
                limits = dataset._parse_intervals_str(interval)
                fits = dataset._within_intervals(rows[field].to_numpy(), limits)
            rows.drop(rows.index[~fits], inplace=True)
