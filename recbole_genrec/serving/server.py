"""Runs the service until a signal ends it; what was accepted by then is answered."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.serving.options import ServiceOptions
from recbole_genrec.serving.recommender import Recommender
from recbole_genrec.serving.service import create_app


def serve(
    checkpoint: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ServiceOptions | None = None,
    say: Callable[[str], None] = print,
    **changes: Any,
) -> None:
    """Serve the model of a checkpoint until SIGINT or SIGTERM.

    A first signal refuses new connections and answers what was accepted; a second one ends at
    once.

    Args:
        checkpoint: as in ``load_recommender``.
        host: address to listen at; by default only this machine can reach the service.
        port: 0 = any free one.
        options: limits.
        say: shows a line to the operator.
        **changes: as in ``load_recommender``.

    Raises:
        ConfigError: the address cannot be used.
        ArtefactError: as in ``load_recommender``.
    """
    options = options or ServiceOptions()
    with _listening(host, port) as listener:
        say(f"Loading {checkpoint} ...")
        recommender = Recommender(load_recommender(checkpoint, candidate_file=None, **changes))
        app = create_app(recommender, options)
        if is_loopback(host):
            # A page of the web that lets its name point at this machine gets no answer.
            hosts = ["localhost", "127.0.0.1", "[::1]", host]
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
        else:
            say(
                f"WARNING: {host} can be reached from other machines, and the service asks nobody "
                "for a password. Put it behind a proxy that does, or use --host=127.0.0.1."
            )
        name = f"[{host}]" if ":" in host else host
        place = f"http://{name}:{listener.getsockname()[1]}"
        say(f"{recommender.name} on {recommender.dataset}, {recommender.n_items} items: {place}")
        say("Ctrl-C ends the service.")
        sys.stdout.flush()
        _run(app, listener, options)
        answered = app.state.service.metrics.answered()
        say(f"Ended; {answered} requests were answered.")


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at an address, bound before the model is loaded so that a mistake shows at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"The service cannot listen at {host}, port {port}: {error}. Choose another --port or "
            "--host."
        ) from error
    with contextlib.closing(listener):
        yield listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _run(app: Any, listener: socket.socket, options: ServiceOptions) -> None:
    """Answer requests until a signal comes."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(options.timeout) + 5,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def stop(number: int, _: Any) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    # uvicorn handles signals itself, and ends the process by them, only in the main thread.
    thread = threading.Thread(target=server.run, args=([listener],), name="http")
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # signal handlers run between two waits
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
