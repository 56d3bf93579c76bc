"""What the tests of this folder tried and measured: ``COUNTS`` is ``{what: [number, tried]}``,
``SOAK`` is ``{model: figures}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

KILLS = "kills survived / tried"
SIGNALS = "signals answered / tried"
DISK = "full or forbidden disks explained / tried"
REFUSED = "damaged and foreign files refused or read unchanged / tried"
DATA = "hostile datasets and settings refused or read / tried"
EXECUTED = "hostile files that executed anything / tried"
COUNTS: dict[str, list[int]] = {
    name: [0, 0] for name in (KILLS, SIGNALS, DISK, REFUSED, DATA, EXECUTED)
}

SOAK: dict[str, dict[str, float]] = {}


@contextlib.contextmanager
def tried(what: str) -> Iterator[None]:
    """One more case of ``what``, counted as good when the block ends without an error."""
    COUNTS[what][1] += 1
    yield
    COUNTS[what][0] += 1
