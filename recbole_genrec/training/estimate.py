"""How long an epoch and a run take, and how much memory: measured on the first batches."""

from __future__ import annotations

import logging
import time

from recbole_genrec.training.accounting import peaks_by_device

WARM_UP = 2
"""Batches that are not measured; the first ones also set things up (our choice)."""
MEASURED = 10
"""Batches that are measured; fewer where they take more than :data:`LONGEST` (our choice)."""
LONGEST = 30.0
"""Seconds after which the measurement ends (our choice)."""
SHORTEST_RUN = 20.0
"""A run shorter than this many seconds is not announced (our choice)."""


class Estimate:
    """Says once, after the first batches of a training, what lies ahead.

    Args:
        epochs: of the training.
        logger: where it is said.
    """

    def __init__(self, epochs: int, logger: logging.Logger) -> None:
        self.epochs = epochs
        self.logger = logger
        self.seen = 0
        self.started = 0.0
        self.told = False

    def after_batch(self, epoch: int, count: int) -> None:
        """Note that a batch has ended.

        Args:
            epoch: its number, from 0.
            count: batches of an epoch.
        """
        if self.told:
            return
        self.seen += 1
        now = time.perf_counter()
        if self.seen == WARM_UP:
            self.started = now
        measured = self.seen - WARM_UP
        if measured < 1:
            return
        if measured < MEASURED and now - self.started < LONGEST:
            return
        self.told = True
        sentence = forecast((now - self.started) / measured, count, self.epochs - epoch)
        if sentence:
            self.logger.info(f"{sentence} {memory()}")


def forecast(seconds: float, count: int, epochs: int) -> str:
    """How long the training takes; empty where that is not worth a line.

    Args:
        seconds: of a batch.
        count: batches of an epoch.
        epochs: that are left.
    """
    of_epoch = seconds * count
    if of_epoch * epochs < SHORTEST_RUN:
        return ""
    text = f"An epoch takes about {duration(of_epoch)} ({count:,} batches of {seconds:.2g} s)"
    if epochs == 1:
        return f"{text}, without validation."
    return f"{text}, {epochs} epochs up to {duration(of_epoch * epochs)}, without validation."


def duration(seconds: float) -> str:
    """``"25 s"``, ``"12 min"``, ``"3.5 h"``, ``"2.1 days"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def memory() -> str:
    """The highest memory so far, of the process and of the GPU."""
    peaks = peaks_by_device()
    text = f"Memory so far: {peaks['cpu'] / 1024:.1f} GiB"
    if "gpu" in peaks:
        text += f", on the GPU {peaks['gpu'] / 1024:.1f} GiB"
    return f"{text}."
