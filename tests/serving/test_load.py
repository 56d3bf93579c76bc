"""The load test of the service, in small, and the documentation of the service."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import httpx
import pytest
from serving_process import running

ROOT = Path(__file__).parents[2]


def benchmark():
    spec = importlib.util.spec_from_file_location("load", ROOT / "benchmarks" / "service.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_answers_under_load_are_right_and_none_is_lost(checkpoints, monkeypatch):
    load = benchmark()
    monkeypatch.setattr(load, "HISTORIES", 30)
    figures = load.measure(checkpoints.tiger, 200, 32, [])
    assert figures["normal"]["answered"] == 200
    assert figures["queue of 8"]["answered"] == 20
    for row in (figures["normal"], figures["queue of 8"]):
        assert row["lost"] == row["wrong"] == row["other statuses"] == 0
        assert row["p50 ms"] <= row["p99 ms"]
    assert figures["normal"]["429"] == 0
    assert figures["queue of 8"]["429"] > 0


def test_a_wrong_answer_would_be_counted():
    load = benchmark()
    rows = [{"item": "i1", "score": -1.0}, {"item": "i2", "score": -2.0}]
    assert load.same(rows, rows)
    assert not load.same(rows[::-1], rows)
    assert not load.same(rows[:1], rows)
    assert not load.same([rows[0], {"item": "i2", "score": -2.1}], rows)


@pytest.mark.slow
def test_the_documented_request_works(checkpoints):
    page = (ROOT / "docs" / "service.md").read_text()
    body = re.search(r"-d '(\{.*?\})'", page).group(1)
    body = body.replace('"50"', '"i5"').replace('"100"', '"i6"')
    with running(checkpoints.tiger) as service:
        kind = {"content-type": "application/json"}
        answer = httpx.post(f"{service.place}/recommend", content=body, headers=kind)
        assert len(answer.json()["items"]) == 3
        schema = httpx.get(f"{service.place}/openapi.json").json()
    routes = re.findall(r"^\| `(?:GET|POST) (/[a-z/.]+)", page, re.MULTILINE)
    assert set(routes) == {*schema["paths"], "/openapi.json"}
