"""RecBole's training loop with a schedule, mixed precision, safe checkpoints and an exact resume.

Nothing about methods stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from recbole.utils import get_gpu_usage, set_color
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from recbole_genrec.data.ids import raw_ids
from recbole_genrec.errors import ConfigError, GenRecError, explained_memory
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.number_formats import NUMBER_FORMATS
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.training.accounting import clocks
from recbole_genrec.training.collector import Silent, scratch_folder
from recbole_genrec.training.estimate import Estimate
from recbole_genrec.training.evaluation import EvaluatingTrainer
from recbole_genrec.training.list_evaluation import CLIP
from recbole_genrec.training.optimiser import (
    in_one_pass,
    make_optimiser,
    make_schedule,
    rate_times,
    sentence_about_half_precision,
    trained_parameters,
)
from recbole_genrec.training.replicas import Replicas
from recbole_genrec.training.resume import EpochPosition, ResumePoints
from recbole_genrec.training.row_adam import clip_gradients, row_optimiser
from recbole_genrec.training.time_limit import TimeIsUp, TimeLimit
from recbole_genrec.training.weight_average import WeightAverage, anew_after_refresh

ANOTHER_TASK = (
    "local_steps: {} trains on another task before its epochs (align_mode: alternate), which is "
    "not divided among processes. Use --align_mode=joint, or leave local_steps at 0."
)
SMALLER_BATCH = (
    "Use a smaller --train_batch_size, and a larger --gradient_accumulation_steps to make up for "
    "it."
)


class GenRecTrainer(EvaluatingTrainer):
    """RecBole's ``Trainer`` for our models and for RecBole's own.

    What it adds to RecBole's:

    * parameter groups (``model.optimiser_groups()``), a learning-rate schedule with warm-up,
      gradient accumulation, bf16 and fp16;
    * ``model.on_epoch_start(epoch)`` before each epoch, and ``model.after_fit(validate)``;
    * an average of the weights (``ema_decay``), an end after some CPU time (``max_cpu_minutes``);
    * checkpoints without pickled objects, and a resume that continues bit for bit;
    * metrics as plain floats;
    * several processes that give the numbers of one (:mod:`recbole_genrec.runtime.processes`), or
      average what each has learned (``local_steps``).

    Args:
        config: the run's ``GenRecConfig``.
        model: what is trained, on its device.

    Attributes:
        can_resume: whether an interrupted training can go on.
        ids: raw ids of the training data, for checkpoints.
        resume_points: where the training stands, on disk.
        seconds: wall time of training and validation.
        cpu_seconds: CPU time of training and validation.
        history: number, mean losses and validation of each epoch.
        used_before: wall and CPU seconds of an interrupted run that this one continues.
        average: of the weights; ``None`` = the weights themselves are validated and stored.
    """

    can_resume = True
    used_before = (0.0, 0.0)
    tensorboard: Any  # RecBole's

    def __init__(self, config: Any, model: Any) -> None:
        self.settings: SharedSettings = config.settings
        self.writes = processes.rank() == 0
        fsdp = bool(self.settings.fsdp)
        local_steps = self.settings.local_steps or 0
        self.replicas = Replicas(model, fsdp, local_steps)
        with nullcontext() if self.writes else scratch_folder():
            super().__init__(config, model)
        if not self.writes:
            self.tensorboard.close()
            self.tensorboard = Silent()
        folder = Path(self.settings.checkpoint_dir)
        self.run_name: str = config.run_name()
        self.saved_model_file = str(folder / f"{self.run_name}.pth")
        self.resume_points = ResumePoints(self, folder / f"{self.run_name}.resume.pth")
        self.accumulation = self.settings.gradient_accumulation_steps or 1
        self.dtype = NUMBER_FORMATS[self.settings.precision or "fp32"]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.scheduler: LRScheduler | None = None
        self.seconds = {"train": 0.0, "valid": 0.0}
        self.cpu_seconds = {"train": 0.0, "valid": 0.0}
        self.history: list[dict[str, Any]] = []
        self.estimate = Estimate(self.epochs, self.logger)
        self.limit = TimeLimit(self.settings.max_cpu_minutes)
        self.average: WeightAverage | None = None
        if self.settings.ema_decay:
            self.average = WeightAverage(model, self.settings.ema_decay)
        sentence = sentence_about_half_precision(self.settings.learner, model)
        if sentence:
            self.logger.warning(sentence)

    # --- optimiser --------------------------------------------------------------------------------

    def _build_optimizer(self, **kwargs):
        kwargs.setdefault("params", trained_parameters(self.model))
        arguments = (
            kwargs.get("learner", self.learner),
            kwargs["params"],
            kwargs.get("learning_rate", self.learning_rate),
            kwargs.get("weight_decay", self.weight_decay),
        )
        if getattr(self.model, "sparse_parameters", ()):
            return row_optimiser(*arguments)
        optimiser = make_optimiser(self.settings, *arguments)
        if optimiser is None:
            optimiser = super()._build_optimizer(**kwargs)
        if self.settings.device.type == "cpu" and not self.settings.fsdp:
            optimiser = in_one_pass(optimiser)
        return optimiser

    def _build_scheduler(self, batches: int) -> LRScheduler | None:
        steps = -(-self._turns(batches) // self.accumulation) * self.epochs
        name = self.settings.lr_scheduler or "constant"
        return make_schedule(self.optimizer, name, steps, self.settings.warmup_ratio or 0.0)

    # --- training ---------------------------------------------------------------------------------

    def _turns(self, batches: int) -> int:
        """How often the processes work on batches, of which each turn may take several."""
        return -(-batches // self.replicas.batches_at_once)

    def fit(
        self,
        train_data,
        valid_data=None,
        verbose=True,
        saved=True,
        show_progress=False,
        callback_fn=None,
    ):
        """As RecBole's; with ``resume: True`` it goes on where the resume file says.

        Args:
            train_data: loader of the training split.
            valid_data: loader of the validation split; ``None`` = no validation.
            verbose: whether epochs are logged.
            saved: whether checkpoints and resume points are written.
            show_progress: whether bars are shown.
            callback_fn: called with epoch and score after each validation.

        Returns:
            The best validation score and its metrics.
        """
        self.scheduler = self._build_scheduler(len(train_data))
        processes.own_stream(self.settings.seed)
        if self.settings.resume and self.can_resume:
            self.resume_points.go_on(train_data)
        # An interrupted run has its checkpoint from before.
        self.has_checkpoint = math.isfinite(self.best_valid_score)
        self.resume_points.active = saved and self.can_resume
        self.ids = raw_ids(train_data._dataset)
        self.used_before = sum(self.seconds.values()), sum(self.cpu_seconds.values())
        self.limit.start(self.used_before[1])
        try:
            return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        except TimeIsUp:
            self._add_hparam_to_tensorboard(self.best_valid_score)
            return self.best_valid_score, self.best_valid_result

    def resume_checkpoint(self, resume_file: str) -> None:
        """RecBole's way to name the file to continue from; :meth:`fit` restores the state."""
        self.resume_points.file = Path(resume_file)
        self.config["resume"] = True

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        is_new = not self.history or self.history[-1]["epoch"] < epoch_idx  # no further pass of it
        if is_new and epoch_idx > self.start_epoch and self.limit.is_over():
            self.logger.info(self.limit.sentence(epoch_idx))
            raise TimeIsUp
        if self.average is not None:
            self.average.hide()
        self.model.train()
        self._counted = clocks()
        with explained_memory(SMALLER_BATCH):
            position = self._begin_epoch(train_data, epoch_idx)
            loss_func = loss_func or self.model.calculate_loss
            means = self._train_batches(train_data, epoch_idx, loss_func, show_progress, position)
        self.count_training()
        self._list_losses(epoch_idx, means)
        if self.average is not None:
            self.average.show()
        if epoch_idx == self.epochs - 1 or self.limit.is_over():
            self.eval_step = min(self.eval_step, 1)  # this epoch is the last: validate it
        return tuple(means) if len(means) > 1 else means[0]

    def count_training(self) -> None:
        """Add what training has used since the last call, also to what a resume file says."""
        self._counted = self._count("train", self._counted)

    def _list_losses(self, epoch: int, means: list[float]) -> None:
        self.history.append({"epoch": epoch, "loss": means})

    def _begin_epoch(self, train_data: Any, epoch: int) -> EpochPosition:
        """Begin an epoch, or go on with the one inside which an interrupted run stopped."""
        if self.resume_points.is_inside_epoch:
            return self.resume_points.continue_epoch(epoch)
        self.resume_points.begin_epoch(train_data, epoch)
        with anew_after_refresh(self.average, self.model):
            self._epoch_start(epoch)
        return EpochPosition()

    def _train_batches(
        self,
        train_data: Any,
        epoch: int,
        loss_func: Callable[[Any], Any],
        show_progress: bool,
        position: EpochPosition,
    ) -> list[float]:
        """Train on the batches of an epoch.

        Args:
            train_data: loader of the training split.
            epoch: number of the epoch.
            loss_func: gives the loss of a batch, or its parts.
            show_progress: whether to show a bar.
            position: what an interrupted run has done of the epoch already.

        Returns:
            The mean losses of the epoch, one a part.
        """
        count = done = self._turns(len(train_data))
        done_before = self._turns(position.batches)
        batches: Any = self.replicas.own_batches(train_data)
        if show_progress:
            label = set_color(f"Train {epoch:>5}", "pink")
            batches = tqdm(batches, total=count, ncols=100, desc=label)
        sums = position.sums or []
        self.optimizer.zero_grad()
        with self.resume_points.safe_points():
            for index, interaction in enumerate(batches):
                if index < done_before:
                    if index + 1 == done_before:
                        self.resume_points.restore_random_states()
                    continue
                is_step = (index + 1) % self.accumulation == 0 or index + 1 == count
                batches_of_step = self._batches_of_step(index, count)
                losses = self._backward(
                    interaction, loss_func, epoch, index, is_step, batches_of_step
                )
                sums = [total + loss for total, loss in zip_longest(sums, losses, fillvalue=0.0)]
                is_together = is_step and self._end_step(epoch, index + 1, count, sums)
                self.estimate.after_batch(epoch, count)
                if show_progress and self.gpu_available:
                    memory = get_gpu_usage(self.device)
                    batches.set_postfix_str(set_color(f"GPU RAM: {memory}", "yellow"))
                if is_together and self.limit.is_over():
                    done = index + 1
                    break
        return processes.mean([total / max(done, 1) for total in sums])

    def _batches_of_step(self, batch: int, count: int) -> int:
        """How many batches the step of a batch has; the last of an epoch may have fewer."""
        first = batch - batch % self.accumulation
        return min(self.accumulation, count - first)

    def _backward(
        self,
        interaction: Any,
        loss_func: Callable[[Any], Any],
        epoch: int,
        batch: int,
        last: bool,
        batches_of_step: int = 1,
    ) -> list[float]:
        """Add the gradients of a batch to those that are there.

        Args:
            interaction: the batch, of all processes; with ``local_steps`` of this one.
            loss_func: gives the loss of a batch, or its parts.
            epoch: number of the epoch.
            batch: number of the batch.
            last: whether an optimiser step follows; processes share gradients only then.
            batches_of_step: number of batches whose mean loss the optimiser step follows.

        Returns:
            The parts of the loss.
        """
        with self.replicas.own_work(), self.replicas.accumulating(accumulate=not last):
            rows = processes.own_part(interaction).to(self.device)
            losses = self.replicas(lambda: self._losses(loss_func, rows))
            loss = sum(losses)
            self._check_finite(loss, epoch, batch)
            self.scaler.scale(loss / batches_of_step).backward()
        return [float(loss.detach()) for loss in losses]

    def _end_step(self, epoch: int, turn: int, turns: int, sums: list[float]) -> bool:
        """Change the weights, and the learning rate for the next step.

        Args:
            epoch: number of the epoch.
            turn: how many turns of it are done.
            turns: of the epoch.
            sums: sums of the losses of its batches.

        Returns:
            Whether all processes are here with equal weights.
        """
        self._optimiser_step()
        if self.scheduler is not None:
            self.scheduler.step()
        is_together = self._meet(is_last=turn == turns)
        if is_together:
            batches = turn * self.replicas.batches_at_once
            self.resume_points.safe_point(epoch, batches, sums)
        return is_together

    def _meet(self, is_last: bool) -> bool:
        """Average the weights of the processes where it is time to; whether they are equal now."""
        averages: list[torch.Tensor] = []
        if self.average is not None:
            averages = list(self.average.averages.values())
        return self.replicas.after_step(self.optimizer, is_last, averages)

    def _losses(self, loss_func: Callable[[Any], Any], rows: Any) -> tuple[torch.Tensor, ...]:
        """The parts of the loss on this process's rows; RecBole's models average over the rows."""
        with self.autocast():
            losses = loss_func(rows)
        losses = losses if isinstance(losses, tuple) else (losses,)
        if any(getattr(self.model, name, False) for name in ("generative", "balances_loss")):
            return losses
        return tuple(processes.balanced(loss, len(rows)) for loss in losses)

    def _epoch_start(self, epoch: int) -> None:
        """Let the model refresh its codes or run another task.

        Losses that it yields are optimised one at a time, at the present rate of the schedule.
        """
        if not hasattr(self.model, "on_epoch_start"):
            return
        # A refresh of the codes searches with the whole model.
        with self.replicas.gathered_weights():
            losses = iter(self.model.on_epoch_start(epoch))
        values: list[float] = []
        while True:
            with self.autocast():
                loss = self.replicas(lambda: next(losses, None))
            if loss is None:
                break
            if self.replicas.batches_at_once > 1:
                raise ConfigError(ANOTHER_TASK.format(self.settings.model))
            self._check_finite(loss, epoch, len(values))
            self.scaler.scale(loss).backward()
            self._optimiser_step()
            values.append(float(loss.detach()))
        if values:
            (mean,) = processes.mean([sum(values) / len(values)])
            self.logger.info(f"epoch {epoch}: mean loss of the alternating task {mean:.4f}")

    def _optimiser_step(self) -> None:
        self.replicas.before_step()
        # Clipping must see the true gradients.
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_norm:
            clip_gradients(self.model.parameters(), **self.clip_grad_norm)
        with rate_times(self.optimizer, self._rate_factor()):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.after_step()

    def _rate_factor(self) -> float:
        """Share of the learning rate that the model takes for the next step."""
        factor = getattr(self.model, "rate_factor", None)
        return 1.0 if factor is None else factor()

    def _check_finite(self, loss, epoch: int, batch: int) -> None:
        if not torch.isfinite(loss):
            rate = self.optimizer.param_groups[0]["lr"]
            raise GenRecError(
                f"The training loss is {float(loss.detach())} in epoch {epoch}, batch {batch}, at "
                f"learning rate {rate:g}. Try a lower --learning_rate, {CLIP}, or --precision=fp32."
            )
