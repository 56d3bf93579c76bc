"""How far a fit has come, on disk, so that a killed one continues instead of starting again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime import interrupts
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint

LAYOUT = 2
"""Number of the file's layout. Version 1 knew no stages."""
ADVICE = "Delete it; the fit then starts from the beginning."

Parts = Mapping[str, Any]
"""What a stage changes besides the global random states, by name: modules and optimisers (objects
with ``state_dict``), ``torch.Generator`` objects, and dictionaries of plain values and tensors."""


class FitProgress:
    """The stages of a fit that are done, and where the running one stands.

    The file ``path`` is written every ``interrupts.SAVE_EVERY`` seconds and when a signal asks for
    the end. A fit that continues ends with the same numbers as one that was not interrupted.

    A part that several stages change is kept once: as the last of these stages left it.

    Args:
        path: the file; without it nothing is saved.
        key: says what is fitted. A file of another key is refused.

    Attributes:
        curves: mean losses of each epoch, by loss, of the stages so far.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self.path = path
        self.key = key
        self._written = time.monotonic()
        self._content: dict | None = None
        self.curves: dict[str, dict[str, list[float]]] = {}

    # --- what an earlier run left -------------------------------------------------------------

    def take_finished(self, stage: str, parts: Parts) -> bool:
        """Whether ``stage`` is done; then ``parts`` and the random states are as at its end."""
        if stage not in self._read()["finished"]:
            return False
        self._take(self._read()["finished"][stage], parts)
        return True

    def take_result(self, stage: str) -> Any:
        """What :meth:`finish` was given as the result of a stage that is done."""
        return self._read()["finished"][stage]["result"]

    def take_running(self, stage: str, parts: Parts) -> int:
        """The epoch, counted from 0, with which ``stage`` goes on; ``parts`` are as before it."""
        running = self._read()["running"]
        if running is None or running["stage"] != stage:
            return 0
        self._take(running, parts)
        logging.getLogger().info(
            f"The fit continues at epoch {running['epoch']} from {self.path} (stage {stage})."
        )
        return running["epoch"]

    # --- what this run adds -------------------------------------------------------------------

    def finish(self, stage: str, parts: Parts, result: object = None) -> None:
        """Note that ``stage`` is done, with its ``parts`` as they are now.

        Args:
            stage: its name.
            parts: what later stages, or the tokenizer, need of it.
            result: plain values and tensors, for :meth:`take_result`.
        """
        if self.path is None:
            return
        content = self._read()
        states = {name: _copied(_state(part)) for name, part in parts.items()}
        self._forget(states)
        content["running"] = None
        content["finished"][stage] = {"parts": states, "result": result, "rng": rng_state()}

    def save(self, stage: str, epoch: int, parts: Parts) -> None:
        """Write the file: ``stage`` is about to begin ``epoch``."""
        if self.path is None:
            return
        self._forget(parts)
        states = {name: _state(part) for name, part in parts.items()}
        running = {"stage": stage, "epoch": epoch, "parts": states, "rng": rng_state()}
        self._write({**self._read(), "running": running})

    def save_finished(self) -> None:
        """Write the file: no stage is running."""
        self._write(self._read())

    @property
    def due(self) -> bool:
        """Whether the last save is ``interrupts.SAVE_EVERY`` seconds ago."""
        return time.monotonic() - self._written >= interrupts.SAVE_EVERY

    def clear(self) -> None:
        """Delete the file: the fit is complete and stored."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    # --- the file -----------------------------------------------------------------------------

    def _forget(self, names: Parts) -> None:
        """Drop what finished stages hold of these parts: a later stage has changed them."""
        for entry in self._read()["finished"].values():
            entry["parts"] = {
                name: state for name, state in entry["parts"].items() if name not in names
            }

    def _write(self, content: dict) -> None:
        if self.path is None:
            return
        save_checkpoint(self.path, {"key": self.key, "layout": LAYOUT, **content})
        self._written = time.monotonic()

    def _read(self) -> dict:
        if self._content is None:
            self._content = self._from_disk() or {"finished": {}, "running": None}
        return self._content

    def _from_disk(self) -> dict | None:
        if self.path is None or not self.path.is_file():
            return None
        try:
            stored = load_checkpoint(self.path)
        except ArtefactError as error:
            logging.getLogger().warning(f"The fit starts from the beginning: {error}")
            return None
        if stored.get("key") != self.key:
            raise ArtefactError(f"{self.path} belongs to another fit. Delete it.")
        if stored.get("layout") != LAYOUT:
            logging.getLogger().warning(
                f"The fit starts from the beginning: {self.path} is of another version of this "
                "package, which noted the progress of a fit in another way."
            )
            return None
        with explained(str(self.path), ADVICE):
            return {"finished": stored["finished"], "running": stored["running"]}

    def _take(self, entry: dict, parts: Parts) -> None:
        with explained(str(self.path), ADVICE):
            for name, state in entry["parts"].items():
                _set_state(parts[name], state)
            set_rng_state(entry["rng"])


def _state(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return dict(part) if isinstance(part, dict) else part.state_dict()


def _copied(state: Any) -> Any:
    """A copy on the CPU that does not change when the stage's objects do."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_copied(value) for value in state]
    return state


def _set_state(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, dict):
        part.clear()
        part.update(state)
    else:
        part.load_state_dict(state)
