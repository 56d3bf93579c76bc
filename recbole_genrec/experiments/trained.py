"""What can be done with a checkpoint beside recommending: test it again, export it, ask what it says about items."""

from __future__ import annotations

import logging

import torch
from recbole.utils import init_seed

from recbole_genrec.config import config_from_plain
from recbole_genrec.data.ids import check_same_ids, read_ids
from recbole_genrec.data.loaders import create_dataset, make_loaders, user_history
from recbole_genrec.errors import ArtefactError, ConfigError, explained
from recbole_genrec.experiments.run import check_topk, start_summary, tested
from recbole_genrec.model.registry import is_generative
from recbole_genrec.settings.rules import nearest
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state
from recbole_genrec.training.accounting import Stages, commit, versions
from recbole_genrec.training.trainer import get_trainer_class

EVALUATION_KEYS = (  # what the weights do not depend on
    *(
        "beam_width",
        "beam_max",
        "uncertified",
        "score_type",
        "score_mode",
        "constraint",
        "candidate_file",
        "search_batch_size",
    ),
    *(
        "topk",
        "metrics",
        "eval_batch_size",
        "test_prompt_ids",
        "infer_temperature",
        "eval_prompt",
        "mask_history",
        "precision",
    ),
    *(
        "subset_norm",
        "data_path",
        "gpu_id",
        "use_gpu",
        "show_progress",
        "trie_budget_mb",
        "compile_search",
    ),
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
        raise ConfigError(
            f"{fixed[0]} cannot be changed for a trained model. evaluate takes {', '.join(EVALUATION_KEYS)}.{hint}"
        )
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
        raise ArtefactError(
            f"{checkpoint} holds {config['model']}; export works for models with a causal language model, like LCRec."
        )
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
        raise ArtefactError(
            f"{checkpoint} holds {config['model']}, which does not describe items; inspect works for LCRec."
        )
    return model.inspect_items(items)


def load_data_and_model(checkpoint: str, **changes: object):
    """``(config, model, dataset, train, valid, test)`` from a checkpoint of ours; nothing is trained and no stage runs again.

    Args:
        checkpoint: the ``.pth`` file beside the result file, or the folder of an export.
        changes: settings to replace, for example ``data_path`` or ``beam_width``.

    Raises:
        ArtefactError: the file is damaged, or the dataset holds other items than the checkpoint.
    """
    state = load_checkpoint(checkpoint)
    with explained(f"The checkpoint {checkpoint}", "Train the model again."):
        config = config_from_plain(state["config"], **changes)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, valid, test = make_loaders(config, dataset, is_generative(config.model_class))
        if is_generative(config.model_class):
            model = config.model_class.from_checkpoint(config, train._dataset, state)
        else:
            model = config.model_class(config, train._dataset)
            check_same_ids(
                state["ids"],
                train._dataset,
                ["items", "users"] if hasattr(model, "n_users") else ["items"],
            )
            load_state(model, state["state_dict"])
            stored = {
                k: v.to(config["device"]) if torch.is_tensor(v) else v
                for k, v in state["other_parameter"].items()
            }
            model.load_other_parameter(stored)
    return config, model.to(config["device"]).eval(), dataset, train, valid, test


def recommend(
    checkpoint: str,
    user: str | None = None,
    history: list[str] | None = None,
    k: int = 10,
    candidate_file: str | None = None,
    **changes: object,
) -> list[dict]:
    """The best next items for a user of the dataset, or for any history of raw item ids (the user need not exist), among all items
    or those of ``candidate_file`` (raw item ids, one a line).

    Returns:
        ``[{"rank", "item", "text", "score", ...}]``, best first; from a search ``certified`` too.

    Raises:
        ConfigError: unknown user or item id, empty history or file, or neither user nor history given.
    """
    candidates = None if candidate_file is None else read_ids(candidate_file)
    config, model, dataset, *_ = load_data_and_model(checkpoint, candidate_file=None, **changes)
    if not is_generative(type(model)):
        raise ArtefactError(
            f"{checkpoint} holds {config['model']}; recommend works for our generative models."
        )
    if (user is None) == (history is None):
        raise ConfigError("Give either a user or a history.")
    history = user_history(dataset, user) if user is not None else list(history)
    return model.recommend(history, k=k, candidates=candidates, user=user)
