"""What a client reads when a request cannot be answered: JSON with a plain sentence."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recbole_genrec.errors import GenRecError
from recbole_genrec.serving.batcher import ClosedError, QueueFullError

INVALID_JSON = "The body is no valid JSON."


class SlowError(GenRecError):
    """The answer did not come in time.

    Args:
        seconds: how long it was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"There was no answer within {seconds:g} s. Try again later.")


def status_of(error: GenRecError) -> int:
    """The status code that an error of this package gets."""
    if isinstance(error, QueueFullError):
        return 429
    if isinstance(error, ClosedError):
        return 503
    if isinstance(error, SlowError):
        return 504
    return 422


def add_error_handlers(app: FastAPI) -> None:
    """Let the service answer errors as ``{"error": sentence}``."""

    @app.exception_handler(GenRecError)
    async def of_ours(request: Request, error: GenRecError) -> JSONResponse:
        headers = {}
        if isinstance(error, QueueFullError):
            headers["retry-after"] = str(error.retry_after)
        return JSONResponse({"error": str(error)}, status_of(error), headers)

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        status = 400 if first["type"] == "json_invalid" else 422
        return JSONResponse({"error": sentence_about(first)}, status)

    @app.exception_handler(HTTPException)
    async def of_route(request: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            400: f"{INVALID_JSON} Nesting has an end, and so have the digits of a number.",
            404: f"There is nothing at {request.url.path}. /openapi.json lists what there is.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        text = sentences.get(error.status_code, str(error.detail))
        return JSONResponse({"error": text}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def of_others(request: Request, error: Exception) -> JSONResponse:
        text = "The service failed on this request. Its log says why."
        return JSONResponse({"error": text}, 500)


def sentence_about(error: dict[str, Any]) -> str:
    """A sentence about a mistake that pydantic found.

    Args:
        error: one of ``ValidationError.errors()``.
    """
    place = ".".join(str(part) for part in error["loc"][1:])
    kind = error["type"]
    if kind == "json_invalid":
        return INVALID_JSON
    if kind == "extra_forbidden":
        return f"There is no field {place!r} here. /openapi.json lists the fields."
    if kind == "missing":
        return f"The field {place!r} is missing." if place else "The request has no body."
    if not place:
        return "The body must be a JSON object, sent as Content-Type: application/json."
    value = repr(error.get("input"))
    if len(value) > 80:
        value = f"{value[:77]}..."
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "it should")
    return f"{place} is {value}: {message}."
