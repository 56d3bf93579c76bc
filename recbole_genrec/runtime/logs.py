"""Log files of runs that never began."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from recbole_genrec.errors import GenRecError

RECBOLE_SETTINGS = ("train_neg_sample_args", "eval_batch_size")
"""What RecBole's lines about its data loaders hold."""


@contextlib.contextmanager
def no_empty_logs(folder: str | Path) -> Iterator[None]:
    """Remove the log file of a refused run when nothing stands in it.

    Args:
        folder: where the run writes its log file.
    """
    before = set(Path(folder).glob("*.log"))
    try:
        yield
    except GenRecError:
        for file in set(Path(folder).glob("*.log")) - before:
            if file.stat().st_size == 0:
                _remove(file)
        raise


@contextlib.contextmanager
def without_recbole_settings() -> Iterator[None]:
    """Keep RecBole's lines of dictionaries out of the log; the summary of a run says the same."""

    def is_kept(record: logging.LogRecord) -> bool:
        return not any(name in record.getMessage() for name in RECBOLE_SETTINGS)

    root = logging.getLogger()
    root.addFilter(is_kept)
    try:
        yield
    finally:
        root.removeFilter(is_kept)


def _remove(file: Path) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if not isinstance(handler, logging.FileHandler):
            continue
        if Path(handler.baseFilename) == file.resolve():
            root.removeHandler(handler)
            handler.close()
    with contextlib.suppress(OSError):  # another process has it, or another run wrote there
        file.unlink()
        file.parent.rmdir()
        file.parent.parent.rmdir()
