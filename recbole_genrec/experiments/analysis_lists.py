"""The lists of the test users: ranks, groups of users, the catalogue, some examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_genrec.data.histories.choices import Histories
from recbole_genrec.data.rows.loader_dataset import dataset_of, drawn_rows, part_of
from recbole_genrec.data.rows.training_counts import training_counts
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.analysis_items import ShownItems
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.contents import Example, Group, Item, ListAnalysis, ListedItem
from recbole_genrec.report.ranks import UserRanks, evaluated_cases, ranks_from_hits

POPULARITY_EDGES = (0, 1, 3, 6, 11, 21, 51, 101, 201, 501, 1001)
HISTORY_EDGES = (0, 1, 2, 3, 4, 6, 11, 21, 51, 101, 201)
"""Lowest value of each group (our choice)."""
EXAMPLES = 10
SHOWN_HISTORY = 8
SHOWN_LIST = 10
CATALOGUE_METRICS = ("ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage")
"""RecBole's metrics of all lists together."""


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
    trained: Trained, loader: Any, table: ShownItems, bought: Histories
) -> ListAnalysis:
    """What the lists of the test users tell.

    Args:
        trained: the model and its data.
        loader: the users.
        table: the items.
        bought: raw item ids of each user, oldest first.

    Raises:
        ConfigError: the test gives no rank for each user.
    """
    users, targets = evaluated_cases(loader)
    if is_generative(type(trained.model)):
        next(iter(trained.model.test_variants()))  # sets the first of them
    trainer = trained.evaluator()
    metrics = trainer.evaluate(loader, load_best_model=False, show_progress=False)
    collector = trainer.eval_collector
    assert collector.lists is not None and collector.hits is not None  # Recall needs them
    lists = collector.lists.numpy()  # [users, depth]
    ranks = UserRanks(ranks_from_hits(collector.hits), users, lists.shape[1], targets)
    counts = np.bincount(lists.ravel(), minlength=len(table))[1:]

    before = []
    for user, target in zip(users, targets, strict=True):
        before.append(_history(bought.get(user, []), target))
    trained_counts = training_counts(trained.train.counted)
    numbers = {token: number for number, token in enumerate(table.tokens)}
    popularity = [trained_counts.get(numbers[target], 0) for target in targets]
    draw = np.random.default_rng(trained.config.settings.seed)
    examples = []
    for row in draw.permutation(len(users))[:EXAMPLES]:
        examples.append(_example(int(row), ranks, lists, before, table, numbers))
    return ListAnalysis(
        users=len(users),
        ranks=ranks,
        metrics=_with_place(metrics, of_catalogue=False),
        catalogue=_with_place(metrics, of_catalogue=True),
        shown=np.sort(counts)[::-1],
        popularity=groups(popularity, POPULARITY_EDGES, ranks),
        history=groups([len(items) for items in before], HISTORY_EDGES, ranks),
        examples=examples,
    )


def _with_place(metrics: dict[str, float], of_catalogue: bool) -> dict[str, float]:
    """Metrics at a place of the lists: those of all lists together, or the others."""
    catalogue = tuple(map(str.lower, CATALOGUE_METRICS))
    return {
        name: value
        for name, value in metrics.items()
        if "@" in name and name.startswith(catalogue) == of_catalogue
    }


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
    table: ShownItems,
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
