"""``recbole-genrec serve``: an HTTP service with a page over a trained model."""

from __future__ import annotations

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    CheckpointOption,
    DataPathOption,
    HostOption,
    MaxBatchOption,
    MaxWaitOption,
    ModelOption,
    PortOption,
    QueueSizeOption,
    TimeoutOption,
    checkpoint_changes,
)


def serve(
    checkpoint: CheckpointOption,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    max_batch: MaxBatchOption = 32,
    max_wait_ms: MaxWaitOption = 2.0,
    queue_size: QueueSizeOption = 256,
    timeout: TimeoutOption = 10.0,
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
