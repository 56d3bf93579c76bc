"""Where a training stands, so that an interrupted run continues bit for bit.

It is saved before each epoch and inside long ones.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime import interrupts, processes
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint
from recbole_genrec.training.earlier_runs import RESUME, files_of_run
from recbole_genrec.training.held_runs import held_resume_file
from recbole_genrec.training.replicas import Replicas
from recbole_genrec.training.weight_average import WeightAverage


class ResumableTrainer(Protocol):
    """What :class:`ResumePoints` reads of a trainer, saves and restores.

    Attributes:
        config: the run's ``GenRecConfig``.
        settings: its typed view.
        run_name: name of the run; a resume file of another run is refused.
        writes: whether this process writes files.
        start_epoch: the epoch that training begins with.
        cur_step: validations since the best one.
        seconds: wall time by stage.
        cpu_seconds: CPU time by stage.
        history: what is reported of each epoch.
        average: of the weights, with ``ema_decay``.
    """

    config: Any
    settings: SharedSettings
    logger: Logger
    run_name: str
    writes: bool
    model: nn.Module
    replicas: Replicas
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: GradScaler
    start_epoch: int
    cur_step: int
    best_valid_score: float
    best_valid_result: dict[str, float] | None
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    history: list[dict[str, Any]]
    average: WeightAverage | None

    def weights(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds, whole."""


@dataclass
class EpochPosition:
    """How far an epoch has come.

    Attributes:
        batches: number of batches that are done.
        sums: sums of their losses, one for each part of the loss; ``None`` = none is done.
    """

    batches: int = 0
    sums: list[float] | None = None


class ResumePoints:
    """The resume file of a trainer.

    Args:
        trainer: whose state is saved and restored.
        file: the resume file.

    Attributes:
        file: the resume file.
        active: whether the present training saves where it stands.
    """

    def __init__(self, trainer: ResumableTrainer, file: Path) -> None:
        self.trainer = trainer
        self.file = file
        self.active = False
        self._files: dict[str, str] | None = None  # digests of what the run reads
        self._saved_at = time.monotonic()
        # State of the generator of the data loader before the present epoch.
        self._loader_state: Tensor | None = None
        # Content of the file of a run that stopped inside an epoch, until that epoch goes on.
        self._inside: dict[str, Any] | None = None
        # Random states at the position where that epoch stopped.
        self._random: dict[str, Any] = {}

    # --- positions in an epoch --------------------------------------------------------------------

    @property
    def is_inside_epoch(self) -> bool:
        """Whether the restored run stopped inside an epoch, which has not gone on yet."""
        return self._inside is not None

    def begin_epoch(self, train_data: Any, epoch: int) -> None:
        """Save the state before an epoch.

        Args:
            train_data: loader of the training split.
            epoch: number of the epoch that begins.
        """
        if self.active:
            self._loader_state = train_data.generator.get_state()
            self.save(epoch)

    def continue_epoch(self, epoch: int) -> EpochPosition:
        """Go on with the epoch inside which the restored run stopped.

        The model's hook runs again for what it leaves in Python attributes. Its losses are dropped,
        and parameters and buffers are restored after it.

        Args:
            epoch: number of the epoch.

        Returns:
            Where the epoch stopped.
        """
        state = self._inside
        assert state is not None  # the caller asks is_inside_epoch first
        self._inside = None

        model = self.trainer.model
        replicas = self.trainer.replicas
        on_epoch_start = getattr(model, "on_epoch_start", None)
        if on_epoch_start is not None:
            with replicas.gathered_weights():
                for _ in on_epoch_start(epoch):
                    pass
            load_state(model, replicas.weights(state["state_dict"]))

        self._random = state["random"]
        self._saved_at = time.monotonic()
        return EpochPosition(state["batch"], state["sums"])

    def safe_points(self) -> AbstractContextManager[Any]:
        """Around an epoch: a signal waits for the next safe point instead of ending the run."""
        if self.active:
            return interrupts.safe_points()
        return nullcontext()

    def safe_point(self, epoch: int, batch: int, sums: list[float]) -> None:
        """Save now and then, and stop when a signal asks for it; after an optimiser step.

        All processes do the same together.

        Args:
            epoch: number of the present epoch.
            batch: number of its batches that are done.
            sums: sums of their losses.

        Raises:
            Interrupted: a signal has asked the run to end.
        """
        if not self.active:
            return
        since_save = time.monotonic() - self._saved_at
        since, asked = processes.largest([since_save, interrupts.asked()])
        if asked or since >= interrupts.SAVE_EVERY:
            self.save(epoch, batch, sums)
        if asked:
            raise interrupts.Interrupted(int(asked))

    # --- the file ---------------------------------------------------------------------------------

    def save(self, epoch: int, batch: int = 0, sums: list[float] | None = None) -> None:
        """Write everything that the rest of the run depends on.

        The file is the same whatever the number of processes, but for ``local_steps``, where the
        name of the run holds that number.

        Args:
            epoch: number of the epoch that begins or runs.
            batch: number of its batches that are done.
            sums: sums of their losses.
        """
        trainer = self.trainer
        self._saved_at = time.monotonic()
        # Every process has its part in what follows; one of them writes.
        if sums:
            sums = processes.mean(sums)
        weights = trainer.weights()
        optimiser = trainer.replicas.gathered(trainer.optimizer.state_dict())
        average = None
        if trainer.average is not None:
            average = trainer.replicas.gathered(trainer.average.state())
        random = {"process_0": rng_state(), "streams": processes.streams()}
        if not trainer.writes:
            return
        if self._files is None:  # the first save, before anything is learned
            self._files = files_of_run(trainer.config)
            self._set_aside_earlier()
        scheduler = None
        if trainer.scheduler is not None:
            scheduler = trainer.scheduler.state_dict()
        save_checkpoint(
            self.file,
            {
                "run": trainer.run_name,
                "config": trainer.config.plain(),
                "files": self._files,
                "epoch": epoch,
                "batch": batch,
                "sums": sums,
                "cur_step": int(trainer.cur_step),
                "best_valid_score": float(trainer.best_valid_score),
                "best_valid_result": trainer.best_valid_result,
                "state_dict": weights,
                "optimizer": optimiser,
                "scheduler": scheduler,
                "scaler": trainer.scaler.state_dict(),
                "average": average,
                "random": random,
                "loader": self._loader_state,
                "seconds": trainer.seconds,
                "cpu_seconds": trainer.cpu_seconds,
                "history": trainer.history,
            },
        )

    def _set_aside_earlier(self) -> None:
        """Keep the file of an interrupted run that this one, which begins anew, would replace."""
        try:
            state = load_checkpoint(self.file)
        except ArtefactError:
            return
        if not state.get("epoch") and not state.get("batch"):
            return
        kept = self.file.with_name(f"{self.file.name}.old")
        os.replace(self.file, kept)
        self.trainer.logger.warning(
            f"A run of these settings was interrupted in epoch {state['epoch']}; this one begins "
            f"anew. What it had learned is kept as {kept}. To go on from there, stop this run, "
            f"rename that file to {self.file.name}, and add --resume."
        )

    def restore(self, train_data: Any, earlier: Path | None = None) -> None:
        """Put the trainer where the file says.

        Args:
            train_data: loader of the training split.
            earlier: file of a run with fewer epochs, in place of the run's own.

        Raises:
            ArtefactError: the file is damaged, or belongs to another run.
        """
        file = earlier or self.file
        try:
            state = load_checkpoint(file)
        except ArtefactError as error:
            raise ArtefactError(
                f"The resume file {file} is damaged. Delete it, or leave out --resume; the "
                "run then starts from the beginning."
            ) from error
        advice = "Delete it; the run then starts from the beginning."
        with explained(f"The resume file {file}", advice):
            if earlier is None and state["run"] != self.trainer.run_name:
                raise ArtefactError(
                    f"{file} belongs to {state['run']}, another run. Delete it, or name that "
                    "run's settings."
                )
            self._restore_learning(state)
            self._restore_score(state)
            loader_state = state["loader"].cpu()
            self._loader_state = loader_state
            train_data.generator.set_state(loader_state)
            self._inside = None
            if state["batch"]:
                self._inside = state
            self._random = state["random"]
            self.restore_random_states()

        # Files of earlier versions lack some digests.
        self._files = {**files_of_run(self.trainer.config), **(state.get("files") or {})}
        where = f"epoch {self.trainer.start_epoch}"
        if state["batch"]:
            where += f", batch {state['batch']}"
        self.trainer.logger.info(f"Resuming at {where} from {file}")

    def take_over(self, train_data: Any, earlier: Path) -> None:
        """Go on where a run with fewer epochs stopped.

        Args:
            train_data: loader of the training split.
            earlier: the resume file of that run. Its checkpoint gets the name of this run.
        """
        trainer = self.trainer
        name = earlier.name.removesuffix(RESUME)
        with held_resume_file(earlier, name, trainer.logger.warning):
            self.restore(train_data, earlier)
            best = earlier.with_name(f"{name}.pth")
            if best.is_file() and trainer.writes:
                named = {"run": trainer.run_name, "config": trainer.config.plain()}
                here = self.file.with_name(f"{trainer.run_name}.pth")
                save_checkpoint(here, {**load_checkpoint(best), **named})
            processes.wait_for_all()
        if trainer.scheduler is not None:
            trainer.logger.warning(
                "From here on the learning rate follows the schedule of the new number of epochs; "
                "the epochs before followed a shorter one."
            )

    def _restore_learning(self, state: dict[str, Any]) -> None:
        """Weights, optimiser, schedule and scaler."""
        trainer = self.trainer
        replicas = trainer.replicas
        load_state(trainer.model, replicas.weights(state["state_dict"]))
        optimiser = replicas.optimiser_state(trainer.optimizer, state["optimizer"])
        trainer.optimizer.load_state_dict(optimiser)
        if trainer.scheduler is not None:
            trainer.scheduler.load_state_dict(state["scheduler"])
        trainer.scaler.load_state_dict(state["scaler"])
        if trainer.average is not None:
            average = state["average"]
            averages = replicas.weights(average["averages"])
            trainer.average.set_state({**average, "averages": averages})

    def _restore_score(self, state: dict[str, Any]) -> None:
        """Epoch, best validation, times and history."""
        trainer = self.trainer
        trainer.start_epoch = int(state["epoch"])
        trainer.cur_step = int(state["cur_step"])
        trainer.best_valid_score = float(state["best_valid_score"])
        trainer.best_valid_result = state["best_valid_result"]
        trainer.seconds = dict(state["seconds"])
        trainer.cpu_seconds = dict(state["cpu_seconds"])
        trainer.history = [dict(epoch) for epoch in state["history"]]

    def restore_random_states(self) -> None:
        """Set the random numbers of all processes to what the restored file holds."""
        set_rng_state(self._random["process_0"])
        processes.own_stream(self.trainer.settings.seed, self._random["streams"])
