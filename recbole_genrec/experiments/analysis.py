"""What a checkpoint tells beyond its result file, for a report; nothing is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_genrec.data.dataset import create_dataset
from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.data.rows.tested_pairs import pairs_of_test
from recbole_genrec.errors import ConfigError, GenRecError, explained_files
from recbole_genrec.experiments.analysis_codes import analyse_codes
from recbole_genrec.experiments.analysis_items import ShownItems
from recbole_genrec.experiments.analysis_lists import CATALOGUE_METRICS, analyse_lists, chosen_users
from recbole_genrec.experiments.analysis_search import analyse_search
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.experiments.opened import Opened
from recbole_genrec.experiments.stages import candidates_of_test
from recbole_genrec.experiments.testable import testable
from recbole_genrec.report.contents import Analysis, Reason
from recbole_genrec.settings.plain import as_list
from recbole_genrec.settings.protocol_values import whole_ranking_metrics

SEARCHED_USERS = 1000
"""Users for whom the search is repeated with given codes and other beams (our choice)."""


@explained_files()
def analyse(
    checkpoint: str,
    users: int | None = None,
    searched_users: int = SEARCHED_USERS,
    model_class: type | str | None = None,
    result: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Analysis:
    """Lists, codes and search of a trained model, as far as it has them.

    Args:
        checkpoint: the ``.pth`` file of a run.
        users: at most so many test users get lists, drawn with the seed of the run; default all.
        searched_users: at most so many are searched again with given codes and other beams.
        model_class: the class of a model from outside this package, or ``package.module:Class``.
        result: of the test beside which the analysis stands; default none.
        **changes: settings to replace, for example ``data_path``.

    Returns:
        The analysis. Where this model or its test cannot tell something, a sentence says why.

    Raises:
        GenRecError: the checkpoint or its data cannot be loaded or tested, or the test of
            ``result`` asked for other users and items, or ranked others, than a test today.
    """
    opened = Opened.of(checkpoint, model_class, changes)
    metrics = _metrics(as_list(opened.asked("metrics")))
    trained = testable(opened.with_changes(metrics=metrics), show_progress=False)
    _check_same_test(trained, result or {})
    bought = histories(create_dataset(trained.config, opened.state["ids"]))
    table = ShownItems(trained.config, trained.model, trained.dataset)

    codes = analyse_codes(trained.model, table, trained.config.settings.seed)
    of_users = _n_rows(trained.test)
    try:
        loader = chosen_users(trained.config, trained.test, users)
        lists = analyse_lists(trained, loader, table, bought)
    except ConfigError as error:
        reason = f"No lists of users: {error}"
        return Analysis(codes, reason, reason, of_users)
    few = chosen_users(trained.config, loader, searched_users)
    search = analyse_search(trained, few, lists.ranks)
    return Analysis(codes, lists, search, of_users)


def analysis_or_reason(checkpoint: str, **options: Any) -> Analysis | Reason:
    """The analysis of a checkpoint, or why there is none; options as of :func:`analyse`."""
    try:
        return analyse(checkpoint, **options)
    except GenRecError as error:
        logging.getLogger().warning(f"The report has no analysis of {checkpoint}: {error}")
        return str(error)


def _check_same_test(trained: Trained, result: Mapping[str, Any]) -> None:
    """Check that a test today asks for what the test of a result asked for.

    Results of earlier versions do not say it.

    Raises:
        ConfigError: it does not.
    """
    advice = (
        "so the checkpoint is not analysed: its figures would not be those of the result file. "
        "Give what the test had, or test the checkpoint again with `recbole-genrec evaluate` and "
        "report the result_file of that."
    )
    before = result.get("tested_pairs")
    now = pairs_of_test(trained.test)
    if before is not None and (now is None or now["digest"] != before["digest"]):
        raise ConfigError(
            f"The data of {trained.config.settings.dataset} changed since the test: its users and "
            f"items were others, {advice}"
        )
    if "candidates" in result and result["candidates"] != candidates_of_test(trained.config):
        raise ConfigError(f"The test ranked other items than candidate_file names now, {advice}")


def _metrics(metrics: Sequence[str]) -> list[str]:
    """The metrics of a test that lists give, and those of the catalogue."""
    of_ranking = {name.lower() for name in whole_ranking_metrics(metrics)}
    names = [name for name in metrics if name.lower() not in of_ranking]
    known = {name.lower() for name in names}
    needed = ["Recall", "NDCG", *CATALOGUE_METRICS]
    return [*names, *(name for name in needed if name.lower() not in known)]


def _n_rows(loader: Any) -> int:
    if loader is None:
        return 0
    data = dataset_of(loader)
    return len(data.inter_feat[data.uid_field].unique())
