"""The checkpoint of a run: the weights of its best epoch, and what a model needs beside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint

if TYPE_CHECKING:
    from recbole_genrec.training.evaluation import EvaluatingTrainer


def storable(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint may hold of ``model.other_parameter()``: tensors and plain values.

    ItemKNN, EASE and their like list numpy and scipy matrices there, which their constructors
    compute from the dataset anyway.
    """
    plain = (torch.Tensor, bool, int, float, str, list, dict, type(None))
    return {name: value for name, value in parameters.items() if isinstance(value, plain)}


def write_checkpoint(trainer: EvaluatingTrainer, epoch: int, path: str) -> None:
    """Write the weights of the present epoch; all processes must call it.

    Args:
        trainer: whose model is written.
        epoch: number of the epoch.
        path: of the checkpoint.
    """
    weights = trainer.weights()
    if not trainer.writes:
        return
    save_checkpoint(
        path,
        {
            "run": trainer.run_name,
            "config": trainer.config.plain(),
            "epoch": epoch,
            "best_valid_score": float(trainer.best_valid_score),
            "state_dict": weights,
            "ids": trainer.ids,
            "histories": trainer.histories,
            "other_parameter": storable(trainer.model.other_parameter()),
        },
    )


def replace_weights(trainer: EvaluatingTrainer, path: str) -> None:
    """Write what the model is now into its checkpoint; all processes must call it.

    Args:
        trainer: whose model is written.
        path: of the checkpoint, whose epoch and score stay.
    """
    weights = trainer.weights()
    if not trainer.writes:
        return
    checkpoint = load_checkpoint(path)
    checkpoint["state_dict"] = weights
    checkpoint["other_parameter"] = storable(trainer.model.other_parameter())
    save_checkpoint(path, checkpoint)


def read_checkpoint(trainer: EvaluatingTrainer, path: str, run_name: str | None) -> None:
    """Load the weights of a checkpoint into the trainer's model.

    Args:
        trainer: whose model changes.
        path: of the checkpoint.
        run_name: the run that it must belong to; ``None`` = any.

    Raises:
        ArtefactError: the file is damaged, or belongs to another run or another training of it.
    """
    checkpoint = load_checkpoint(path, trainer.device)
    with explained(f"The checkpoint {path}", "Train the model again."):
        if run_name is not None and checkpoint["run"] != run_name:
            raise ArtefactError(
                f"{path} belongs to {checkpoint['run']}, another run: it was renamed or replaced. "
                "Train again."
            )
        if run_name is not None:
            _check_score(trainer, path, float(checkpoint["best_valid_score"]))
        load_state(trainer.model, trainer.replicas.weights(checkpoint["state_dict"]))
        # LightGCN's cached embeddings, Pop's counts.
        trainer.model.load_other_parameter(checkpoint["other_parameter"])
        trainer.logger.info(f"Loaded the weights of epoch {checkpoint['epoch']} from {path}")


def _check_score(trainer: EvaluatingTrainer, path: str, score: float) -> None:
    """Refuse weights that another process has put in the place of this training's own.

    Locks keep other processes away, but not on every file system.

    Args:
        trainer: whose best score is known; infinite before a validation.
        path: of the checkpoint.
        score: the one it holds.

    Raises:
        ArtefactError: the scores differ.
    """
    best = float(trainer.best_valid_score)
    if math.isfinite(best) and score != best:
        raise ArtefactError(
            f"{path} holds weights with the validation score {score:g}, but the best score of this "
            f"training is {best:g}: another process has written the file, or the run was killed "
            "before it could note this score. Train again in another --checkpoint_dir, without "
            "--resume."
        )
