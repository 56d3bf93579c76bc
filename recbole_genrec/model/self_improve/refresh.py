"""One refresh of the item codes: the model proposes codes, and a table without conflicts comes out.

Our interpretation of the regeneration step of SIIT (arXiv 2412.17171). All rules are our choice;
the paper publishes none.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.model.self_improve.assignment import (
    Assignment,
    choose_movers,
    shuffled,
    with_current,
)
from recbole_genrec.model.self_improve.coder import ItemCoder
from recbole_genrec.tokenizer.collision import collision_stats

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving

POPULARITY_BUCKETS = 4


def refined_codes(
    model: SelfImproving, generator: torch.Generator, popularity: Tensor
) -> tuple[Tensor, dict]:
    """The next code table of a model; nothing of the model changes.

    Args:
        model: a model in evaluation mode.
        generator: draws everything that is random, on the CPU.
        popularity: number of interactions of each item ``[N]``.

    Returns:
        Codes int64 ``[n_items, L]``, row 0 = padding item, and an entry for the log.
    """
    started = time.process_time()
    settings = model.settings
    coder = ItemCoder(model, generator)
    before = coder.codes  # [N, L]
    rows = torch.arange(len(before))

    # What the model proposes for each item, its present codes among it.
    fit = coder.fit(before)  # [N]
    proposals = coder.propose(rows, settings.si_num_candidates)
    codes, fits = with_current(*proposals, before, fit)  # [N, K, L], [N, K]
    gain = fits[:, 0] - fit

    movers = choose_movers(
        before,
        fit,
        gain,
        settings.si_scope,
        settings.si_margin,
        settings.si_max_churn,
        model.reserved_codes().cpu(),
    )
    assignment = _assign(coder, rows[movers], codes[movers], fits[movers], fit[movers])
    after = assignment.codes
    if settings.si_control == "shuffled":
        after = shuffled(before, after, generator)

    changed = before != after  # [N, L]
    codes_of_choice = torch.where(movers.unsqueeze(1), codes[:, 0], before)
    entry = {
        "movers": int(movers.sum()),
        "churn": float(changed.any(1).float().mean()),
        "churn_per_level": changed.float().mean(0).tolist(),
        "churn_per_popularity": by_popularity(changed.any(1), popularity),
        "fit_before": float(fit.mean()),
        "fit_after": float(coder.fit(after).mean()),
        "mean_gain": float(gain.mean()),
        "collision_rate": collision_stats(codes_of_choice)["collision_rate"],
        "mean_rank": sum(assignment.ranks) / max(1, len(assignment.ranks)),
        "fallbacks": assignment.fallbacks,
        "cpu_seconds": time.process_time() - started,
    }
    return _with_padding(model, after), entry


def new_codes(model: SelfImproving, items: Tensor, generator: torch.Generator) -> Tensor:
    """The code table of a model with new codes for some items, chosen by their content.

    Args:
        model: a model in evaluation mode.
        items: internal ids of the items ``[n]``.
        generator: draws everything that is random, on the CPU.

    Returns:
        Codes int64 ``[n_items, L]``, row 0 = padding item.
    """
    coder = ItemCoder(model, generator)
    rows = items.cpu() - 1
    present = coder.codes[rows]  # [n, L]
    fit = coder.fit(present, rows)
    proposals = coder.propose(rows, model.settings.si_num_candidates)
    codes, fits = with_current(*proposals, present, fit)
    assignment = _assign(coder, rows, codes, fits, fit)
    return _with_padding(model, assignment.codes)


def _with_padding(model: SelfImproving, codes: Tensor) -> Tensor:
    """Codes of the real items ``[N, L]`` -> table ``[n_items, L]`` on the model's device."""
    return torch.cat([model.codes[:1], codes.to(model.codes.device)])


def _assign(coder: ItemCoder, rows: Tensor, codes: Tensor, fits: Tensor, fit: Tensor) -> Assignment:
    """Codes without conflicts for the movers; the best fitting items choose first.

    An item that finds no free candidate looks among more of them, then at its own codes, then
    near its best candidate.

    Args:
        coder: proposes more candidates.
        rows: rows of the movers ``[n]``.
        codes: their candidates ``[n, K, L]``, best first.
        fits: fits of the candidates ``[n, K]``.
        fit: fits of the movers' present codes ``[n]``.
    """
    before = coder.codes
    movers = torch.zeros(len(before), dtype=torch.bool).index_fill(0, rows, True)
    place = torch.zeros(len(before), dtype=torch.int64)  # of each row in rows
    place = place.index_copy(0, rows, torch.arange(len(rows)))
    assignment = Assignment(before, movers, coder.sizes, coder.model.reserved_codes().cpu())

    order = fits[:, 0].argsort(descending=True, stable=True)
    left = assignment.take_candidates(rows[order].tolist(), codes[order], fits[order])

    width = coder.settings.si_num_candidates
    widest = coder.settings.si_max_candidates
    while left and width < widest:
        width = min(2 * width, widest)
        pending = torch.tensor(left)
        proposals = coder.propose(pending, width)
        wider_codes, wider_fits = with_current(*proposals, before[pending], fit[place[pending]])
        left = assignment.take_candidates(left, wider_codes, wider_fits, wider=True)

    for row in assignment.take_own(left):
        best = codes[place[row], 0].tolist()
        assignment.take_nearest(row, best, partial(coder.ranked, row))
    return assignment


def by_popularity(changed: Tensor, popularity: Tensor) -> list[float]:
    """Share of changed items in each quarter of the catalogue, the least popular quarter first.

    Args:
        changed: whether an item changed, bool ``[N]``.
        popularity: number of interactions of each item ``[N]``.
    """
    order = popularity.argsort(stable=True)
    quarters = changed[order].tensor_split(POPULARITY_BUCKETS)
    return [float(quarter.float().mean()) for quarter in quarters]
