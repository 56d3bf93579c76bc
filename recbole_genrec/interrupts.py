"""SIGINT and SIGTERM: save where the run stands, then end; a second signal ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

SAVE_EVERY = 300.0
"""Seconds between two saves inside a long stage (our choice, unpublished)."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; ``status`` is the exit status that shells expect, 128 + the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class _State:
    asked: int | None = None  # the signal that waits for the next safe point
    stages = 0  # running stages that have safe points


@contextlib.contextmanager
def handled_signals() -> Iterator[None]:
    """Until the end of the block SIGINT and SIGTERM raise :class:`Interrupted`: inside :func:`safe_points` at the next safe point.

    Only for the main thread of a command; whoever calls this package keeps the handlers of his own program.
    """

    def receive(number: int, _) -> None:
        if _State.asked is not None or not _State.stages:
            raise Interrupted(number)
        _State.asked = number
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving at the next safe point, then ending. A second signal ends at once.\n".encode())

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _State.asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def safe_points() -> Iterator[Callable[[Callable[[], None]], None]]:
    """A stage that calls ``stop_if_asked(save)``, which is yielded, wherever everything can be saved."""

    def stop_if_asked(save: Callable[[], None]) -> None:
        if _State.asked is not None:
            save()
            raise Interrupted(_State.asked)

    _State.stages += 1
    try:
        yield stop_if_asked
    finally:
        _State.stages -= 1
