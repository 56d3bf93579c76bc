"""Load on a service on this machine: requests a second, latencies, and what happens over the limit.

    python benchmarks/service.py --checkpoint=saved/TimelineRec-ml-100k-1a2b3c4d.pth

starts ``recbole-genrec serve``, lets clients send their requests, and compares every answer with
``model.recommend``. A second service with a queue that is too small shows what the clients see
then. Histories are drawn from the catalogue.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import numpy as np

from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.model.lists.queries import Query
from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

K = 10
HISTORIES = 500
PAUSE = 0.02
"""Seconds after which a client asks again that was sent away."""


@contextmanager
def running(checkpoint: str, *options: str) -> Iterator[str]:
    """A service on a free port of this machine; its address."""
    command = [sys.executable, "-m", "recbole_genrec", "serve", f"--checkpoint={checkpoint}"]
    process = subprocess.Popen([*command, "--port=0", *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            match = re.search(r"http://\S+", line)
            if match:
                break
        else:
            raise SystemExit("The service did not start.")
        wait_until_ready(match.group())
        yield match.group()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def wait_until_ready(place: str) -> None:
    """Wait until a service answers."""
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection(urlparse(place).netloc, timeout=5)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("The service does not answer.")


class Load:
    """Clients that share a number of requests, each with a connection of its own.

    Args:
        place: address of the service.
        histories: what is asked, one after the other.
        count: number of requests.
        clients: number of clients.

    Attributes:
        seconds: latency of each answered request.
        answers: place of the history and items of each answered request.
        refusals: number of answers with the status 429.
        others: number of answers by any other status.
        lost: errors of requests without an answer.
        duration: seconds of the whole.
    """

    def __init__(self, place: str, histories: list[list[str]], count: int, clients: int) -> None:
        self.place = urlparse(place).netloc
        self.histories = histories
        self.count = count
        self.clients = clients
        self.seconds: list[float] = []
        self.answers: list[tuple[int, list[dict[str, Any]]]] = []
        self.refusals = 0
        self.others: dict[int, int] = {}
        self.lost: list[Exception] = []
        self._next = 0
        self._lock = threading.Lock()

    def run(self) -> Load:
        """Send all requests."""
        threads = [threading.Thread(target=self._client) for _ in range(self.clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.duration = time.perf_counter() - start
        return self

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self.place, timeout=120)
        while True:
            with self._lock:
                number = self._next
                self._next += 1
            if number >= self.count:
                connection.close()
                return
            try:
                self._ask(connection, number % len(self.histories))
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.lost.append(error)
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection, place: int) -> None:
        """Send one request until it is taken."""
        body = json.dumps({"history": self.histories[place], "k": K})
        while True:
            start = time.perf_counter()
            connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            seconds = time.perf_counter() - start
            with self._lock:
                if answer.status == 200:
                    self.seconds.append(seconds)
                    self.answers.append((place, content["items"]))
                    return
                if answer.status != 429:
                    self.others[answer.status] = self.others.get(answer.status, 0) + 1
                    return
                self.refusals += 1
            time.sleep(PAUSE)

    def wrong(self, expected: list[list[dict[str, Any]]]) -> int:
        """Number of answers whose items or scores are not the expected ones."""
        return sum(not same(items, expected[place]) for place, items in self.answers)

    def figures(self, expected: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """What is printed."""
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1000
        return {
            "requests": self.count,
            "clients": self.clients,
            "answered": len(self.answers),
            "requests/s": round(len(self.answers) / self.duration, 1),
            "p50 ms": round(float(p50), 1),
            "p99 ms": round(float(p99), 1),
            "429": self.refusals,
            "other statuses": sum(self.others.values()),
            "lost": len(self.lost),
            "wrong": self.wrong(expected),
        }


def same(items: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Whether a list has the expected items in their order, with their scores."""
    if [row["item"] for row in items] != [row["item"] for row in expected]:
        return False
    pairs = zip(items, expected, strict=True)
    return all(abs(row["score"] - other["score"]) <= 1e-4 for row, other in pairs)


def measure(checkpoint: str, count: int, clients: int, options: list[str]) -> dict[str, Any]:
    """All figures of one checkpoint.

    Args:
        checkpoint: of a run.
        count: number of requests; a tenth of them goes to the service with the small queue.
        clients: number of clients.
        options: of ``serve``.
    """
    changes = dict(option.removeprefix("--").split("=", 1) for option in options)
    served = load_recommender(checkpoint, candidate_file=None, **changes)
    draw = random.Random(0)
    items = served.model.catalogue.items[1:]
    histories = [draw.choices(items, k=draw.randint(1, 20)) for _ in range(HISTORIES)]
    expected = [served.model.recommend(history, K) for history in histories]

    queries = [Query(history, K) for history in histories]
    start = time.perf_counter()
    served.model.recommend_batch(queries)
    batch_speed = len(queries) / (time.perf_counter() - start)

    with running(checkpoint, *options) as place:
        normal = Load(place, histories, count, clients).run()
    with running(checkpoint, "--queue_size=8", "--max_batch=8", *options) as place:
        crowded = Load(place, histories, max(1, count // 10), clients).run()
    return {
        "batch speed": round(batch_speed, 1),
        "normal": normal.figures(expected),
        "queue of 8": crowded.figures(expected),
    }


def main() -> None:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--data_path")
    arguments = parser.parse_args()
    quiet_pandas_warnings()
    options = []
    if arguments.data_path:
        options.append(f"--data_path={arguments.data_path}")
    figures = measure(arguments.checkpoint, arguments.requests, arguments.clients, options)
    print(f"lists in batches, without the service: {figures['batch speed']} a second\n")
    names = list(figures["normal"])
    print(f"| | {' | '.join(names)} |")
    print(f"|---|{'---:|' * len(names)}")
    for service in ("normal", "queue of 8"):
        values = [str(value) for value in figures[service].values()]
        print(f"| {service} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
