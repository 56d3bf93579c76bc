"""What a run says about its time and memory after the first batches."""

from __future__ import annotations

import logging

import pytest

from recbole_genrec.training import estimate
from recbole_genrec.training.estimate import Estimate, duration, forecast


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(25.2, "25 s"), (300, "5 min"), (7200, "2.0 h"), (90 * 3600, "3.8 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_forecast():
    text = forecast(seconds=0.5, count=240, epochs=10)
    assert text == (
        "An epoch takes about 2 min (240 batches of 0.5 s), 10 epochs up to 20 min, "
        "without validation."
    )
    assert forecast(0.01, 100, 2) == ""


def test_it_is_said_once_after_the_first_batches(monkeypatch, caplog):
    times = iter(range(1000))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(times)))
    teller = Estimate(epochs=3, logger=logging.getLogger("told"))
    said_at = []
    with caplog.at_level(logging.INFO):
        for batch in range(30):
            teller.after_batch(0, 30)
            if caplog.records and not said_at:
                said_at.append(batch + 1)
    assert said_at == [estimate.WARM_UP + estimate.MEASURED]
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("An epoch takes about 30 s (30 batches of 1 s), 3 epochs up to 2 min")
    assert "Memory so far: " in message and "GiB" in message
