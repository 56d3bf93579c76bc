"""Where a training stands, so that an interrupted run continues bit for bit.

It is saved before each epoch and inside long ones.
"""

from __future__ import annotations

import time
from pathlib import Path

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime import interrupts, processes
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint


class ResumePoints:
    """Part of ``GenRecTrainer``: its resume file."""

    # the resume point of a run that stopped inside an epoch, until that epoch goes on
    _inside: dict | None = None

    def _started(self, train_data, epoch: int) -> tuple[int, None]:
        """Save the state before the epoch and call the model's hook: no batch is done."""
        if self._saved:
            self._loader_state = train_data.generator.get_state()
            self._save_resume_point(epoch)
        self._epoch_start(epoch)
        return 0, None

    def _continued(self, epoch: int) -> tuple[int, list[float]]:
        """Batches done and sums of their losses of the epoch that a signal interrupted.

        The hook runs again for what it leaves in Python attributes; its losses are dropped, and parameters and buffers restored after it.
        """
        state, self._inside = self._inside, None
        if hasattr(self.model, "on_epoch_start"):
            with self.replicas.whole():
                for _ in self.model.on_epoch_start(epoch):
                    pass
            load_state(self.model, self.replicas.weights(state["state_dict"]))
        self._random, self._saved_at = state["random"], time.monotonic()
        return state["batch"], state["sums"]

    def _safe_point(self, epoch: int, batch: int, sums: list[float]) -> None:
        """After an optimiser step: save now and then, and stop when a signal asks for it; all processes together."""
        since, asked = processes.largest([time.monotonic() - self._saved_at, interrupts.asked()])
        if asked or since >= interrupts.SAVE_EVERY:
            self._save_resume_point(epoch, batch, sums)
        if asked:
            raise interrupts.Interrupted(int(asked))

    def _save_resume_point(
        self, epoch: int, batch: int = 0, sums: list[float] | None = None
    ) -> None:
        """Everything that the rest of the run depends on, as it stands before ``epoch`` begins or after ``batch`` batches of it, whose
        losses sum up to ``sums``. The file is the same whatever the number of processes."""
        self._saved_at = time.monotonic()
        sums = sums and processes.mean(sums)
        weights, optimiser = self._weights(), self.replicas.gathered(self.optimizer.state_dict())
        random = {"process_0": rng_state(), "streams": processes.streams()}
        if not self.writes:
            return
        save_checkpoint(
            self.resume_file,
            {
                "run": self.run_name,
                "config": self.config.plain(),
                "epoch": epoch,
                "batch": batch,
                "sums": sums,
                "cur_step": int(self.cur_step),
                "best_valid_score": float(self.best_valid_score),
                "best_valid_result": self.best_valid_result,
                "state_dict": weights,
                "optimizer": optimiser,
                "scheduler": self.scheduler.state_dict() if self.scheduler else None,
                "scaler": self.scaler.state_dict(),
                "random": random,
                "loader": self._loader_state,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "history": self.history,
            },
        )

    def _set_random_states(self, random: dict) -> None:
        set_rng_state(random["process_0"])
        processes.own_stream(self.settings.seed, random["streams"])

    def resume_checkpoint(self, resume_file):
        """RecBole's way to name the file to continue from; the state itself is restored in :meth:`fit`."""
        self.resume_file = Path(resume_file)
        self.config["resume"] = True

    def _restore(self, train_data) -> None:
        try:
            state = load_checkpoint(self.resume_file)
        except ArtefactError as error:
            advice = "Delete it, or leave out --resume; the run then starts from the beginning."
            raise ArtefactError(
                f"The resume file {self.resume_file} is damaged. {advice}"
            ) from error
        with explained(
            f"The resume file {self.resume_file}",
            "Delete it; the run then starts from the beginning.",
        ):
            if state["run"] != self.run_name:
                raise ArtefactError(
                    f"{self.resume_file} belongs to {state['run']}, another run. Delete it, or name that run's settings."
                )
            load_state(self.model, self.replicas.weights(state["state_dict"]))
            self.optimizer.load_state_dict(
                self.replicas.optimiser_state(self.optimizer, state["optimizer"])
            )
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            self._loader_state = state["loader"].cpu()
            train_data.generator.set_state(self._loader_state)
            self.start_epoch, self.cur_step = int(state["epoch"]), int(state["cur_step"])
            self.best_valid_score, self.best_valid_result = (
                float(state["best_valid_score"]),
                state["best_valid_result"],
            )
            self.seconds, self.cpu_seconds = dict(state["seconds"]), dict(state["cpu_seconds"])
            self.history = [dict(epoch) for epoch in state["history"]]
            self._inside = state if state["batch"] else None
            self._set_random_states(state["random"])
        where = f"epoch {self.start_epoch}" + (
            f", batch {state['batch']}" if state["batch"] else ""
        )
        self.logger.info(f"Resuming at {where} from {self.resume_file}")
