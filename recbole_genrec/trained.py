"""What can be done with a checkpoint beside recommending: test it again, export it, ask what it says about items."""

from __future__ import annotations

import logging

from recbole_genrec.accounting import Stages, commit, versions
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.quick_start import check_topk, load_data_and_model, start_summary, tested
from recbole_genrec.registry import get_trainer_class, is_generative
from recbole_genrec.settings.rules import nearest

EVALUATION_KEYS = (  # what the weights do not depend on
    *("beam_width", "beam_max", "uncertified", "score_type", "score_mode", "constraint", "candidate_file", "search_batch_size"),
    *("topk", "metrics", "eval_batch_size", "test_prompt_ids", "infer_temperature", "eval_prompt", "mask_history", "precision"),
    *("subset_norm", "data_path", "gpu_id", "use_gpu", "show_progress", "trie_budget_mb", "compile_search"),
)


def evaluate(checkpoint: str, **changes: object) -> dict:
    """Test a checkpoint again, under another search if wanted; nothing is trained.

    Args:
        checkpoint: as in :func:`load_data_and_model`. changes: keys of :data:`EVALUATION_KEYS` and their values.

    Returns:
        ``{"model", "dataset", "checkpoint", "changes", "test_result", "report", "seconds", "cpu_seconds", ...}`` as in a result file.

    Raises:
        ConfigError: a key that says how the model was trained, or a wrong value.
    """
    fixed = [key for key in changes if key not in EVALUATION_KEYS]
    if fixed:
        near = nearest(fixed[0], EVALUATION_KEYS)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{fixed[0]} cannot be changed for a trained model. evaluate takes {', '.join(EVALUATION_KEYS)}.{hint}")
    stages = Stages()
    config, model, dataset, train, _, test = load_data_and_model(checkpoint, **changes)
    check_topk(config, dataset)
    if getattr(model, "n_items", 0) > dataset.item_num:
        raise ArtefactError(
            f"{checkpoint} holds items that add_items added ({model.n_items - dataset.item_num}), which no user of the data chose. "
            "Test the checkpoint that its run wrote."
        )
    logging.getLogger().info(start_summary(config))
    stages.end("data")
    trainer = get_trainer_class(config.model_class, config["model"])(config, model)
    trainer.eval_collector.data_collect(train)  # what fit does
    tests = tested(trainer, test, load_best_model=False)
    trainer.tensorboard.close()
    stages.end("test")
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "checkpoint": str(checkpoint),
        "changes": changes,
        **tests,
        "report": model.report() if is_generative(config.model_class) else {},
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "commit": commit(),
        "versions": versions(),
    }


def export(checkpoint: str, folder: str, merge: bool = False, **changes: object) -> None:
    """Write the language model of a checkpoint to a new folder: see ``save_pretrained`` in ``model/exporting.py``.

    Raises:
        ArtefactError: the checkpoint holds a model without a causal language model.
    """
    config, model, *_ = load_data_and_model(checkpoint, **changes)
    if not hasattr(model, "save_pretrained"):
        raise ArtefactError(f"{checkpoint} holds {config['model']}; export works for models with a causal language model, like LCRec.")
    model.save_pretrained(folder, merge)


def inspect(checkpoint: str, items: list[str], **changes: object) -> list[dict]:
    """What a model that learned to describe items (LCRec) says about them when it sees their codes alone, beside their true texts.

    Returns:
        ``[{"item", "codes", "generated", "text"}]``.

    Raises:
        ConfigError: unknown item id. ArtefactError: the checkpoint holds another model.
    """
    config, model, *_ = load_data_and_model(checkpoint, **changes)
    if not hasattr(model, "inspect_items"):
        raise ArtefactError(f"{checkpoint} holds {config['model']}, which does not describe items; inspect works for LCRec.")
    return model.inspect_items(items)
