"""What a service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one service.

    Args:
        waiting: number of jobs in the queue.
        items: number of items that can be recommended.
    """

    def __init__(self, waiting: Callable[[], int], items: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "genrec_requests", "Requests by route and status.", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "genrec_request_seconds", "Time to answer a request.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "genrec_batch_size", "Queries that the model answered at once.",
            buckets=BATCH_SIZES, registry=self.registry,
        )  # fmt: skip
        self.model_seconds = Counter(
            "genrec_model_seconds", "Time that the model took.", registry=self.registry
        )
        queue = Gauge("genrec_queue_length", "Queries that wait.", registry=self.registry)
        queue.set_function(waiting)
        catalogue = Gauge("genrec_items", "Items that can be recommended.", registry=self.registry)
        catalogue.set_function(items)

    def note_batch(self, queries: int, seconds: float) -> None:
        """Count a batch of the model."""
        self.batch_size.observe(queries)
        self.model_seconds.inc(seconds)

    def note_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def answered(self) -> int:
        """Number of requests that got an answer."""
        total = 0.0
        for metric in self.requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    total += sample.value
        return int(total)

    def text(self) -> bytes:
        """The figures in the text format of Prometheus."""
        return generate_latest(self.registry)
