"""Steps that the run of a model and a later test of its checkpoint share."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch
from recbole.data.dataset import Dataset
from recbole.trainer import Trainer

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.given_ids import read_ids
from recbole_genrec.data.rows.tested_pairs import pairs_of_test
from recbole_genrec.data.rows.training_rows import training_rows
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.registry import is_generative, needs_tokenizer
from recbole_genrec.runtime import processes
from recbole_genrec.settings.protocol_values import evaluation_modes, history_masked
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer import tokenizer_class
from recbole_genrec.tokenizer.code_sizes import effective_sizes, sizes_notice


def check_topk(config: GenRecConfig, dataset: Dataset) -> None:
    """Check that the ranked lists are shorter than the catalogue.

    Args:
        config: the settings of the run; reads ``topk`` and ``dataset``.
        dataset: RecBole's dataset.

    Raises:
        ConfigError: a list of ``topk`` would need more items than there are.
    """
    n_items = dataset.item_num - 1  # without the padding item
    if max(config.settings.topk) > n_items:
        raise ConfigError(
            f"topk {config.settings.topk} asks for more items than the {n_items} of "
            f"{config.settings.dataset}. Set topk to numbers of at most {n_items}."
        )


def start_summary(config: GenRecConfig, dataset: Dataset) -> str:
    """What is about to run, one setting a line.

    Args:
        config: the settings of the run.
        dataset: RecBole's dataset.
    """
    settings = config.settings
    history = settings.MAX_ITEM_LIST_LENGTH
    optimiser = f"{settings.learner} {settings.learning_rate}"
    threads = torch.get_num_threads()
    batch = str(settings.train_batch_size)
    if settings.batch_targets and training_rows(config) != "all":
        batch = f"{settings.batch_targets} targets"
    if training_rows(config) != "all" and not is_generative(config.model_class):
        batch += f", rows {training_rows(config)}"
    rows = {
        "model": settings.model,
        "dataset": f"{settings.dataset}, histories of up to {history} items",
        "history masked": "yes" if history_masked(config.final_config_dict) else "no",
        "device / precision": f"{settings.device} / {settings.precision}, {threads} threads",
        "training": f"{settings.epochs} epochs, batch {batch}, {optimiser}",
    }
    rows["validation"] = _validation(config)
    rows["evaluation"] = _evaluation(config)
    if processes.size() > 1:
        rows["processes"] = f"{processes.size()}, {_how_they_share(config)}"
    if is_generative(config.model_class):
        rows |= config.model_class.describe(config)
        rows |= _capped_codes(config, dataset)

    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join(["Running", *lines])


def _how_they_share(config: GenRecConfig) -> str:
    """What several processes do with the batches."""
    local_steps = config.settings.local_steps
    if local_steps:
        return f"with batches of their own, averaged every {local_steps} steps"
    if config.final_config_dict.get("sparse_tables"):
        return "which share each batch; faster, with other numbers: --local_steps=512"
    return "which share each batch"


def _validation(config: GenRecConfig) -> str:
    """By what, how often and on how many users the best epoch is chosen."""
    settings = config.settings
    step = settings.eval_step
    no_split = "test_only" in settings.eval_args["split"].values()
    if not step or no_split or settings.hold_out is False:
        return "none, the last epoch counts"
    text = f"{settings.valid_metric}, {-(-settings.epochs // step)} times, after every "
    text += "epoch" if step == 1 else f"{step} epochs and the last one"
    if settings.valid_users:
        text += f", {settings.valid_users:,} users"
    return f"{text}; ends after more than {settings.stopping_step} without progress"


def _evaluation(config: GenRecConfig) -> str:
    """Split, order and what is ranked, and the negatives of a training that draws some."""
    settings = config.settings
    arguments = settings.eval_args
    split = ", ".join(f"{name}: {value}" for name, value in arguments["split"].items())
    modes = ", ".join(dict.fromkeys(evaluation_modes(arguments).values()))
    text = f"split {split}, order {arguments['order']}, mode {modes}"
    negatives = settings.train_neg_sample_args or {}
    if negatives.get("distribution", "none") != "none":
        text += f"; training draws {negatives['sample_num']} {negatives['distribution']} negative"
    return text


def paper_scale_notice(config: GenRecConfig) -> str:
    """A warning for a published setting on a CPU; empty elsewhere."""
    if config.settings.preset != "paper" or config.settings.device.type != "cpu":
        return ""
    return (
        "preset paper is the published setting, made for GPUs: on a CPU it may take days. The line "
        "after the first batches says how long; without --preset the settings run in minutes."
    )


def _capped_codes(config: GenRecConfig, dataset: Dataset) -> dict[str, str]:
    """A row where the catalogue is too small for the sizes of the codes."""
    if not needs_tokenizer(config.model_class):
        return {}
    tokenizer = tokenizer_class(config.settings.tokenizer)
    if not tokenizer.caps_sizes:
        return {}
    n_items = dataset.item_num - 1  # without the padding item
    asked = config.settings.codebook_sizes
    sizes = tokenizer.sizes_asked(asked, n_items, dataset.user_num - 1)
    notice = sizes_notice(n_items, sizes, effective_sizes(n_items, sizes))
    return {"codes": notice} if notice else {}


def candidates_of_test(config: GenRecConfig) -> dict[str, Any] | None:
    """Number and digest of the items in ``candidate_file``, by which two tests are compared.

    Args:
        config: the settings of the test.

    Returns:
        ``{"items": their number, "digest": 16 hexadecimal digits}``; ``None`` where all items are
        ranked.
    """
    file = config.settings.candidate_file
    if file is None:
        return None
    items = sorted(set(read_ids(file)))
    return {"items": len(items), "digest": digest(items)}


def metrics_of_test(trainer: Trainer, test: Any, load_best_model: bool) -> dict[str, Any]:
    """Evaluate a model on the test split.

    Args:
        trainer: RecBole's or our trainer, which holds the model.
        test: the loader of the test split.
        load_best_model: whether to load the checkpoint of the best epoch first.

    Returns:
        Entries of a result: ``test_result``, the mean over the variants of the model
        (``GenRecModel.test_variants``); where there are several also ``test_variants``, the metrics
        of each, and ``test_range``, the lowest and the highest value of each metric.
    """
    tests: dict[str, dict[str, float]] = {}
    # closed, so that a test that fails leaves the model as it was
    with closing(_variants(trainer.model)) as variants:
        for name in variants:
            tests[name] = trainer.evaluate(
                test,
                load_best_model=load_best_model,
                show_progress=trainer.config.settings.show_progress,
            )

    first = next(iter(tests.values()))
    mean = {}
    for metric in first:
        mean[metric] = sum(metrics[metric] for metrics in tests.values()) / len(tests)
    entries: dict[str, Any] = {"test_result": mean}
    if len(tests) > 1:
        entries["test_variants"] = tests
        entries["test_range"] = {}
        for metric in first:
            values = [metrics[metric] for metrics in tests.values()]
            entries["test_range"][metric] = [min(values), max(values)]
    return entries


def tested_entries(
    config: GenRecConfig,
    test: Any,
    metrics: dict[str, Any],
    report: dict[str, Any],
    ranks: str | None,
) -> dict[str, Any]:
    """Entries of a result that say what was tested, and what came out.

    Args:
        config: the settings of the test.
        test: RecBole's loader of the test split, or ``None``.
        metrics: entries with the metrics, as of :func:`metrics_of_test`.
        report: what the model says about its codes and its search.
        ranks: name of the folder that holds the ranks, where they are stored.
    """
    return {
        "model": config.settings.model,
        "dataset": config.settings.dataset,
        "seed": config.settings.seed,
        "history_masked": history_masked(config.final_config_dict),
        "tested_pairs": pairs_of_test(test),
        **metrics,
        "report": report,
        "ranks": ranks,
        "config": config.plain(),
    }


def _variants(model: Any) -> Generator[str, None, None]:
    """Names of the ways to test a model, which is prepared as each name is handed out."""
    if is_generative(type(model)):
        yield from model.test_variants()
    else:
        yield "all"
