"""The routes of the service, in the process of the test."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.model.lists.queries import Query
from recbole_genrec.serving.options import ServiceOptions
from recbole_genrec.serving.recommender import Recommender
from recbole_genrec.serving.server import is_loopback
from recbole_genrec.serving.service import create_app


@pytest.fixture
def tiger(checkpoints):
    return Recommender(load_recommender(checkpoints.tiger))


def client_of(recommender, **options) -> TestClient:
    return TestClient(create_app(recommender, ServiceOptions(**options)))


def walk(start: int, length: int) -> list[str]:
    return [f"i{(start + step) % 40}" for step in range(length)]


def plain(rows: list[dict]) -> list[tuple]:
    return [(row["rank"], row["item"], row["text"]) for row in rows]


@pytest.mark.parametrize("method", ["tiger", "setrec", "sasrec", "pop"])
def test_many_at_once_get_what_recommend_gives(checkpoints, method):
    served = load_recommender(getattr(checkpoints, method))
    histories = [
        [f"i{(3 * start + step) % 40}" for step in range(1 + start % 7)] for start in range(40)
    ]
    expected = [served.model.recommend(history, k=6) for history in histories]
    with client_of(Recommender(served), max_batch=8) as client:

        def ask(history):
            return client.post("/recommend", json={"history": history, "k": 6})

        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(ask, histories))
        body = {"requests": [{"history": history, "k": 6} for history in histories]}
        together = client.post("/recommend/batch", json=body).json()["answers"]
        metrics = client.get("/metrics").text
    for answer, in_batch, rows in zip(answers, together, expected, strict=True):
        assert answer.status_code == 200
        for got in (answer.json()["items"], in_batch["items"]):
            assert plain(got) == plain(rows)
            for row, wanted in zip(got, rows, strict=True):
                assert row["score"] == pytest.approx(wanted["score"], abs=1e-5)
                assert row["certified"] == wanted.get("certified")
    assert 'genrec_requests_total{route="/recommend",status="200"} 40.0' in metrics
    batches = [line for line in metrics.splitlines() if line.startswith("genrec_batch_size_count")]
    assert float(batches[0].split()[1]) < 80  # they were gathered


def test_options_of_a_query(tiger, checkpoints):
    chosen = [f"i{number}" for number in range(5, 15)]
    whole = tiger.served.histories["u1"]
    with client_of(tiger) as client:

        def ask(**body):
            answer = client.post("/recommend", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()["items"]

        rows = ask(history=["i5", "i6"], k=4, candidates=chosen, exclude_seen=True)
        assert {row["item"] for row in rows} <= set(chosen) - {"i5", "i6"}
        assert len(ask(history=["i1"])) == 10
        seen = ask(user="u1", k=40, exclude_seen=False)
        unseen = ask(user="u1", k=40, exclude_seen=True)
        sold_out = [row["item"] for row in ask(history=["i1"], k=3)]
        others = ask(history=["i1"], k=5, excluded=[*sold_out, "gone"])
        fewer = ask(history=["i1"], k=40, excluded=sold_out, exclude_seen=True)
    assert plain(others) == plain(tiger.model.recommend(["i1"], k=5, excluded=sold_out))
    left = tiger.model.recommend(["i1"], k=40, excluded=["i1", *sold_out])
    assert plain(fewer) == plain(left) and len(left) == 40 - len({"i1", *sold_out})
    assert plain(seen) == plain(tiger.model.recommend(whole, k=40, excluded=[]))
    assert plain(unseen) == plain(tiger.model.recommend(whole, k=40, excluded=whole))
    first = rows[0]
    item = tiger.model.item_ids([first["item"]])[0]
    assert first["codes"] == tiger.model.codes[item].tolist()
    assert first["title"] == tiger.model.content.titles[item]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"history": ["i1", "nix"]}, "There is no item 'nix'"),
        ({"history": ["i1"], "candidates": ["nix"]}, "There is no item 'nix'"),
        ({"history": []}, "history is empty"),
        ({"history": ["i1"], "candidates": []}, "candidates is empty"),
        ({"user": "nix"}, "There is no user 'nix' in toy. Give a history."),
        ({}, "either a history"),
        ({"history": ["i1"], "user": "u1"}, "either a history"),
        ({"history": ["i1"], "k": 0}, "k is 0"),
        ({"history": ["i1"], "k": 101}, "at most 100"),
        ({"history": ["i1"], "k": "5"}, "k is '5'"),
        ({"history": ["i1"], "k": True}, "k is True"),
        ({"history": "i1"}, "history is 'i1'"),
        ({"history": [1.5]}, "history.0 is 1.5: an id is a text or a whole number."),
        ({"history": [None]}, "history.0 is None"),
        ({"history": ["i1"], "exclude_seen": "yes"}, "exclude_seen is 'yes'"),
        ({"history": ["i1"] * 1001}, "at most 1000"),
        ({"history": ["i1"], "excluded": ["i2"] * 10_001}, "number of excluded is 10001"),
        ({"history": ["i1"], "excluded": "i2"}, "excluded is 'i2'"),
        ({"hystory": ["i1"]}, "no field 'hystory'"),
        ([], "must be a JSON object"),
        ("i1", "must be a JSON object"),
    ],
)
def test_mistakes_are_named(tiger, body, sentence):
    with client_of(tiger) as client:
        answer = client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


def test_bodies_that_are_no_json(tiger):
    kind = {"content-type": "application/json"}
    with client_of(tiger) as client:
        for content in (b'{"history": [', b"\xff\xfe", b"{1: 2}"):
            answer = client.post("/recommend", content=content, headers=kind)
            assert answer.status_code == 400
            assert answer.json() == {"error": "The body is no valid JSON."}
        assert client.post("/recommend", headers=kind).status_code == 422
        deep = b'{"history": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        answer = client.post("/recommend", content=deep, headers=kind)
        assert answer.status_code in (400, 422)
        assert client.get("/nix").json()["error"].startswith("There is nothing at /nix")
        assert client.get("/recommend").status_code == 405
        assert client.get("/page/../service.py").status_code == 404
        assert client.get("/page/%2e%2e/service.py").status_code == 404


def test_mistakes_in_a_batch_do_not_stop_the_others(tiger):
    requests = [{"history": ["i1"], "k": 2}, {"history": ["nix"]}, {"user": "u1", "k": 3}]
    with client_of(tiger, queue_size=5) as client:
        answers = client.post("/recommend/batch", json={"requests": requests}).json()["answers"]
        too_many = client.post("/recommend/batch", json={"requests": requests * 2})
        empty = client.post("/recommend/batch", json={"requests": []})
    assert [len(answer.get("items", [])) for answer in answers] == [2, 0, 3]
    assert "nix" in answers[1]["error"]
    assert too_many.status_code == 422
    assert "at most 5" in too_many.json()["error"]
    assert empty.status_code == 422


def test_large_bodies_are_refused(tiger):
    kind = {"content-type": "application/json"}
    with client_of(tiger, max_body=300) as client:
        assert client.post("/recommend", json={"history": ["i1"] * 100}).status_code == 413

        def chunks():
            yield from [b" " * 100] * 5

        answer = client.post("/recommend", content=chunks(), headers=kind)
        assert answer.status_code == 413
        assert "larger than 300 bytes" in answer.json()["error"]
        assert client.post("/recommend", json={"history": ["i1"]}).status_code == 200


def slowed(recommender) -> tuple[threading.Event, threading.Event]:
    """Hold the model up until the first event is set; it sets the second when it begins."""
    free, busy = threading.Event(), threading.Event()
    answer = recommender.answer

    def slow(queries):
        busy.set()
        assert free.wait(30)
        return answer(queries)

    recommender.answer = slow
    return free, busy


def test_what_does_not_fit_into_the_queue_is_refused(tiger):
    free, busy = slowed(tiger)
    with (
        client_of(tiger, queue_size=3, max_batch=1, timeout=60) as client,
        concurrent.futures.ThreadPoolExecutor(12) as threads,
    ):
        futures = [threads.submit(client.post, "/recommend", json={"history": ["i0"]})]
        assert busy.wait(30)
        futures += [
            threads.submit(client.post, "/recommend", json={"history": [f"i{number}"]})
            for number in range(1, 12)
        ]
        early = concurrent.futures.as_completed(futures, timeout=30)
        for future in itertools.islice(early, 8):  # one is at work, three wait
            answer = future.result()
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
        free.set()
        statuses = sorted(future.result().status_code for future in futures)
        health = client.get("/health").json()
    assert statuses == [200] * 4 + [429] * 8
    assert health["waiting"] == 0


def test_a_slow_answer_gets_504(tiger):
    free, _ = slowed(tiger)
    with client_of(tiger, timeout=0.2) as client:
        answer = client.post("/recommend", json={"history": ["i1"]})
        free.set()
        assert answer.status_code == 504
        assert "within 0.2 s" in answer.json()["error"]


def test_a_failure_of_the_model_is_told_without_details(tiger, monkeypatch):
    def fail(queries):
        raise RuntimeError("secret place")

    monkeypatch.setattr(tiger.model, "recommend_batch", fail)
    app = create_app(tiger, ServiceOptions())
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/recommend", json={"history": ["i1"]})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.json()["error"].startswith("The service failed")
        assert client.get("/health").status_code == 200


def test_a_new_item_is_recommendable_at_once(tiger):
    text = "soft soap <script>alert(1)</script>"
    with client_of(tiger) as client:
        made = client.post("/items", json={"text": text, "item": "007"})
        assert made.status_code == 201
        assert made.json()["item"] == "007"
        assert len(made.json()["codes"]) == tiger.model.codes.shape[1]
        rows = client.post(
            "/recommend", json={"history": ["i1"], "candidates": ["007", "i3"]}
        ).json()["items"]
        assert {row["item"] for row in rows} == {"007", "i3"}
        assert client.post("/recommend", json={"history": ["007"]}).status_code == 200
        assert client.get("/items", params={"query": "SCRIPT soft"}).json()["items"] == [
            {"item": "007", "title": text, "codes": None}
        ]
        again = client.post("/items", json={"text": "other", "item": "007"})
        assert again.status_code == 422
        named = client.post("/items", json={"text": "dry oil"}).json()
        assert named["item"] == f"new-{tiger.model.n_items - 1}"
        assert client.get("/health").json()["n_items"] == tiger.model.n_items - 1
        assert client.post("/items", json={"text": "  "}).status_code == 422
        assert client.post("/items", json={"text": ""}).status_code == 422


def test_an_item_that_no_answer_could_hold_is_refused(tiger):
    taken = tiger.n_items
    item = '{"text": "lamp", "item": "\\ud800"}'
    with client_of(tiger) as client:
        refused = client.post("/items", content=item, headers={"content-type": "application/json"})
        assert refused.status_code == 422
        assert "half a character" in refused.json()["error"]
        assert client.get("/items").status_code == 200
    assert tiger.n_items == taken


def test_an_item_that_is_being_added_is_waited_for(tiger):
    add, taken = tiger.add_item, tiger.n_items

    def slow(text, item):
        time.sleep(0.6)
        return add(text, item)

    tiger.add_item = slow
    with client_of(tiger, timeout=0.2) as client:
        made = client.post("/items", json={"text": "dry oil", "item": "007"})
    assert made.status_code == 201 and made.json()["item"] == "007"
    assert tiger.n_items == taken + 1


def test_an_item_that_waits_too_long_is_not_added(tiger):
    free, busy = slowed(tiger)
    taken = tiger.n_items
    with (
        client_of(tiger, timeout=0.3) as client,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        before = threads.submit(client.post, "/recommend", json={"history": ["i1"]})
        assert busy.wait(30)
        answer = client.post("/items", json={"text": "dry oil"})
        free.set()
        before.result()
    assert answer.status_code == 504
    assert answer.json()["error"] == "There was no answer within 0.3 s. Try again later."
    assert tiger.n_items == taken


def test_the_walk_of_the_search(tiger, checkpoints):
    with client_of(tiger) as client:
        body = {"history": ["i1", "i2"], "k": 5}
        walk = client.post("/trace", json={**body, "shown": 3}).json()
        rows = client.post("/recommend", json=body).json()["items"]
    assert walk["items"] == rows
    assert [level["alphabet"] for level in walk["levels"]] == tiger.code_sizes
    with client_of(Recommender(load_recommender(checkpoints.setrec))) as client:
        answer = client.post("/trace", json=body)
        health = client.get("/health").json()
    assert answer.status_code == 422
    assert "no walk along one tree" in answer.json()["error"]
    assert not health["has_codes"]
    assert not health["has_walk"]
    assert health["code_sizes"] is None


def test_models_of_recbole_serve_titles_and_users(checkpoints):
    with client_of(Recommender(load_recommender(checkpoints.sasrec))) as client:
        rows = client.post("/recommend", json={"user": "u1", "k": 3}).json()["items"]
        health = client.get("/health").json()
        refused = client.post("/items", json={"text": "dry oil"})
    assert len(rows) == 3
    assert all(" no " in row["title"] for row in rows)
    assert rows[0]["codes"] is None and rows[0]["certified"] is None
    assert not health["takes_new_items"]
    assert refused.status_code == 422
    assert "cannot take in new items" in refused.json()["error"]


def test_titles_are_searched_by_words(tiger):
    with client_of(tiger) as client:

        def search(query, **more):
            answer = client.get("/items", params={"query": query, **more})
            return [row["item"] for row in answer.json()["items"]]

        assert search("i7") == ["i7"]
        assert len(search("", limit=5)) == 5
        assert search("red soap") == ["i0"]
        assert search("SOAP red") == ["i0"]
        assert search("nothing") == []
        assert client.get("/items", params={"limit": 0}).status_code == 422
        assert client.get("/items", params={"query": "x" * 300}).status_code == 422


def test_the_page_and_the_schema_need_no_network(tiger):
    with client_of(tiger) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in ("page.css", "page.js", "tree.js", "api.js", "elements.js", "icon.svg"):
            file = client.get(f"/page/{name}")
            assert file.status_code == 200
            text = file.text.replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text and "https:" not in text and "innerHTML" not in text
        schema = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 404
    assert {"/recommend", "/recommend/batch", "/items", "/trace", "/health"} <= set(schema["paths"])
    json.dumps(schema)


def test_limits_of_an_operator_are_checked():
    with pytest.raises(ConfigError, match="max_batch is 0"):
        ServiceOptions(max_batch=0)
    with pytest.raises(ConfigError, match="timeout is nan"):
        ServiceOptions(timeout=float("nan"))
    with pytest.raises(ConfigError, match="timeout is inf; it must be a number of at least 0.001"):
        ServiceOptions(timeout=float("inf"))
    with pytest.raises(ConfigError, match="max_wait_ms is 20000.0 and timeout 10.0 s"):
        ServiceOptions(max_wait_ms=20_000.0)
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")


def test_a_query_is_the_models_query(tiger):
    query = tiger.query(["i1"], None, 3, None, True)
    assert query == Query(["i1"], 3, None, None, ["i1"])
