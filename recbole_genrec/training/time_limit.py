"""A limit of CPU time after which training stops (``max_cpu_minutes``)."""

from __future__ import annotations

import time

from recbole_genrec.runtime import processes


class TimeIsUp(Exception):  # noqa: N818
    """Training has used its CPU time. Nothing went wrong; the trainer ends with its best epoch."""


class TimeLimit:
    """How much CPU time training and validation may still use.

    CPU time is that of this process with all its threads; of several processes the slowest counts.

    Args:
        minutes: of CPU time; ``None`` = no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.seconds = None if minutes is None else 60 * minutes
        self._started = time.process_time()
        self._before = 0.0

    def start(self, used: float) -> None:
        """Begin to count.

        Args:
            used: CPU seconds that an interrupted run has used before.
        """
        self._started = time.process_time()
        self._before = used

    def is_over(self) -> bool:
        """Whether the time is used up, the same answer in all processes."""
        if self.seconds is None:
            return False
        used = self._before + time.process_time() - self._started
        return processes.largest([used])[0] >= self.seconds

    def sentence(self, epoch: int) -> str:
        """What a run is told whose time is used up.

        Args:
            epoch: number of the epoch that would have begun.
        """
        return (
            f"max_cpu_minutes: {(self.seconds or 0) / 60:g} CPU-minutes of training and validation "
            f"are used up after epoch {epoch - 1}, which ended early where it was not done. The "
            "best epoch so far counts."
        )
