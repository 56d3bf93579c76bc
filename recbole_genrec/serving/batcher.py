"""A queue before a model: one thread owns the model and answers queries in batches."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from recbole_genrec.errors import GenRecError
from recbole_genrec.model.lists.queries import Query

Answer = list[dict[str, Any]]

_ENDED = "The model of this service has ended with an error; its log says why. Start it again."


class QueueFullError(GenRecError):
    """The queue has no room.

    Attributes:
        retry_after: whole seconds after which there should be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests wait. Try again in {retry_after} s.")
        self.retry_after = retry_after


class ClosedError(GenRecError):
    """The service is shutting down, or its model has ended."""


class Job(NamedTuple):
    """What waits in the queue.

    Attributes:
        query: a query, which is answered together with others; or
        task: a call, which is carried out alone.
        future: takes the answer.
    """

    query: Query | None
    task: Callable[[], Any] | None
    future: Future


class Batcher:
    """Gathers queries into batches.

    All work happens in one thread, in the order in which it came. While that thread is busy,
    queries gather; while it is idle, a query waits ``max_wait`` seconds for others.

    Args:
        answer: the lists of some queries.
        max_batch: most queries of a batch.
        max_wait: seconds.
        size: most jobs that wait.
        on_batch: is told the number of queries of each batch and the seconds that it took.

    Attributes:
        error: what ended the thread outside a job; ``None`` while it works.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Query]], list[Answer]],
        max_batch: int,
        max_wait: float,
        size: int,
        on_batch: Callable[[int, float], None] = lambda queries, seconds: None,
    ) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._size = size
        self._on_batch = on_batch
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.error: BaseException | None = None
        self._seconds_per_job = 0.01  # a running mean
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def check(self) -> None:
        """Whether the thread of the model works.

        Raises:
            ClosedError: it has ended with an error.
        """
        if self.error is not None:
            raise ClosedError(_ENDED)

    def submit(self, queries: Sequence[Query]) -> list[Future]:
        """Queue some queries, all or none.

        Args:
            queries: what is asked.

        Returns:
            For each query the future of its list. A cancelled one is not answered.

        Raises:
            QueueFullError: there is no room for all of them.
            ClosedError: :meth:`close` was called.
        """
        return self._add([Job(query, None, Future()) for query in queries])

    def call(self, task: Callable[[], Any]) -> Future:
        """Queue a call that changes the model or needs it alone.

        Raises:
            QueueFullError: there is no room.
            ClosedError: :meth:`close` was called.
        """
        return self._add([Job(None, task, Future())])[0]

    def _add(self, jobs: list[Job]) -> list[Future]:
        with self._changed:
            self.check()
            if self._closed:
                raise ClosedError("The service is shutting down. Ask another one.")
            if len(self._jobs) + len(jobs) > self._size:
                waiting = len(self._jobs) * self._seconds_per_job
                raise QueueFullError(max(1, math.ceil(waiting)))
            self._jobs.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self) -> None:
        """Take nothing more, answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # --- the thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._work_until_closed()
        except BaseException as error:
            logging.getLogger().exception("The thread of the model has ended.")
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Take nothing more, and give those who wait the error."""
        with self._changed:
            self.error = error
            self._closed = True
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ClosedError(_ENDED))

    def _work_until_closed(self) -> None:
        while True:
            jobs = self._next_jobs()
            if not jobs:
                return
            start = time.perf_counter()
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            if jobs[0].task is not None:
                _settle(jobs[0].future, jobs[0].task)
            else:
                self._answer_together(jobs)
            seconds = time.perf_counter() - start
            self._seconds_per_job += 0.1 * (seconds / len(jobs) - self._seconds_per_job)
            if jobs[0].query is not None:
                self._on_batch(len(jobs), seconds)

    def _next_jobs(self) -> list[Job]:
        """The next batch of queries or the next task; nothing once closed and empty."""
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return []
                self._changed.wait()
            if self._jobs[0].task is not None:
                return [self._jobs.popleft()]
            deadline = time.monotonic() + self._max_wait
            while len(self._jobs) < self._max_batch and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            jobs: list[Job] = []
            while self._jobs and len(jobs) < self._max_batch and self._jobs[0].query is not None:
                jobs.append(self._jobs.popleft())
            return jobs

    def _answer_together(self, jobs: list[Job]) -> None:
        """Answer queries in one batch; where that fails, each alone, so that the cause is known."""
        queries = [job.query for job in jobs if job.query is not None]
        try:
            answers = self._answer(queries)
            if len(answers) != len(queries):
                raise ValueError(f"{len(queries)} queries got {len(answers)} answers.")
        except Exception:
            for job, query in zip(jobs, queries, strict=True):
                _settle(job.future, partial(self._answer_alone, query))
            return
        for job, rows in zip(jobs, answers, strict=True):
            job.future.set_result(rows)

    def _answer_alone(self, query: Query) -> Answer:
        return self._answer([query])[0]


def _settle(future: Future, call: Callable[[], Any]) -> None:
    """Give a future the result of a call, or its error."""
    try:
        result = call()
    except GenRecError as error:
        future.set_exception(error)
    except Exception as error:
        logging.getLogger().exception("A request failed.")
        future.set_exception(error)
    else:
        future.set_result(result)
