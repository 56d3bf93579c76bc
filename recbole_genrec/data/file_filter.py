"""``filter_inter_by_user_or_item``: interactions whose item or user has no row in its file leave.

RecBole's default for it is True and does nothing, because ``load_col`` leaves these files out.
Where someone asks for the filter it works: ``load_col`` takes a file for its ids alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BY_FILES = "filter_inter_by_user_or_item"


def load_filtering_files(config) -> None:
    """Let ``load_col`` take the ids of ``.item`` and ``.user`` where these have to filter.

    Args:
        config: the settings of the run; ``load_col`` is changed.
    """
    values, given = config.final_config_dict, config.external_config_dict
    # The settings of a checkpoint or of a run say it by ``load_col``, see without_idle_filter.
    is_settled = "load_col" in given and BY_FILES not in given
    if is_settled or not asks_for_filter(config):
        return
    load = values["load_col"]
    if not isinstance(load, dict):
        return
    for ending, ids_alone in _columns_of_ids(values).items():
        file = Path(values["data_path"]) / f"{values['dataset']}.{ending}"
        if ending not in load and file.is_file():
            load = {**load, ending: ids_alone}
    values["load_col"] = load


def asks_for_filter(config) -> bool:
    """Whether the user asked for the filter, which RecBole's default does not."""
    return config[BY_FILES] is True and config.is_chosen(BY_FILES)


def filters_by_files(values: Mapping[str, Any]) -> bool:
    """Whether the files of items and users filter: one of them is loaded for its ids alone.

    A model that reads features of items loads their file anyway, and its row may stand beside those
    of other models.

    Args:
        values: settings of a run, also of a version that did not have all of these keys.
    """
    load = values.get("load_col")
    if values.get(BY_FILES) is False or not isinstance(load, dict):
        return False
    files = _columns_of_ids(values).items()
    return any(load.get(ending) == ids_alone for ending, ids_alone in files)


def without_idle_filter(values: dict[str, Any]) -> dict[str, Any]:
    """Stored settings, without ``filter_inter_by_user_or_item`` where no file was there to filter.

    Args:
        values: the final settings of a run.
    """
    load = values.get("load_col")
    if not isinstance(load, dict) or {"item", "user"} & load.keys():
        return values
    return {name: value for name, value in values.items() if name != BY_FILES}


def _columns_of_ids(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """What ``load_col`` takes of a file that filters, by the ending of the file."""
    return {
        "item": [values.get("ITEM_ID_FIELD", "item_id")],
        "user": [values.get("USER_ID_FIELD", "user_id")],
    }
