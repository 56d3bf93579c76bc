"""How SETRec's weight of semantic tokens is chosen on the validation split."""

from __future__ import annotations

from logging import getLogger

from torch import Tensor

from recbole_genrec.model.base import Validate
from recbole_genrec.model.setrec.keys import SETRecSettings
from recbole_genrec.report.best import best_value
from recbole_genrec.settings.protocol_values import ranking_metric


def choose_beta(beta: Tensor, settings: SETRecSettings, validate: Validate) -> dict[str, float]:
    """Try each value of ``beta_grid`` and leave the best one in ``beta``.

    The figure is ``valid_metric``; with ``valid_metric: loss``, which does not depend on beta, the
    first NDCG.

    Args:
        beta: scalar that the model's scores read; changed in place.
        settings: of the run.
        validate: evaluates the model on the validation split.

    Returns:
        The figure of each value.
    """
    metric = ranking_metric(settings)
    figures = {}
    for value in settings.beta_grid:
        beta.fill_(value)
        figures[value] = validate()[metric]
    top = best_value(metric, figures.values())
    best = next(value for value, figure in figures.items() if figure == top)
    beta.fill_(best)
    by_name = {f"{value:g}": figure for value, figure in figures.items()}
    getLogger().info(f"beta {best:g} has the best {metric} on validation: {by_name}")
    return by_name
