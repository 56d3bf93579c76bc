"""RecBole's datasets on files that are read, ordered and checked here."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole.data.dataset as recbole_datasets
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType

from recbole_genrec.data.files.atomic_files import FileFormat
from recbole_genrec.data.files.feature_files import read_features
from recbole_genrec.data.files.headers import check_alias, check_columns
from recbole_genrec.data.files.times import in_order_of_events, warn_of_mixed_units
from recbole_genrec.data.filters import filter_by_value
from recbole_genrec.data.idle_keys import idle_keys
from recbole_genrec.data.ids import WHOLE_HISTORY, history_column
from recbole_genrec.data.inter_files import InteractionTable, interaction_files, read_interactions
from recbole_genrec.data.items.item_table import item_file_ids
from recbole_genrec.data.known_datasets import how_to_get
from recbole_genrec.data.numbering import frames_of
from recbole_genrec.data.rows.augmentation import HELD_OUT, RowsAtOnce
from recbole_genrec.data.rows.evaluation_rows import (
    first_events,
    rows_are_interactions,
    with_first_events,
)
from recbole_genrec.data.rows.exact_times import RankedTimes
from recbole_genrec.data.splits.presplit import Presplit
from recbole_genrec.errors import ConfigError, DataError, explained


class OrderedDataset(RankedTimes, RowsAtOnce):
    """What stands before RecBole's own class: reading, order of events, files that are split.

    Rows stand in the order of events (:func:`in_order_of_events`), filters see the real times, and
    everything after them sees ranks, which stay exact.

    Attributes:
        known_ids: raw ids that a checkpoint knows; they keep its numbers, and new ones follow.
        inter_feat: the rows, a table of pandas and later RecBole's ``Interaction``.
    """

    inter_feat: Any
    known_ids: dict[str, list[str]] | None = None

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        tables = [self._read(file) for file in interaction_files(self.config)]
        if len(tables) == 1:
            kinds = tables[0].kinds
            self.inter_feat = self._in_order(tables[0])
        else:
            presplit = Presplit(tables, self.config, self.config.settings.is_sequential)
            self._numbering = presplit.numbering()
            self.inter_feat, self.file_size_list = presplit.rows()
            kinds = presplit.kinds
        self._set_properties(kinds, self.inter_feat, FeatureSource.INTERACTION)

    def _read(self, path: Path) -> InteractionTable:
        """One file of interactions, its ids, times and histories checked."""
        config = self.config
        needed = [self.uid_field, self.iid_field]
        roles = dict.fromkeys(needed, "token")
        if self.time_field is not None:
            roles[self.time_field] = "float"
        load, _ = self._get_load_and_unload_col(FeatureSource.INTERACTION)
        optional = []
        if config.settings.benchmark_filename is not None:
            roles[history_column(config)] = "token_seq"
            load = None if load is None else {*load, history_column(config)}
            optional.append(history_column(config))
        if not needs_times(config):
            optional.append(self.time_field)
        return read_interactions(path, FileFormat.of(config), roles, load, optional)

    def _in_order(self, table: InteractionTable) -> pd.DataFrame:
        """The rows of a file in the order of events, where it has times."""
        if self.time_field not in table.frame:
            return table.frame
        warn_of_mixed_units(table.frame[self.time_field].to_numpy(), table.where)
        return in_order_of_events(table.frame, self.uid_field, self.time_field)

    def _load_feat(self, filepath: str | Path, source: FeatureSource | str) -> pd.DataFrame | None:
        """A file of features; ``None`` where no column of it is loaded."""
        load, _ = self._get_load_and_unload_col(source)
        if load == set():
            return None
        ids = {self.uid_field, self.iid_field}
        for key in ("alias_of_user_id", "alias_of_item_id"):
            ids.update(check_alias(self.config, key))
        frame, kinds = read_features(Path(filepath), FileFormat.of(self.config), load, ids)
        if frame.columns.empty:
            return None
        if source != "link":
            self._set_properties(kinds, frame, source)
        return frame

    def _set_properties(self, kinds: dict[str, str], frame: pd.DataFrame, source) -> None:
        """RecBole's tables of types and lengths; sequences cut where ``seq_len`` says so."""
        limits = self.config["seq_len"] or {}
        for name, kind in kinds.items():
            length = 1
            if kind.endswith("seq"):
                if name in limits:
                    frame[name] = [sequence[: limits[name]] for sequence in frame[name]]
                length = int(frame[name].map(len).max())
            self.set_field_property(name, FeatureType(kind), source, length)
            if kind.startswith("float"):
                self.field2bucketnum[name] = 2

    def _get_load_and_unload_col(
        self, source: FeatureSource | str
    ) -> tuple[set[str] | None, set[str] | None]:
        ending = source.value if isinstance(source, FeatureSource) else source
        load = check_columns(self.config, "load_col")
        unload = set(check_columns(self.config, "unload_col").get(ending, ()))
        if self.config.settings.load_col is None or load.get(ending) == "*":
            return None, unload or None
        return set(load.get(ending, ())) - unload, None

    def _set_alias(self, alias_name: str, default_value: list) -> None:
        """Columns whose ids are those of users or items; histories are among them by themselves."""
        history = history_column(self.config)
        names = [name for name in default_value if name]
        if alias_name == "item_id":
            names += [history, WHOLE_HISTORY]
        names += check_alias(self.config, f"alias_of_{alias_name}")
        loaded = []
        for name in dict.fromkeys(names):
            if name in self.field2source:
                loaded.append(name)
            elif name not in (history, WHOLE_HISTORY):
                raise ConfigError(
                    f"alias_of_{alias_name} names the column {name!r}, which is not loaded; loaded "
                    f"are {', '.join(self.field2source)}. Add it to load_col, or leave it out."
                )
        wrong = [name for name in loaded if not self.field2type[name].value.startswith("token")]
        if wrong:
            raise ConfigError(
                f"alias_of_{alias_name} names {wrong[0]!r}, which holds numbers; its type must be "
                "token or token_seq."
            )
        self.alias[alias_name] = np.array(loaded)

    def _filter_by_field_value(self) -> None:
        filter_by_value(self)

    def _remove_duplication(self) -> None:
        """RecBole's sort by time is not stable and scrambles events of the same time."""
        if self.config["rm_dup_inter"] is None:
            return
        if self.time_field in self.inter_feat:
            self.inter_feat.sort_values(self.time_field, kind="stable", inplace=True)
        self.inter_feat.drop_duplicates(
            [self.uid_field, self.iid_field], keep=self.config["rm_dup_inter"], inplace=True
        )

    def _filter_inter_by_user_or_item(self) -> None:
        before = len(self.inter_feat)
        super()._filter_inter_by_user_or_item()
        left_out = before - len(self.inter_feat)
        if left_out:
            getLogger().info(
                f"filter_inter_by_user_or_item: {left_out} of {before} interactions are left out; "
                "their items or users have no row in the files of features."
            )

    def _reset_index(self) -> None:
        if self.inter_feat.empty:
            raise DataError(
                f"No interaction of {self.dataset_name} is left after val_interval, rm_dup_inter, "
                "filter_inter_by_user_or_item and user_ and item_inter_num_interval. Relax them."
            )
        super()._reset_index()

    def _drop_bare_features(self) -> None:
        """Files of which only the ids were loaded filter; they add no items and no features."""
        for name, field in (("item_feat", self.iid_field), ("user_feat", self.uid_field)):
            features = getattr(self, name)
            if features is not None and list(features.columns) == [field]:
                setattr(self, name, None)
                self.feat_name_list.remove(name)

    def _remap_ID_all(self) -> None:  # noqa: N802 (RecBole's name)
        self._drop_bare_features()
        super()._remap_ID_all()

    def _get_remap_list(self, field_list) -> list:
        """Ids of files that are split are numbered in the order of events of all of them.

        Ids of a checkpoint come before them, and items without interactions come last.
        """
        known = frames_of(self.known_ids, self.uid_field, self.iid_field)
        split = getattr(self, "_numbering", {})
        first = []
        for frames in (known, split):
            for field in field_list:
                if field in frames:
                    first.append((frames[field], field, FeatureType.TOKEN))
        last = []
        if self.iid_field in field_list and self.config.settings.catalogue == "item_file":
            last.append((self._item_file_ids(), self.iid_field, FeatureType.TOKEN))
        return [*first, *super()._get_remap_list(field_list), *last]

    def _item_file_ids(self) -> pd.DataFrame:
        ids = np.array(item_file_ids(self.config), dtype=object)
        return pd.DataFrame({self.iid_field: ids})

    # --- training on everything -----------------------------------------------------------------

    def build(self) -> list:
        """As RecBole's; without ``hold_out`` rows of files that are split are all for training."""
        splits = super().build()
        if (
            self.config.settings.hold_out is False
            and self.config.settings.benchmark_filename is not None
        ):
            return self._everything()
        return splits

    def _everything(self) -> list:
        """All rows in the place of each part; the loaders keep the first."""
        self._drop_unused_col()
        return [self.copy(self.inter_feat)] * 3

    def leave_one_out(self, group_by, leave_one_mode) -> list:
        """The same held-out interactions for every model; all rows without ``hold_out``."""
        if self.config.settings.hold_out is False:
            return self._everything()
        if leave_one_mode not in HELD_OUT or group_by is None:
            return super().leave_one_out(group_by, leave_one_mode)
        return self.split_last(group_by, leave_one_mode)

    def split_by_ratio(self, ratios, group_by=None) -> list:
        """As RecBole's; all rows without ``hold_out``."""
        return self._split(super().split_by_ratio, ratios, group_by)

    def time_based_split(self, ratios, group_by) -> list:
        """As RecBole's; all rows without ``hold_out``."""
        return self._split(super().time_based_split, ratios, group_by)

    def _split(self, split: Callable[..., list], *arguments: object) -> list:
        """The parts of RecBole's ``split``; with ``ratio_rows: interactions`` of all but firsts."""
        if self.config.settings.hold_out is False:
            return self._everything()
        if not rows_are_interactions(self.config):
            return split(*arguments)
        first, others = first_events(self)
        every, self.inter_feat = self.inter_feat, others
        datasets = with_first_events(split(*arguments), first)
        self.inter_feat = every
        return datasets

    # --- sequential models on files that are split ----------------------------------------------

    def _benchmark_presets(self) -> None:
        """RecBole's own works for the field name ``item_id`` only."""
        history = history_column(self.config)
        setattr(self, f"{self.iid_field}_list_field", history)
        self.item_id_list_field = history
        limit = self.config.settings.MAX_ITEM_LIST_LENGTH
        self.set_field_property(history, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, limit)
        self.set_field_property(
            self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1
        )
        self.inter_feat[self.item_list_length_field] = self.inter_feat[history].map(len)

    def _change_feat_format(self) -> None:
        if WHOLE_HISTORY in self.inter_feat and not self.config.settings.exclude_history:
            self._del_col(self.inter_feat, WHOLE_HISTORY)
        super()._change_feat_format()
        settings = self.config.settings
        if settings.benchmark_filename is None or not settings.is_sequential:
            return
        history = history_column(self.config)
        items = self.inter_feat[history]
        missing = settings.MAX_ITEM_LIST_LENGTH - items.shape[1]
        columns = dict(self.inter_feat.interaction)
        columns[history] = torch.nn.functional.pad(items, (0, missing))  # [rows, longest history]
        self.inter_feat = Interaction(columns)


def needs_times(config) -> bool:
    """Whether the order of events comes from the column of times."""
    if config.settings.benchmark_filename is not None:
        return False
    return config.settings.is_sequential or config.settings.eval_args["order"] == "TO"


def create_dataset(config, known_ids: dict[str, list[str]] | None = None):
    """RecBole's dataset for ``config``; never its pickled copy.

    Args:
        config: a ``GenRecConfig``.
        known_ids: ``ids`` of a checkpoint. Its users and items keep their numbers, those that the
            files lack too, and new ones follow.

    Raises:
        ConfigError: a key that says how the files are read cannot be used.
        DataError: an ``.inter`` file is missing or malformed, or a pickled dataset lies where
            RecBole would load it.
    """
    name, files = config.settings.dataset, interaction_files(config)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]} does not exist. {how_to_get(name, config.settings.data_path)}"
        )
    for file in Path(config.settings.checkpoint_dir).glob(f"{name}-*Dataset.pth"):
        # else it belongs to another dataset whose name begins alike
        if "-" not in file.name[len(name) + 1 :]:
            refuse_pickle(file)
    _check_fields(config)
    _check_loaded(config)
    for sentence in idle_keys(config):
        getLogger().warning(sentence)
    with explained(str(files[0]), "RecBole cannot make a dataset of it.", DataError):
        return _dataset_class(config, known_ids)(config)


def refuse_pickle(file: Path) -> None:
    """Refuse a file that RecBole would unpickle.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"RecBole would unpickle {file}, which could run foreign code. Move it away or use another "
        "--checkpoint_dir."
    )


def _dataset_class(config, known_ids: dict[str, list[str]] | None) -> type:
    """RecBole's class for the model, with :class:`OrderedDataset` before it."""
    by_type = {
        ModelType.SEQUENTIAL: "SequentialDataset",
        ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
    }
    name = f"{config.settings.model}Dataset"
    if not hasattr(recbole_datasets, name):
        name = by_type.get(config.settings.MODEL_TYPE, "Dataset")
    bases = (OrderedDataset, getattr(recbole_datasets, name))
    return type(name, bases, {"known_ids": known_ids})


def _check_fields(config) -> None:
    for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
        value = config[key]
        needed = key != "TIME_FIELD" or needs_times(config)
        if value is None and not needed:
            continue
        if not isinstance(value, str) or not value:
            raise ConfigError(
                f"{key} is {value!r}; it must name a column of the .inter file. The order of "
                "events comes from TIME_FIELD; a file without times needs a column "
                "timestamp:float with the positions 1, 2, 3, ... of a user's items."
            )


def _check_loaded(config) -> None:
    """Refuse keys that leave out a column that is needed."""
    load = check_columns(config, "load_col").get("inter", ())
    if config.settings.load_col is None:
        load = "*"
    unload = check_columns(config, "unload_col").get("inter", ())
    needed = [config.settings.USER_ID_FIELD, config.settings.ITEM_ID_FIELD]
    time = config.settings.TIME_FIELD
    if needs_times(config):
        needed.append(time)
    unloaded = [name for name in needed if name in unload]
    if unloaded:
        raise DataError(f"unload_col leaves out {' and '.join(unloaded)}, which every run needs.")
    left_out = [name for name in needed if load != "*" and name not in load]
    if left_out:
        hint = ""
        if time in left_out:
            hint = (
                f" A file without times needs a column {time}:float with the positions 1, 2, 3, "
                "... of a user's items."
            )
        raise DataError(
            f"load_col takes {', '.join(load)} from the .inter file, without "
            f"{' and '.join(left_out)}. Say "
            f'--load_col="{{inter: [{", ".join(needed)}]}}".{hint}'
        )
