"""The command ``serve`` in a process of its own: its start, its signals, its addresses."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time

import httpx
import pytest
from serving_process import RunningService, running

from recbole_genrec.cli import main
from recbole_genrec.experiments.loading import load_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")


class Clients:
    """Threads that ask a service until it refuses them.

    Attributes:
        answers: body of the request and answer, of every request that was answered.
        broken: errors of requests that got no answer.
    """

    def __init__(self, place: str, count: int):
        self.place = place
        self.answers: list[tuple[dict, httpx.Response]] = []
        self.broken: list[Exception] = []
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self, start: int) -> None:
        with httpx.Client(base_url=self.place, timeout=60) as client:
            for number in range(100_000):
                body = {"history": [f"i{(start + number) % 40}", f"i{number % 40}"], "k": 5}
                try:
                    answer = client.post("/recommend", json=body)
                except httpx.TransportError as error:
                    self.broken.append(error)
                    return
                self.answers.append((body, answer))
                if answer.status_code != 200:
                    return

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def check_names_of_hosts(service: RunningService) -> None:
    """A page of the web whose name points at this machine gets no answer."""
    assert not any("WARNING" in line for line in service.lines)
    answer = httpx.get(f"{service.place}/health", headers={"host": "evil.example"})
    assert answer.status_code == 400
    port = service.place.rsplit(":", 1)[1]
    assert httpx.get(f"http://localhost:{port}/health").status_code == 200


def test_a_signal_under_load_answers_what_was_accepted(checkpoints):
    with running(checkpoints.tiger, "--max_batch=4") as service:
        check_names_of_hosts(service)
        clients = Clients(service.place, 16)
        while len(clients.answers) < 100:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        clients.join()
        rest = service.end()
        assert service.process.returncode == 0, rest
    # Every request that the service counted was answered, and the answer arrived.
    counted = re.search(r"Ended; (\d+) requests were answered", rest)
    assert counted is not None, rest
    n_before = 2  # of those that checked whether it had started, and the names of hosts
    assert int(counted.group(1)) == len(clients.answers) + n_before
    assert len(clients.broken) + sum(a.status_code == 503 for _, a in clients.answers) == 16
    # None of the answers is wrong.
    model = load_model(checkpoints.tiger).model
    for body, answer in clients.answers:
        if answer.status_code != 200:
            assert answer.status_code == 503
            continue
        expected = model.recommend(body["history"], k=5)
        rows = answer.json()["items"]
        assert [row["item"] for row in rows] == [row["item"] for row in expected]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.place}/health")


@pytest.mark.slow
def test_a_warning_where_others_can_reach_the_service(checkpoints):
    with running(checkpoints.tiger, "--host=0.0.0.0") as service:
        assert any("WARNING: 0.0.0.0 can be reached" in line for line in service.lines)


def test_mistakes_end_with_a_sentence(checkpoints, tmp_path, capsys):
    def failure(*options):
        assert main(["serve", *options]) == 2
        return capsys.readouterr().err

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = failure(f"--checkpoint={checkpoints.tiger}", f"--port={port}")
    assert f"cannot listen at 127.0.0.1, port {port}" in error
    assert "missing.pth" in failure(f"--checkpoint={tmp_path / 'missing.pth'}", "--port=0")
    wrong = failure(f"--checkpoint={checkpoints.tiger}", "--port=0", "--max_batch=0")
    assert "max_batch is 0" in wrong
    assert "port 99999999" in failure(f"--checkpoint={checkpoints.tiger}", "--port=99999999")
