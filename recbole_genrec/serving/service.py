"""The HTTP service: routes, and how requests reach the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import recbole_genrec
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.model.lists.queries import Query as ModelQuery
from recbole_genrec.serving import schemas
from recbole_genrec.serving.batcher import Batcher
from recbole_genrec.serving.failures import SlowError, add_error_handlers
from recbole_genrec.serving.limits import Guard
from recbole_genrec.serving.metrics import Metrics
from recbole_genrec.serving.options import ServiceOptions
from recbole_genrec.serving.recommender import Recommender

PAGE = Path(__file__).parent / "page"


class Service:
    """A model behind a queue.

    Args:
        recommender: the model.
        options: limits.
    """

    def __init__(self, recommender: Recommender, options: ServiceOptions) -> None:
        self.recommender = recommender
        self.options = options
        self.metrics = Metrics(lambda: len(self.batcher), lambda: recommender.n_items)
        self.batcher = Batcher(
            recommender.answer,
            options.max_batch,
            options.max_wait_ms / 1000,
            options.queue_size,
            self.metrics.note_batch,
        )

    def query(self, body: schemas.RecommendBody) -> ModelQuery:
        """The query of a body.

        Raises:
            ConfigError: it is over a limit, or cannot be answered.
        """
        options = self.options
        _check_size("k", body.k, options.max_k)
        _check_size("the length of history", len(body.history or []), options.max_history)
        _check_size("the number of candidates", len(body.candidates or []), options.max_candidates)
        _check_size("the number of excluded", len(body.excluded or []), options.max_candidates)
        return self.recommender.query(
            body.history, body.user, body.k, body.candidates, body.exclude_seen, body.excluded
        )

    async def results(self, futures: list[Future]) -> list[Any]:
        """The results of some futures; of those that failed the error.

        Raises:
            SlowError: not all are there in time.
        """
        waiting = asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        try:
            return await asyncio.wait_for(waiting, self.options.timeout)
        except asyncio.TimeoutError:
            raise SlowError(self.options.timeout) from None

    async def result(self, future: Future) -> Any:
        """The result of one future; its error is raised."""
        (result,) = await self.results([future])
        if isinstance(result, BaseException):
            raise result
        return result

    async def change(self, task: Callable[[], Any]) -> Any:
        """The result of a call that changes the model.

        Only its time in the queue is limited. A call that has begun cannot be taken back, so that
        its result is waited for.

        Raises:
            SlowError: it had not begun in time, and never will.
        """
        future = self.batcher.call(task)
        result = asyncio.wrap_future(future)
        await asyncio.wait([result], timeout=self.options.timeout)
        if future.cancel():
            raise SlowError(self.options.timeout)
        return await result

    async def recommend_batch(self, bodies: list[schemas.RecommendBody]) -> list[dict[str, Any]]:
        """A list or an error for each of some bodies."""
        _check_size("the number of requests", len(bodies), self.options.queue_size)
        answers: list[dict[str, Any]] = [{} for _ in bodies]
        queries: dict[int, ModelQuery] = {}
        for place, body in enumerate(bodies):
            try:
                queries[place] = self.query(body)
            except GenRecError as error:
                answers[place] = {"error": str(error)}
        results = await self.results(self.batcher.submit(list(queries.values())))
        for place, result in zip(queries, results, strict=True):
            if isinstance(result, GenRecError):
                answers[place] = {"error": str(result)}
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[place] = {"items": result}
        return answers

    def health(self) -> dict[str, Any]:
        """What is served, and how it is doing.

        Raises:
            ClosedError: the model has ended with an error.
        """
        self.batcher.check()
        recommender = self.recommender
        return {
            "status": "ok",
            "model": recommender.name,
            "dataset": recommender.dataset,
            "n_items": recommender.n_items,
            "waiting": len(self.batcher),
            "has_codes": recommender.has_codes,
            "has_walk": recommender.has_walk,
            "code_sizes": recommender.code_sizes,
            "takes_new_items": recommender.takes_new_items,
            "example_text": recommender.example_text,
            "excludes_seen": recommender.excludes_seen,
            "max_k": self.options.max_k,
            "limits": vars(self.options),
        }


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise ConfigError(f"{what} is {size}; this service takes at most {limit}.")


def create_app(recommender: Recommender, options: ServiceOptions | None = None) -> FastAPI:
    """The service as an ASGI application; its queue starts at once.

    Args:
        recommender: the model.
        options: limits.
    """
    service = Service(recommender, options or ServiceOptions())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    # The pages for /docs and /redoc would load scripts from elsewhere.
    app = FastAPI(
        title="recbole_genrec",
        version=recbole_genrec.__version__,
        summary=f"Recommendations of {recommender.name} on {recommender.dataset}",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(
        Guard,
        metrics=service.metrics,
        max_body=service.options.max_body,
        timeout=service.options.timeout,
    )
    add_error_handlers(app)
    _add_routes(app, service)
    _add_page(app, service)
    return app


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer, "description": description}
    for status, description in {
        413: "the body is too large",
        422: "an unknown item, or another mistake, which is named",
        429: "too many requests wait; Retry-After says when to try again",
        503: "the service is shutting down",
        504: "the answer did not come in time",
    }.items()
}


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", responses=ERRORS)
    async def recommend(body: schemas.RecommendBody) -> schemas.ListAnswer:
        """The best next items after a history, or for a user of the data."""
        (future,) = service.batcher.submit([service.query(body)])
        return schemas.ListAnswer(items=await service.result(future))

    @app.post("/recommend/batch", responses=ERRORS)
    async def recommend_batch(body: schemas.BatchBody) -> schemas.BatchAnswer:
        """Lists for several histories or users; a mistake in one does not stop the others."""
        answers = await service.recommend_batch(body.requests)
        return schemas.BatchAnswer.model_validate({"answers": answers})

    @app.post("/trace", responses=ERRORS)
    async def trace(body: schemas.TraceBody) -> schemas.TraceAnswer:
        """A list, and how the beams walked the tree of items to it."""
        query = service.query(body)
        future = service.batcher.call(lambda: service.recommender.trace(query, body.shown))
        levels, rows = await service.result(future)
        return schemas.TraceAnswer.model_validate(
            {"levels": [level._asdict() for level in levels], "items": rows}
        )

    @app.post("/items", status_code=201, responses=ERRORS)
    async def add_item(body: schemas.NewItemBody) -> schemas.ItemAnswer:
        """Make a new item recommendable at once, from its text; kept until the service ends."""
        added = await service.change(lambda: service.recommender.add_item(body.text, body.item))
        return schemas.ItemAnswer(**added)

    @app.get("/items")
    def items(
        query: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> schemas.ItemsAnswer:
        """Items whose titles hold all words of the query."""
        matches = service.recommender.titles.search(query, limit)
        return schemas.ItemsAnswer.model_validate({"items": matches})


def _add_page(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> schemas.HealthAnswer:
        """What is served, and how it is doing."""
        return schemas.HealthAnswer(**service.health())

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Figures in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
