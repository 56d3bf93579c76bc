"""The queue before the model, with a model that is a function of the test."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.queries import Query
from recbole_genrec.serving.batcher import Batcher, ClosedError, QueueFullError


class Model:
    """Answers with the history; its work can be held up."""

    def __init__(self):
        self.batches = []
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

    def __call__(self, queries):
        self.busy.set()
        assert self.free.wait(20)
        self.batches.append(len(queries))
        if any("bad" in query.history for query in queries):
            raise ConfigError("bad")
        return [[{"item": item} for item in query.history] for query in queries]


@pytest.fixture
def model():
    return Model()


def made(model, max_batch=4, size=10, max_wait=0.0):
    return Batcher(model, max_batch, max_wait, size)


def held(model, batcher):
    """The future of a query that the model has begun, and does not finish."""
    model.free.clear()
    model.busy.clear()
    (future,) = batcher.submit([Query(["first"])])
    assert model.busy.wait(20)
    return future


def test_what_waits_is_answered_in_batches(model):
    batcher = made(model)
    first = held(model, batcher)
    futures = [batcher.submit([Query([str(number)])])[0] for number in range(9)]
    assert len(batcher) == 9
    model.free.set()
    assert first.result(20) == [{"item": "first"}]
    assert [future.result(20) for future in futures] == [
        [{"item": str(number)}] for number in range(9)
    ]
    batcher.close()
    assert model.batches == [1, 4, 4, 1]


def test_a_lone_query_waits_for_others(model):
    batcher = made(model, max_batch=2, max_wait=20.0)
    one = batcher.submit([Query(["a"])])[0]
    other = batcher.submit([Query(["b"])])[0]
    assert one.result(10) == [{"item": "a"}]
    assert other.result(10) == [{"item": "b"}]
    assert model.batches == [2]
    batcher.close()


def test_a_full_queue_takes_all_or_none(model):
    batcher = made(model, size=3)
    held(model, batcher)
    waiting = batcher.submit([Query(["a"]), Query(["b"])])
    with pytest.raises(QueueFullError) as error:
        batcher.submit([Query(["c"]), Query(["d"])])
    assert error.value.retry_after >= 1
    assert len(batcher) == 2
    batcher.submit([Query(["c"])])
    with pytest.raises(QueueFullError):
        batcher.call(lambda: None)
    model.free.set()
    assert [future.result(20) for future in waiting] == [[{"item": "a"}], [{"item": "b"}]]
    batcher.close()


def test_one_bad_query_leaves_the_others_answered(model):
    batcher = made(model)
    held(model, batcher)
    futures = batcher.submit([Query(["a"]), Query(["bad"]), Query(["c"])])
    model.free.set()
    assert futures[0].result(20) == [{"item": "a"}]
    with pytest.raises(ConfigError, match="bad"):
        futures[1].result(20)
    assert futures[2].result(20) == [{"item": "c"}]
    batcher.close()


def test_tasks_stand_in_line_alone(model):
    batcher = made(model)
    held(model, batcher)
    order = []
    before = batcher.submit([Query(["a"])])[0]
    task = batcher.call(lambda: order.append(list(model.batches)) or "done")
    after = batcher.submit([Query(["b"])])[0]
    model.free.set()
    assert task.result(20) == "done"
    assert before.result(20) and after.result(20)
    assert order == [[1, 1]]  # the query before it was answered, the one after it was not
    batcher.close()


def test_cancelled_queries_are_not_answered(model):
    batcher = made(model)
    held(model, batcher)
    one, other = batcher.submit([Query(["a"]), Query(["b"])])
    assert one.cancel()
    model.free.set()
    assert other.result(20) == [{"item": "b"}]
    with pytest.raises(CancelledError):
        one.result(0)
    batcher.close()
    assert model.batches == [1, 1]


def test_closing_answers_what_waits_and_refuses_more(model):
    batcher = made(model)
    held(model, batcher)
    futures = batcher.submit([Query([str(number)]) for number in range(9)])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while True:
        try:
            batcher.submit([])
        except ClosedError:
            break
    model.free.set()
    closing.join(20)
    assert [future.result(0) for future in futures] == [
        [{"item": str(number)}] for number in range(9)
    ]
    with pytest.raises(ClosedError):
        batcher.submit([Query(["late"])])


def test_an_error_outside_a_job_is_told_to_all_who_wait(model):
    def broken(queries, seconds):
        raise OSError("no room for the metrics")

    batcher = Batcher(model, 1, 0.0, 10, on_batch=broken)
    first = held(model, batcher)
    (second,) = batcher.submit([Query(["second"])])
    model.free.set()
    assert first.result(20) == [{"item": "first"}]
    with pytest.raises(ClosedError, match="has ended with an error"):
        second.result(20)
    with pytest.raises(ClosedError, match="Start it again"):
        batcher.submit([Query(["third"])])
    with pytest.raises(ClosedError):
        batcher.check()
    batcher.close()
