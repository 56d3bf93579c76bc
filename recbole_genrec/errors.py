"""Errors a user can act on: what was wrong, where, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class GenRecError(ValueError):
    """Base of every error this package raises on purpose."""


class ConfigError(GenRecError):
    """A key is unknown, has a bad value, or contradicts another key."""


class DataError(GenRecError):
    """A dataset file or the item text is missing or unusable."""


class ArtefactError(GenRecError):
    """A stored file (codes, embeddings, checkpoint) is damaged, belongs to something else, or cannot be written."""


class BackboneError(GenRecError):
    """A language model or sentence encoder cannot be built or loaded."""


@contextlib.contextmanager
def explained_files() -> Iterator[None]:
    """Say which file it was when the system refuses to read or write one that this package did not open itself (RecBole's logs)."""
    try:
        yield
    except OSError as error:
        name = f"{error.filename!r}" if error.filename else "A file"
        raise GenRecError(
            f"{name} cannot be read or written: {error.strerror or error}. Check that it exists, that you may write its folder, and that "
            "the disk has room; log/ and log_tensorboard/ are made in the current folder."
        ) from error


@contextlib.contextmanager
def explained_memory(advice: str) -> Iterator[None]:
    """Give ``advice`` when the processor's or the accelerator's memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if (
            not isinstance(error, MemoryError)
            and "out of memory" not in text
            and "can't allocate memory" not in text
        ):
            raise
        raise GenRecError(
            f"The memory is used up ({text.splitlines()[0] if text else type(error).__name__}). {advice}"
        ) from error


@contextlib.contextmanager
def explained(what: str, advice: str, kind: type[GenRecError] = ArtefactError) -> Iterator[None]:
    """Refuse ``what`` (a file from outside), whatever error its content leads to."""
    try:
        yield
    except GenRecError:
        raise
    except (
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ValueError,
        RuntimeError,
        ZeroDivisionError,
    ) as error:
        raise kind(f"{what} cannot be used ({type(error).__name__}: {error}). {advice}") from error


class ProcessError(GenRecError):
    """One of several processes has ended before its work was done."""
