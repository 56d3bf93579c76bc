"""SIGINT and SIGTERM: save where the run stands, then end; a second signal ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

SAVE_EVERY = 300.0
"""Seconds between two saves inside a long stage (our choice, unpublished)."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run.

    Attributes:
        status: the exit status that shells expect, 128 + the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class _State:
    asked: int | None = None  # the signal that waits for the next safe point
    stages = 0  # running stages that have safe points


def announce(number: int) -> None:
    """Tell the user what a signal does.

    Args:
        number: of the signal.
    """
    name = signal.Signals(number).name
    text = f"\n{name}: saving at the next safe point, then ending. A second signal ends at once.\n"
    os.write(2, text.encode())  # print is not safe inside a signal handler


@contextlib.contextmanager
def handled_signals(watched: bool = False) -> Iterator[None]:
    """Until the end of the block SIGINT and SIGTERM raise :class:`Interrupted`.

    Inside :func:`safe_points` they do so at the next safe point. Only for the main thread of a
    command; a program that calls this package keeps its own handlers.

    Args:
        watched: another process speaks to the user and ends this one when it must. A second
            signal then changes nothing here: Ctrl-C reaches all processes of a command, and the
            watching one passes it on.
    """

    def receive(number: int, _) -> None:
        second = _State.asked is not None
        if not _State.stages or (second and not watched):
            raise Interrupted(number)
        if not second and not watched:
            announce(number)
        _State.asked = number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    finally:
        _State.asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


def asked() -> int:
    """Number of the signal that waits for the next safe point, or 0."""
    return _State.asked or 0


@contextlib.contextmanager
def safe_points() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Mark a stage that can save everything at some points.

    Yields:
        ``stop_if_asked(save)``, which the stage calls wherever everything can be saved. When a
        signal waits, it calls ``save`` and raises :class:`Interrupted`.
    """

    def stop_if_asked(save: Callable[[], None]) -> None:
        if _State.asked is not None:
            save()
            raise Interrupted(_State.asked)

    _State.stages += 1
    try:
        yield stop_if_asked
    finally:
        _State.stages -= 1
