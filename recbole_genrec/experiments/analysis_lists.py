"""The lists of the test users: ranks, groups of users, the catalogue, some examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_genrec.data.choices import Histories
from recbole_genrec.data.histories import training_counts
from recbole_genrec.data.loader_dataset import dataset_of
from recbole_genrec.data.loaders import drawn_rows, part_of
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.analysis_items import ItemTable
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.contents import Analysis, Example, Group, Item, ListedItem
from recbole_genrec.report.ranks import UserRanks, evaluated_cases, ranks_from_hits

POPULARITY_EDGES = (0, 1, 3, 6, 11, 21, 51, 101, 201, 501, 1001)
HISTORY_EDGES = (0, 1, 2, 3, 4, 6, 11, 21, 51, 101, 201)
"""Lowest value of each group (our choice)."""
EXAMPLES = 10
SHOWN_HISTORY = 8
SHOWN_LIST = 10
CATALOGUE = ("itemcoverage", "giniindex", "averagepopularity", "tailpercentage")


def chosen_users(config: Any, loader: Any, users: int | None) -> Any:
    """A test loader of at most ``users`` rows, drawn with the seed of the run.

    Raises:
        ConfigError: the run held nothing out.
    """
    if loader is None:
        raise ConfigError("The run held nothing out (hold_out: False), so there are no test lists.")
    n_rows = len(dataset_of(loader))
    if users is None or users >= n_rows:
        return loader
    return part_of(config, loader, drawn_rows(n_rows, users, config.settings.seed))


def analyse_lists(
    analysis: Analysis,
    trained: Trained,
    trainer: Any,
    loader: Any,
    table: ItemTable,
    bought: Histories,
) -> None:
    """Fill in what the lists of the test users tell.

    Args:
        analysis: is filled in.
        trained: the model and its data.
        trainer: evaluates it.
        loader: the users.
        table: the items.
        bought: raw item ids of each user, oldest first.

    Raises:
        ConfigError: the test gives no rank for each user.
    """
    users, targets = evaluated_cases(loader)
    if is_generative(type(trained.model)):
        next(iter(trained.model.test_variants()))  # sets the first of them
    metrics = trainer.evaluate(loader, load_best_model=False, show_progress=False)
    collector = trainer.eval_collector
    lists = collector.lists.numpy()  # [users, depth]
    ranks = UserRanks(ranks_from_hits(collector.hits), users, lists.shape[1], targets)

    analysis.users = len(users)
    analysis.ranks = ranks
    analysis.metrics = {name: value for name, value in metrics.items() if "@" in name}
    for name in list(analysis.metrics):
        if name.startswith(CATALOGUE):
            analysis.catalogue[name] = analysis.metrics.pop(name)
    counts = np.bincount(lists.ravel(), minlength=len(table))[1:]
    analysis.shown = np.sort(counts)[::-1]

    before = []
    for user, target in zip(users, targets, strict=True):
        before.append(_history(bought.get(user, []), target))
    trained_counts = training_counts(trained.train.counted)
    numbers = {token: number for number, token in enumerate(table.tokens)}
    popularity = [trained_counts.get(numbers[target], 0) for target in targets]
    analysis.popularity = groups(popularity, POPULARITY_EDGES, ranks)
    analysis.history = groups([len(items) for items in before], HISTORY_EDGES, ranks)
    draw = np.random.default_rng(trained.config.settings.seed)
    for row in draw.permutation(len(users))[:EXAMPLES]:
        analysis.examples.append(_example(int(row), ranks, lists, before, table, numbers))


def _history(items: Sequence[str], target: str) -> list[str]:
    """What a user chose before the target, which is the last such item."""
    history = list(items)
    if target not in history:
        return history
    place = len(history) - 1 - history[::-1].index(target)
    return history[:place]


def groups(values: Sequence[int], edges: Sequence[int], ranks: UserRanks) -> list[Group]:
    """Metrics of users grouped by a count.

    Args:
        values: the count of each user.
        edges: the lowest count of each group, ascending; the last group is open.
        ranks: of the users.

    Returns:
        The groups that have users.
    """
    group_of = np.searchsorted(edges, values, side="right") - 1
    rows = []
    for group, low in enumerate(edges):
        members = group_of == group
        if not members.any():
            continue
        label = f"{low}+"
        if group + 1 < len(edges):
            high = edges[group + 1] - 1
            label = str(low) if low == high else f"{low}–{high}"
        rows.append(Group(label, int(members.sum()), rank_metrics(ranks, members)))
    return rows


def rank_metrics(ranks: UserRanks, members: np.ndarray | None = None) -> dict[str, float]:
    """Recall and NDCG at 5, 10, 20, ... and at the depth of the ranks.

    Args:
        ranks: of some users.
        members: bool ``[users]``, whom to average over; default all.
    """
    places = sorted({k for k in (1, 5, 10, 20, 50) if k < ranks.depth} | {ranks.depth})
    metrics = {}
    names = [f"{name}@{k}" for name in ("recall", "ndcg") for k in places]
    for metric in names:
        values = ranks.values(metric)
        if members is not None:
            values = values[members]
        metrics[metric] = float(values.mean())
    return metrics


def _example(
    row: int,
    ranks: UserRanks,
    lists: np.ndarray,
    before: list[list[str]],
    table: ItemTable,
    numbers: dict[str, int],
) -> Example:
    target = ranks.targets[row]
    history = []
    for token in before[row][-SHOWN_HISTORY:]:
        if token in numbers:
            history.append(table.item(numbers[token]))
        else:
            history.append(Item(token, token))
    listed = []
    for number in lists[row, :SHOWN_LIST].tolist():
        if number == 0:
            continue  # too few items are left for this place
        item = table.item(number)
        listed.append(ListedItem(item, item.token == target))
    return Example(
        ranks.users[row],
        history,
        len(before[row]),
        table.item(numbers[target]),
        int(ranks.ranks[row]),
        listed,
    )
