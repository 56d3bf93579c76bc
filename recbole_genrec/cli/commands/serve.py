"""``recbole-genrec serve``: an HTTP service with a page over a trained model."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    CheckpointOption,
    DataPathOption,
    ModelOption,
    checkpoint_changes,
)


def serve(
    checkpoint: CheckpointOption,
    host: Annotated[
        str, typer.Option("--host", help="address; the default one is for this machine alone")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 = any free one")] = 8000,
    max_batch: Annotated[
        int, typer.Option("--max_batch", help="queries that the model answers at once")
    ] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option("--max_wait_ms", help="how long a query waits for others, in milliseconds"),
    ] = 2.0,
    queue_size: Annotated[
        int, typer.Option("--queue_size", help="queries that wait; further ones get status 429")
    ] = 256,
    timeout: Annotated[
        float, typer.Option("--timeout", help="seconds after which a query gets status 504")
    ] = 10.0,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """Answers requests for lists over HTTP, in batches, with a page to try the model."""
    import importlib.util

    from recbole_genrec.errors import GenRecError

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise GenRecError(
                f"serve needs {package}, which is not installed. "
                "Run: pip install 'recbole-genrec[serve]'"
            )
    from recbole_genrec.runtime.memory import keep_freed_memory
    from recbole_genrec.serving.options import ServiceOptions
    from recbole_genrec.serving.server import serve as run_service

    keep_freed_memory()
    options = ServiceOptions(
        max_batch=max_batch, max_wait_ms=max_wait_ms, queue_size=queue_size, timeout=timeout
    )
    changes = checkpoint_changes(model, data_path, backbone)
    run_service(checkpoint, host, port, options, **changes)


COMMAND = Command(
    "serve",
    serve,
    TRAINED,
    examples=(
        "recbole-genrec serve --checkpoint=saved/TIGER-ml-100k-1a2b3c4d.pth",
        "recbole-genrec serve --checkpoint=saved/TIGER-ml-100k-1a2b3c4d.pth --port=9000 "
        "--max_batch=64",
    ),
)
