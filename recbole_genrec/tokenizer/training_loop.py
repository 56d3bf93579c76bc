"""The one loop through which every fit goes: stages with names, each of which can be resumed.

A fit hands its stages to :meth:`TrainingLoop.train` and :meth:`TrainingLoop.compute` one after
another. A stage that an earlier, interrupted run has finished is not done again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from recbole_genrec.errors import GenRecError
from recbole_genrec.runtime import interrupts
from recbole_genrec.runtime.number_formats import NUMBER_FORMATS
from recbole_genrec.settings.tokenizer_keys import RateKeys
from recbole_genrec.tokenizer.progress import FitProgress
from recbole_genrec.training.optimiser import make_schedule

Result = TypeVar("Result")


@dataclass(frozen=True)
class EpochEnd:
    """What a stage decides after an epoch.

    Attributes:
        best: no epoch was better; if any is, the stage ends with the weights of the last best one.
        stop: the stage ends here, before its last epoch.
        shown: figures beside the progress bar, by name.
    """

    best: bool = False
    stop: bool = False
    shown: dict[str, str] = field(default_factory=dict)


class TrainingStage(ABC):
    """What one stage of a fit trains, and on what.

    A stage writes :meth:`batches` and :meth:`losses`; the other hooks do nothing by default.

    Args:
        name: of the stage, once in a fit; for the saved progress.
        label: for the progress bar and for errors.
        network: what is trained. The loop sets its training mode before each epoch.
        optimiser: of everything that is trained.
        epochs: at most so many.

    Attributes:
        learning_rate_key: the key that an error about a diverging loss names.
        schedule: of the learning rate, a step of it after each step of the optimiser; ``None`` =
            the rate stays as it is.
        generator: what the epochs draw from, such as the order of the rows; ``None`` = nothing that
            goes on from one epoch to the next.
    """

    learning_rate_key = "tokenizer_lr"
    schedule: LRScheduler | None = None
    generator: torch.Generator | None = None

    def __init__(
        self,
        name: str,
        label: str,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        epochs: int,
    ) -> None:
        self.name = name
        self.label = label
        self.network = network
        self.optimiser = optimiser
        self.epochs = epochs

    @abstractmethod
    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Row numbers int64 ``[B]`` of each batch of ``epoch``, which counts from 0."""

    @abstractmethod
    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Losses of a batch, by name; ``total`` (0-d) is minimised."""

    def set_schedule(self, settings: RateKeys, n_batches: int) -> None:
        """Let the learning rate run as the settings say.

        Args:
            settings: of the tokenizer.
            n_batches: of each epoch.
        """
        self.schedule = make_schedule(
            self.optimiser,
            settings.tokenizer_lr_scheduler,
            self.epochs * n_batches,
            settings.tokenizer_warmup_ratio,
        )

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027  # a hook
        """Called before the batches of ``epoch`` are drawn."""

    def after_step(self) -> None:  # noqa: B027  # a hook
        """Called after each step of the optimiser."""

    def end_epoch(self, epoch: int, means: dict[str, float]) -> EpochEnd:
        """Called after the last batch of ``epoch``.

        Args:
            epoch: counts from 0.
            means: the losses, each a mean over the batches.
        """
        return EpochEnd(shown={"loss": f"{means['total']:.4f}"})

    def check_finite(self, loss: float, epoch: int) -> None:
        """:class:`GenRecError` unless the ``loss`` of ``epoch`` is a finite number."""
        if not math.isfinite(loss):
            raise GenRecError(
                f"{self.label}: the loss is {loss} in epoch {epoch + 1}; "
                f"lower --{self.learning_rate_key}."
            )

    @property
    def parts(self) -> dict[str, object]:
        """What is kept after the stage, by name.

        See :data:`~recbole_genrec.tokenizer.progress.Parts`.

        Stages of one fit that train the same network give it the same name.
        """
        return {"network": self.network}

    @property
    def running_parts(self) -> dict[str, object]:
        """What epochs change besides :attr:`parts` and what is not needed after the stage."""
        return {} if self.generator is None else {"generator": self.generator}


class TrainingLoop:
    """Runs the stages of one fit.

    Args:
        progress: where they are noted.
        device: of the networks.
        precision: ``bf16`` or ``fp16`` for autocast; ``None`` and ``fp32`` are float32.
        show_progress: whether bars are shown.
    """

    def __init__(
        self,
        progress: FitProgress,
        device: torch.device | str = "cpu",
        precision: str | None = None,
        show_progress: bool = True,
    ) -> None:
        self.progress = progress
        self.device_type = torch.device(device).type
        self.dtype = NUMBER_FORMATS[precision or "fp32"]
        self.show_progress = show_progress

    def train(self, stage: TrainingStage) -> None:
        """Run the epochs of ``stage`` that remain; its network ends with the best state.

        Raises:
            GenRecError: a loss is no finite number.
            ArtefactError: the saved progress belongs to another fit.
        """
        curve = self.progress.curves.setdefault(stage.label, {})
        state_after_stage = {**stage.parts, f"curve of {stage.name}": curve}
        if self.progress.take_finished(stage.name, state_after_stage):
            return

        best: dict[str, Tensor] = {}
        scaler = torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)
        running_state = {**state_after_stage, **stage.running_parts, "optimiser": stage.optimiser}
        running_state |= {"scaler": scaler, "best": best}
        if stage.schedule is not None:
            running_state["schedule"] = stage.schedule
        first = self.progress.take_running(stage.name, running_state)

        with interrupts.safe_points() as stop_if_asked, self._bar(stage, first) as bar:
            for epoch in range(first, stage.epochs):
                save = partial(self.progress.save, stage.name, epoch, running_state)
                if epoch > first and self.progress.due:
                    save()
                stop_if_asked(save)

                end = self._epoch(stage, epoch, scaler, curve)
                if end.best:
                    best |= _copy(stage.network)
                bar.set_postfix(end.shown)
                bar.update()
                if end.stop:
                    break

            if best:
                stage.network.load_state_dict(best)
            self.progress.finish(stage.name, state_after_stage)
            if self.progress.due:
                self.progress.save_finished()
            stop_if_asked(self.progress.save_finished)

    def compute(self, name: str, function: Callable[[], Result]) -> Result:
        """What ``function`` returns; it is not called again in a fit that continues after it.

        Args:
            name: of the stage, once in a fit.
            function: returns plain values and tensors, also in dictionaries and lists.
        """
        if self.progress.take_finished(name, {}):
            return self.progress.take_result(name)
        try:
            result = function()
        except interrupts.Interrupted:
            self.progress.save_finished()
            raise
        self.progress.finish(name, {}, result)
        if self.progress.due:
            self.progress.save_finished()
        return result

    def _bar(self, stage: TrainingStage, first: int) -> tqdm:
        return tqdm(
            total=stage.epochs,
            initial=first,
            desc=stage.label,
            disable=not self.show_progress,
            ncols=100,
        )

    def _epoch(
        self,
        stage: TrainingStage,
        epoch: int,
        scaler: torch.amp.GradScaler,
        curve: dict[str, list[float]],
    ) -> EpochEnd:
        """Train an epoch and add its mean losses to ``curve``."""
        stage.network.train()
        stage.begin_epoch(epoch)
        batches = stage.batches(epoch)
        is_mixed = self.dtype != torch.float32
        means: dict[str, float] = {}
        for rows in batches:
            with torch.autocast(self.device_type, self.dtype, enabled=is_mixed):
                losses = stage.losses(rows)
            total = losses["total"]
            stage.check_finite(float(total.detach()), epoch)
            stage.optimiser.zero_grad()
            scaler.scale(total).backward()
            scaler.step(stage.optimiser)
            scaler.update()
            if stage.schedule is not None:
                stage.schedule.step()
            stage.after_step()
            for name, loss in losses.items():
                share = float(loss.detach().mean()) / len(batches)
                means[name] = means.get(name, 0.0) + share
        for name, mean in means.items():
            curve[name] = [*curve.get(name, []), mean]
        return stage.end_epoch(epoch, means)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
