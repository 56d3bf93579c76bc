"""A service in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class RunningService:
    """A started service.

    Attributes:
        process: of the service.
        place: its address.
        lines: what it has printed until it was ready.
    """

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.lines: list[str] = []
        self.place = self._address()

    def _address(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            match = re.search(r"http://\S+", line)
            if match:
                wait_until_ready(match.group())
                return match.group()
        raise AssertionError(f"The service did not start: {self.lines}")

    def end(self) -> str:
        """Wait for the end, and return what was printed since the start."""
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        self.process.wait(60)
        return rest


def wait_until_ready(place: str) -> None:
    for _ in range(200):
        try:
            httpx.get(f"{place}/health", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("The service does not answer.")


@contextmanager
def running(checkpoint: str, *options: str) -> Iterator[RunningService]:
    """A service on a free port of this machine."""
    command = [sys.executable, "-m", "recbole_genrec", "serve", f"--checkpoint={checkpoint}"]
    process = subprocess.Popen(
        [*command, "--port=0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield RunningService(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
