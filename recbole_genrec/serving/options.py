"""What an operator decides about a service."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from recbole_genrec.errors import ConfigError

LOWEST = {"max_wait_ms": 0.0, "timeout": 0.001}
"""Least values of options that may be below 1."""


@dataclass(frozen=True)
class ServiceOptions:
    """Limits of a service; all are positive.

    Args:
        max_batch: most queries that the model answers at once.
        max_wait_ms: how long a query waits for others while the model is idle, in milliseconds.
        queue_size: most queries that wait; further ones get the status 429.
        timeout: seconds after which a query gets the status 504.
        max_body: most bytes of a request; larger ones get the status 413.
        max_k: longest list that may be asked for.
        max_history: longest history.
        max_candidates: most candidates of a query, and most items that it leaves out.
    """

    max_batch: int = 32
    max_wait_ms: float = 2.0
    queue_size: int = 256
    timeout: float = 10.0
    max_body: int = 1 << 20
    max_k: int = 100
    max_history: int = 1000
    max_candidates: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = LOWEST.get(field.name, 1)
            if not lowest <= value < math.inf:
                raise ConfigError(
                    f"{field.name} is {value}; it must be a number of at least {lowest}."
                )
        if self.max_wait_ms / 1000 >= self.timeout:
            raise ConfigError(
                f"max_wait_ms is {self.max_wait_ms} and timeout {self.timeout} s: a query would "
                "wait for others until its time is over. Use a shorter max_wait_ms."
            )
