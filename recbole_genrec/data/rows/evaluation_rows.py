"""What a row of an evaluation is: a user, or a held-out interaction.

Under a split by ratio, and in files that are split, a sequential model is tested on each held-out
interaction, and RecBole's general models once a user, on all of them together.
``ratio_rows: interactions`` gives general models the rows of sequential ones. Under a split by
ratio the first event of a user is never held out, the others are split, and each held-out one is a
row of its own. In files that are split each held-out row that has a history is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction, cat_interactions

from recbole_genrec.data.rows.row_order import begins_user
from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.protocol_values import ranks_all_items


def rows_are_interactions(config) -> bool:
    """Whether a general model is evaluated on each held-out interaction."""
    settings = config.settings
    by_interaction = settings.ratio_rows == "interactions" and not settings.is_sequential
    return by_interaction and holds_out_several(config.final_config_dict)


def holds_out_several(values: Mapping[str, Any]) -> bool:
    """Whether a user may have several held-out rows, else one, under leave-one-out.

    Args:
        values: the settings of a run.
    """
    split = (values.get("eval_args") or {}).get("split") or {}
    return values.get("benchmark_filename") is not None or bool({"RS", "TS"} & split.keys())


def check_ratio_rows(config) -> None:
    """Refuse evaluations that have no such rows.

    Raises:
        ConfigError: names the key.
    """
    if not rows_are_interactions(config):
        return
    start = "ratio_rows: interactions gives general models the rows of sequential ones"
    args = config.settings.eval_args
    if args.get("order") != "TO":
        raise ConfigError(f"{start}, which stand in the order of time. Use order: TO in eval_args.")
    if not ranks_all_items(args):
        raise ConfigError(f"{start}, which rank all items. Use mode: full in eval_args.")
    if not config.settings.repeatable:
        raise ConfigError(
            f"{start}; repeatable: False is RecBole's way for rows of users. Use "
            "exclude_history: True."
        )


def first_events(dataset) -> tuple[Interaction, Interaction]:
    """The first event of each user, and all others in the order of their times.

    Rows of one time stand by user, as RecBole's sequential dataset has them.

    Args:
        dataset: RecBole's dataset of a general model, its times as tensors.
    """
    dataset.sort(by=[dataset.uid_field, dataset.time_field])
    users = dataset.inter_feat[dataset.uid_field]
    is_first = begins_user(users)
    others = dataset.inter_feat[~is_first]
    others.sort(by=dataset.time_field)
    return dataset.inter_feat[is_first], others


def with_first_events(datasets: list, first: Interaction) -> list:
    """The parts of a split; the first events of all users come before the training part.

    Args:
        datasets: those of training, validation and test.
        first: see :func:`first_events`.
    """
    training = datasets[0]
    columns = {name: first[name] for name in training.inter_feat.columns}
    training.inter_feat = cat_interactions([Interaction(columns), training.inter_feat])
    return datasets


class RowLoader(FullSortEvalDataLoader):
    """RecBole's loader for full ranking; see the top of this file for its rows."""

    def __init__(self, config, dataset, sampler, shuffle=False):
        if not rows_are_interactions(config):
            super().__init__(config, dataset, sampler, shuffle=shuffle)
            return
        # What RecBole's constructor does for a sequential model; the one that it calls reads the
        # kind of the model once more.
        self.logger = getLogger()
        self.uid_field = dataset.uid_field
        self.iid_field = dataset.iid_field
        self.is_sequential = True
        self.sample_size = len(dataset)
        super(FullSortEvalDataLoader, self).__init__(config, dataset, sampler, shuffle=False)
        self.is_sequential = True
