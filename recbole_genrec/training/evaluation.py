"""The evaluating half of the trainer: validation, test, and what is decided between the two."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from recbole.trainer import Trainer
from recbole.utils import set_color

from recbole_genrec.errors import ArtefactError, GenRecError, explained_memory
from recbole_genrec.runtime import processes
from recbole_genrec.settings.protocol_values import VALIDATION_LOSS
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.training.accounting import clocks
from recbole_genrec.training.catalogue_metrics import FilledEvaluator
from recbole_genrec.training.checkpoint import (
    read_checkpoint,
    replace_weights,
    write_checkpoint,
)
from recbole_genrec.training.collector import TensorCollector
from recbole_genrec.training.list_evaluation import WENT_WRONG, check_numbers, ranked_batch
from recbole_genrec.training.replicas import Replicas
from recbole_genrec.training.validation_loss import validation_loss

SMALLER_SEARCH = "Use a smaller --{}eval_batch_size or fewer --topk."


class EvaluatingTrainer(Trainer):
    """RecBole's ``Trainer`` whose metrics are plain floats and whose checkpoints hold no objects.

    Attributes:
        settings: the keys that all methods share.
        replicas: the model in several processes.
        run_name: name of the run; checkpoints of other runs are refused.
        writes: whether this process writes files.
        has_checkpoint: whether the present training has written the checkpoint of its run;
            ``None`` = nothing was trained here.
        dtype: number format of training and search.
        seconds: wall time of training and validation.
        cpu_seconds: CPU time of training and validation.
        history: number, mean losses and validation of each epoch.
    """

    settings: SharedSettings
    replicas: Replicas
    run_name: str
    writes: bool
    ids: dict[str, list[str]] | None = None
    histories: dict[str, int] | None = None
    has_checkpoint: bool | None = None
    dtype: torch.dtype
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    history: list[dict[str, Any]]

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.eval_collector = TensorCollector(config)
        self.evaluator = FilledEvaluator(config)

    def autocast(self) -> AbstractContextManager[Any]:
        """The number format of the key ``precision``."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def _count(self, stage: str, started: tuple[float, float]) -> tuple[float, float]:
        """Add what a stage has used since ``started``; the clocks now."""
        wall, cpu = clocks()
        self.seconds[stage] += wall - started[0]
        self.cpu_seconds[stage] += cpu - started[1]
        return wall, cpu

    # --- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        write_checkpoint(self, epoch, path)
        self.has_checkpoint = True
        if verbose and self.writes:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that a checkpoint holds, whole; all processes must call it."""
        state_of = getattr(self.model, "checkpoint_state", self.model.state_dict)
        return self.replicas.gathered(state_of())

    # --- validation and test ----------------------------------------------------------------------

    def _valid_epoch(self, valid_data, show_progress=False):
        started = clocks()
        if self.valid_metric == VALIDATION_LOSS:
            with (
                self.replicas.gathered_weights(),
                explained_memory("Use a smaller --train_batch_size."),
            ):
                score = validation_loss(self.model, valid_data, self.settings, self.autocast())
            result = {VALIDATION_LOSS: score}
        else:
            score, result = super()._valid_epoch(valid_data, show_progress)
        self._count("valid", started)
        if not math.isfinite(score):
            raise GenRecError(f"The validation score is {score:g}: {WENT_WRONG}")
        self.history[-1]["valid"] = result
        return float(score), result

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As RecBole's, from a checkpoint that cannot run code; metrics are plain floats."""
        if not eval_data:
            return None
        if load_best_model:
            self.load_best(model_file)
        if processes.size() > 1:
            eval_data.batch_sampler.sampler = processes.own_block(eval_data.sample_size)
        if hasattr(self.model, "reset_search_log"):
            self.model.reset_search_log()
        search = ""
        if hasattr(self.model, "search"):
            search = "beam_width, --search_batch_size, --"
        # Other models may give their scores in bf16, in which many items tie.
        precision: AbstractContextManager[Any] = nullcontext()
        if getattr(self.model, "generative", False):
            precision = self.autocast()
        with (
            precision,
            self.replicas.gathered_weights(),
            explained_memory(SMALLER_SEARCH.format(search)),
        ):
            result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        if hasattr(self.model, "search_log"):
            self.model.search_log.add_up(processes.summed)
            self.logger.info(str(self.model.search_log))
        return {name: float(value) for name, value in result.items()}

    def _full_sort_batch_eval(self, batched_data):
        return ranked_batch(self, batched_data, super()._full_sort_batch_eval)

    def _neg_sample_batch_eval(self, batched_data):
        scored = super()._neg_sample_batch_eval(batched_data)
        check_numbers(scored[1])
        return scored

    def after_fit(self, valid_data, saved: bool) -> None:
        """Let the model decide on the validation split what its training leaves open.

        Calls ``model.after_fit(validate)`` with the weights of the best epoch, and writes them
        again with what the model has decided. A run that is killed here comes here again when it
        resumes, because its last epoch is done again.

        Args:
            valid_data: loader of the validation split.
            saved: whether the training wrote checkpoints; without them the weights of the last
                epoch count.
        """
        progress = bool(self.settings.show_progress)

        def validate() -> dict[str, float]:
            return self.evaluate(valid_data, load_best_model=False, show_progress=progress)

        if saved:
            self.load_best()
        self.model.after_fit(validate)
        if saved:
            replace_weights(self, self.saved_model_file)

    def load_best(self, model_file: str | None = None) -> None:
        """Load the weights of the best epoch into the model.

        Args:
            model_file: another checkpoint to load instead.

        Raises:
            ArtefactError: the file is damaged, belongs to another run, or is left from an earlier
                training of the run.
        """
        if model_file is None and self.has_checkpoint is False:
            raise ArtefactError(
                f"This training has written no checkpoint; {self.saved_model_file}, if it is "
                "there, is an earlier one's. Call fit with saved=True, or name a checkpoint."
            )
        # Process 0 has written it.
        processes.wait_for_all()
        run_name = None
        if model_file is None:
            run_name = self.run_name
        read_checkpoint(self, model_file or self.saved_model_file, run_name)
