"""Ensembles of runs: weighted sums of log-probabilities, judged and ranked like a model.

Scores of every member become log-probabilities by a softmax over the catalogue, which moves no
member's own ranking; those of a probabilistic model stay as they are.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.rows.loader_dataset import drawn_rows
from recbole_genrec.errors import ConfigError, explained_files
from recbole_genrec.experiments.ensemble_file import (
    RESULT_ENDING,
    EnsembleFile,
    checked_weights,
)
from recbole_genrec.experiments.ensemble_members import Case, Member, load_members
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.recbole_lists import BATCH
from recbole_genrec.experiments.results_beside import cost_of_trainings
from recbole_genrec.experiments.stages import candidates_of_test, tested_entries
from recbole_genrec.experiments.stored_settings import changes_of_results
from recbole_genrec.report.metric_names import place
from recbole_genrec.report.ranks import UserRanks, digest_of_test, ranks_folder, ranks_from_hits
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.training.accounting import Stages, entries_without_training
from recbole_genrec.training.held_runs import held_output

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that are tried for each member beside the first, whose weight is 1."""

MOST_TRIALS = 125
"""With more combinations, fewer levels are tried."""

VALID_USERS = 6000
"""Users whose validation items choose the weights."""


@explained_files()
def make_ensemble(
    checkpoints: Sequence[str],
    output: str | os.PathLike,
    weights: Sequence[float] | None = None,
    command: str | None = None,
    model_class: type | str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Choose weights on validation, test the sum, and write the ensemble and its result.

    Args:
        checkpoints: of two or more models, ours or RecBole's.
        output: the JSON file of the ensemble; its result goes to ``<name>.result.json`` beside it.
        weights: one for each checkpoint; default: chosen on validation.
        command: the command line, for the result file.
        model_class: the class of members from outside this package, or ``package.module:Class``.
        **changes: settings to replace, of all members, for example ``exclude_history``. What
            decides the result is kept in the file.

    Returns:
        The result, of the form of a run's.

    Raises:
        ConfigError: models that do not fit each other, wrong weights, or a key that says how
            models are trained.
        ArtefactError: a checkpoint is missing or damaged, or holds other items than its data.
        HeldError: another process is going to write the same ensemble.
    """
    target = Path(output).expanduser()
    if target.suffix != ".json":
        raise ConfigError(f"output is {target}; an ensemble is a .json file.")
    local = [local_checkpoint(checkpoint) for checkpoint in checkpoints]
    with held_output(target, "output", logging.getLogger().warning):
        return _made_ensemble(local, target, weights, command, model_class, changes)


def _made_ensemble(
    checkpoints: Sequence[str],
    target: Path,
    weights: Sequence[float] | None,
    command: str | None,
    model_class: type | str | None,
    changes: dict[str, Any],
) -> dict[str, Any]:
    """See :func:`make_ensemble`."""
    stages = Stages()
    result_file = target.with_suffix(RESULT_ENDING)
    check_writable(target)
    check_writable(result_file)
    members = load_members(checkpoints, changes, model_class)
    stages.end("data")
    valid: float | None = None
    if weights is None:
        chosen, valid = choose_weights(members)
    else:
        chosen = checked_weights(weights, len(members))
    stages.end("weights")
    is_chosen = weights is None
    file = EnsembleFile(tuple(checkpoints), chosen, changes_of_results(changes), is_chosen)
    result = tested(members, file, ranks_folder(result_file))
    stages.end("test")

    models = [member.trained.model for member in members]
    result |= entries_without_training(stages, models, command)
    result["cpu_seconds"] = {**cost_of_trainings(checkpoints), **stages.cpu_seconds}
    metric = f"ndcg@{place(members[0].trained.config.settings.valid_metric)}"
    result["best_valid_score"] = valid
    result["best_valid_result"] = None if valid is None else {metric: valid}
    write_json(target, file.content(target.parent))
    write_json(result_file, result)
    logging.getLogger().info(f"Ensemble written to {target}, its result to {result_file}")
    return result


def tested(
    members: Sequence[Member], file: EnsembleFile, ranks: Path | None = None
) -> dict[str, Any]:
    """The test of an ensemble.

    Args:
        members: its members, see :func:`~.ensemble_members.load_members`.
        file: their weights.
        ranks: where the rank of each user's test item goes; default nowhere.

    Returns:
        Entries of a result file.
    """
    first = members[0]
    config = first.trained.config
    trainer = first.trainer
    cases = list(first.rows("test"))
    collector = trainer.eval_collector
    for batch in _batches(cases):
        interaction, total, rows, targets = _summed(members, batch, file.weights)
        collector.eval_batch_collect(total, interaction, rows, targets)
    figures = trainer.evaluator.evaluate(collector.get_data_struct())
    metrics = {"test_result": {name: float(value) for name, value in figures.items()}}
    ranks_name = None
    if ranks is not None and collector.hits is not None:  # else no metric looks at lists
        ranks_name = ranks.name
        users, items = zip(*cases, strict=True)
        depth = max(config.settings.topk)
        places = ranks_from_hits(collector.hits)
        of_test = digest_of_test(metrics["test_result"])
        UserRanks(places, users, depth, items, test_digest=of_test).save(ranks)
    entries = tested_entries(config, first.trained.test, metrics, {}, ranks_name)

    name = " + ".join(member.name for member in members)
    entries["model"] = name
    entries["config"]["model"] = name
    entries["config"]["members"] = [member.settings_name() for member in members]
    if file.chosen is not None:
        # chosen ones may differ from seed to seed, given ones are settings
        entries["config"]["weights"] = "chosen" if file.chosen else list(file.weights)
    entries["candidates"] = candidates_of_test(config)
    entries["members"] = [
        {"model": member.name, "checkpoint": checkpoint, "weight": weight}
        for member, checkpoint, weight in zip(members, file.checkpoints, file.weights, strict=True)
    ]
    return entries


def choose_weights(members: Sequence[Member]) -> tuple[tuple[float, ...], float]:
    """The weights with the best validation NDCG at the place of ``valid_metric``, or at 10.

    The first member has weight 1. Of equal ones the first is taken, and equal weights are tried
    first.

    Args:
        members: see :func:`~.ensemble_members.load_members`.

    Returns:
        The weights and the NDCG.

    Raises:
        ConfigError: no case that all members have, or scores that are no numbers.
    """
    config = members[0].trained.config
    k = place(config.settings.valid_metric)
    cases = _valid_cases(members, config.settings.seed)
    trials = torch.tensor(list(_trials(len(members))))  # [N, M]
    sums = torch.zeros(len(trials), dtype=torch.float64)
    for batch in _batches(cases):
        log_probs, rows, targets = _stacked(members, batch)  # [M, B, n_items]
        for number, weights in enumerate(trials):
            total = torch.einsum("m,mbn->bn", weights.to(log_probs), log_probs)
            sums[number] += _ndcg(total, rows, targets, k)
    if not bool(sums.isfinite().all()):
        raise ConfigError(
            "A member gives scores that are no numbers, so no weights can be chosen. Train it "
            "again, or leave it out."
        )
    best = int(sums.argmax())
    score = float(sums[best]) / len(cases)
    chosen = tuple(trials[best].tolist())
    logging.getLogger().info(
        f"Weights {chosen} of {len(trials)} tried, validation NDCG@{k} {score:.4f}; equal "
        f"weights {float(sums[0]) / len(cases):.4f}"
    )
    return chosen, score


def _valid_cases(members: Sequence[Member], seed: int) -> list[Case]:
    """Cases of the validation split that all members have, drawn with the seed."""
    common = set.intersection(*(set(member.rows("valid")) for member in members))
    cases = [case for case in members[0].rows("valid") if case in common]
    if not cases:
        raise ConfigError(
            "The members have no validation row in common, so no weights can be chosen. Give "
            "--weights."
        )
    if len(cases) <= VALID_USERS:
        return cases
    return [cases[row] for row in drawn_rows(len(cases), VALID_USERS, seed).tolist()]


def _trials(n_members: int) -> Iterator[tuple[float, ...]]:
    """Weights to try, equal ones first."""
    levels: tuple[float, ...] = LEVELS
    while len(levels) > 1 and len(levels) ** (n_members - 1) > MOST_TRIALS:
        levels = levels[1:-1]
    equal = (1.0,) * n_members
    yield equal
    for others in itertools.product(levels, repeat=n_members - 1):
        if (1.0, *others) != equal:
            yield (1.0, *others)


def _stacked(members: Sequence[Member], cases: Sequence[Case]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities ``[M, B, n_items]`` and the targets of validation cases."""
    batches = [member.batch("valid", cases) for member in members]
    _, _, rows, targets = batches[0]
    return torch.stack([log_probs.cpu() for _, log_probs, _, _ in batches]), rows, targets


def _ndcg(scores: Tensor, rows: Tensor, targets: Tensor, k: int) -> float:
    """Sum over targets of NDCG; items with an equal score stand before the target."""
    of_target = scores[rows, targets].unsqueeze(1)
    rank = (scores[rows] >= of_target).sum(1)  # 1 = first
    gain = 1 / torch.log2(rank + 1.0)
    return float(torch.where(rank <= k, gain, 0.0).sum())


def _summed(
    members: Sequence[Member], cases: Sequence[Case], weights: Sequence[float]
) -> tuple[Any, Tensor, Any, Any]:
    """The weighted sum of log-probabilities of test cases, in the form of RecBole's batch."""
    interaction, total, rows, targets = members[0].batch("test", cases)
    total = weights[0] * total
    for member, weight in zip(members[1:], weights[1:], strict=True):
        total = total + weight * member.batch("test", cases)[1].to(total.device)
    return interaction, total, rows, targets


def _batches(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for start in range(0, len(cases), BATCH):
        yield cases[start : start + BATCH]
