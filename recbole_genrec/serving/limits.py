"""A layer around the service: size and time of request bodies, counts, headers of security."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from recbole_genrec.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
)


class Guard:
    """ASGI middleware around all routes.

    Args:
        app: what answers the requests.
        metrics: counts them.
        max_body: most bytes of a body; larger ones get the status 413.
        timeout: seconds in which a body must arrive; slower ones get the status 408.
    """

    def __init__(self, app: Any, metrics: Metrics, max_body: int, timeout: float) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body = max_body
        self.timeout = timeout

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            await self._answer(scope, receive, send_noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.note_request(route, status, time.perf_counter() - start)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self.timeout)
        except asyncio.TimeoutError:
            await _refusal(408, "The body of the request came too slowly.")(scope, receive, send)
            return
        if body is None:
            text = f"The body of the request is larger than {self.max_body} bytes. Send less."
            await _refusal(413, text)(scope, receive, send)
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            if messages:
                return messages.pop()
            return await receive()

        await self.app(scope, receive_again, send)

    async def _body(self, scope: Message, receive: Receive) -> bytes | None:
        """The body of a request; ``None`` where it is too large."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            return None
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self.max_body:
                return None
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def _refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, {"connection": "close"})
