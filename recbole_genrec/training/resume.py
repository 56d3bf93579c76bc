"""Where a training stands, so that an interrupted run continues bit for bit.

It is saved before each epoch and inside long ones.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime import interrupts, processes
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint
from recbole_genrec.training.earlier_runs import (
    RESUME,
    files_of_run,
    nothing_to_resume,
    resume_file_with_fewer_epochs,
)
from recbole_genrec.training.held_runs import held_resume_file
from recbole_genrec.training.outside_state import OutsideState

if TYPE_CHECKING:
    from recbole_genrec.training.trainer import GenRecTrainer


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

    def __init__(self, trainer: GenRecTrainer, file: Path) -> None:
        self.trainer = trainer
        self.file = file
        self.active = False
        self._files: dict[str, str] | None = None  # digests of what the run reads
        self._outside = OutsideState(trainer.model)
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
        trainer.count_training()
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
                **self._named(),
                "files": self._files,
                "epoch": epoch,
                "batch": batch,
                "sums": sums,
                "cur_step": int(trainer.cur_step),
                "best_valid_score": float(trainer.best_valid_score),
                "best_valid_result": trainer.best_valid_result,
                "state_dict": weights,
                "outside": self._outside.changed(),
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
        epoch, batch = _position_in(self.file)
        if not epoch and not batch:
            return
        kept = self.file.with_name(f"{self.file.name}.old")
        os.replace(self.file, kept)
        self.trainer.logger.warning(
            f"A run of these settings was interrupted in epoch {epoch}; this one begins "
            f"anew. What it had learned is kept as {kept}. To go on from there, stop this run, "
            f"rename that file to {self.file.name}, and add --resume."
        )

    def go_on(self, train_data: Any) -> None:
        """Put the trainer where its own file says, or that of a run with fewer epochs.

        Args:
            train_data: loader of the training split.

        Raises:
            ArtefactError: the file is damaged, or belongs to another run.
            ConfigError: see :func:`~.earlier_runs.resume_file_with_fewer_epochs`.
        """
        trainer = self.trainer
        if self.file.is_file():
            self.restore(train_data)
            return
        earlier = resume_file_with_fewer_epochs(trainer.config, trainer.run_name)
        if earlier is None:
            trainer.logger.warning(nothing_to_resume(trainer.config, self.file))
            return
        self.take_over(train_data, earlier)

    def restore(self, train_data: Any) -> None:
        """Put the trainer where its file says.

        Args:
            train_data: loader of the training split.

        Raises:
            ArtefactError: the file is damaged, or belongs to another run.
        """
        state = _read(self.file)
        if state.get("run") != self.trainer.run_name:
            raise ArtefactError(
                f"{self.file} belongs to {state.get('run')}, another run. Delete it, or name that "
                "run's settings."
            )
        self._restore(state, self.file, train_data)
        if "taken_over" in state:  # killed before it had all of that run
            self._finish_take_over(self.file.with_name(state["taken_over"]))

    def take_over(self, train_data: Any, earlier: Path) -> None:
        """Go on where a run with fewer epochs, or this one under another name, stopped.

        Args:
            train_data: loader of the training split.
            earlier: the resume file of that run. State and checkpoint get the name of this run, in
                this order, so that a run that is killed in between still finds both.
        """
        trainer = self.trainer
        name = earlier.name.removesuffix(RESUME)
        with held_resume_file(earlier, name, trainer.logger.warning):
            state = _read(earlier)
            self._restore(state, earlier, train_data)
            if trainer.writes:
                own = {**self._named(), "files": self._files, "taken_over": earlier.name}
                save_checkpoint(self.file, {**state, **own})
            self._finish_take_over(earlier)
        is_longer = state["config"]["epochs"] != trainer.settings.epochs
        if trainer.scheduler is not None and is_longer:
            trainer.logger.warning(
                "From here on the learning rate follows the schedule of the new number of epochs; "
                "the epochs before followed a shorter one."
            )

    def _finish_take_over(self, earlier: Path) -> None:
        """Copy the checkpoint of a run whose state is this run's now.

        Args:
            earlier: that resume file.
        """
        processes.wait_for_all()  # all have read it
        best = earlier.with_name(earlier.name.replace(RESUME, ".pth"))
        if self.trainer.writes and best.is_file():
            here = self.file.with_name(f"{self.trainer.run_name}.pth")
            save_checkpoint(here, {**load_checkpoint(best), **self._named()})
        processes.wait_for_all()

    def _named(self) -> dict[str, Any]:
        """What a file says about the run that it belongs to."""
        return {"run": self.trainer.run_name, "config": self.trainer.config.plain()}

    def _restore(self, state: dict[str, Any], file: Path, train_data: Any) -> None:
        """Put the trainer where a file says.

        Args:
            state: its content.
            file: the file.
            train_data: loader of the training split.

        Raises:
            ArtefactError: the state does not fit.
        """
        advice = "Delete it; the run then starts from the beginning."
        with explained(f"The resume file {file}", advice):
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

        self._files = state.get("files") or files_of_run(self.trainer.config)  # 0.1.0 has none
        where = f"epoch {self.trainer.start_epoch}"
        if state["batch"]:
            where += f", batch {state['batch']}"
        self.trainer.logger.info(f"Resuming at {where} from {file}")

    def _restore_learning(self, state: dict[str, Any]) -> None:
        """Weights, what the model keeps beside them, optimiser, schedule and scaler."""
        trainer = self.trainer
        replicas = trainer.replicas
        load_state(trainer.model, replicas.weights(state["state_dict"]))
        self._outside.put_back(state.get("outside") or {}, trainer.device)
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


def _read(file: Path) -> dict[str, Any]:
    """The content of a resume file.

    Raises:
        ArtefactError: it is damaged.
    """
    try:
        return load_checkpoint(file)
    except ArtefactError as error:
        raise ArtefactError(
            f"The resume file {file} is damaged. Delete it, or leave out --resume; the "
            "run then starts from the beginning."
        ) from error


def _position_in(file: Path) -> tuple[int, int]:
    """Epoch and batch of a resume file; 0 and 0 without one that can be read."""
    try:
        state = load_checkpoint(file, with_weights=False)
    except ArtefactError:
        return 0, 0
    return int(state.get("epoch") or 0), int(state.get("batch") or 0)
