"""How far a long fit has come, so that a killed one continues instead of starting again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime import interrupts
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint


class FitProgress:
    """The epochs of a fit and, in ``path``, its state every ``interrupts.SAVE_EVERY`` seconds and when a signal asks for the end.

    A fit that continues ends with the same numbers as one that was not interrupted. A damaged file is ignored with a warning, one of
    another ``key`` (what is fitted) is refused. Without ``path`` nothing is saved.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self.path, self.key = path, key

    def epochs(self, total: int, **parts) -> Iterator[int]:
        """Numbers, from 0, of the epochs that remain of ``total``; a fit that stops earlier calls ``close()`` on the iterator.

        Args:
            parts: everything that an epoch changes besides the global random states: modules and optimisers (``state_dict``),
                ``torch.Generator`` objects, and dictionaries of plain values and tensors, which are updated in place.
        """
        first = self._restore(parts)
        saved = time.monotonic()
        with interrupts.safe_points() as stop_if_asked:
            for epoch in range(first, total):
                if self.path is not None:
                    if epoch > first and time.monotonic() - saved >= interrupts.SAVE_EVERY:
                        self._save(epoch, parts)
                        saved = time.monotonic()
                    stop_if_asked(lambda epoch=epoch: self._save(epoch, parts))
                yield epoch

    def clear(self) -> None:
        """Forget the state: the fit is complete and stored."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self, epoch: int, parts: dict) -> None:
        states = {name: _state(part) for name, part in parts.items()}
        save_checkpoint(
            self.path, {"key": self.key, "epoch": epoch, "parts": states, "rng": rng_state()}
        )

    def _restore(self, parts: dict) -> int:
        if self.path is None or not self.path.is_file():
            return 0
        try:
            state = load_checkpoint(self.path)
        except ArtefactError as error:
            logging.getLogger().warning(f"The fit starts from the beginning: {error}")
            return 0
        with explained(str(self.path), "Delete it; the fit then starts from the beginning."):
            if state["key"] != self.key:
                raise ArtefactError(f"{self.path} belongs to another fit. Delete it.")
            for name, part in parts.items():
                _set_state(part, state["parts"][name])
            set_rng_state(state["rng"])
            logging.getLogger().info(
                f"The fit continues at epoch {state['epoch']} from {self.path}"
            )
            return state["epoch"]


def _state(part: object) -> object:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return dict(part) if isinstance(part, dict) else part.state_dict()


def _set_state(part: object, state: object) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, dict):
        part.clear()
        part.update(state)
    else:
        part.load_state_dict(state)
