"""Errors a user can act on: what was wrong, where, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_FOR_PROGRAMMERS = (
    "unpack",
    "concatenate",
    "attribute",
    "KeyError",
    "NoneType",
    "operand",
    "argument",
    "object is not",
    "must match in size",
    "could not broadcast",
)


class GenRecError(ValueError):
    """Base of every error that this package raises on purpose."""


class ConfigError(GenRecError):
    """A key is unknown, has a bad value, or contradicts another key."""


class DataError(GenRecError):
    """A dataset file or the item text is missing or unusable."""


class ArtefactError(GenRecError):
    """A stored file is damaged, belongs to something else, or cannot be written.

    Stored files are codes, embeddings, fitted tokenizers and checkpoints.
    """


class HeldError(ArtefactError):
    """Another process is at work on the same files."""


class BackboneError(GenRecError):
    """A language model or sentence encoder cannot be built or loaded."""


class ProcessError(GenRecError):
    """One of several processes has ended before its work was done."""


@contextlib.contextmanager
def explained_files() -> Iterator[None]:
    """Say which file it was when the system refuses to read or write one.

    For files that this package does not open itself, like RecBole's logs.

    Raises:
        GenRecError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        name = repr(error.filename) if error.filename else "A file"
        raise GenRecError(
            f"{name} cannot be read or written: {error.strerror or error}. Check that it exists, "
            f"that you may write to its folder, and that the disk is not full. RecBole makes "
            f"log/ and log_tensorboard/ in the current folder."
        ) from error


@contextlib.contextmanager
def explained_memory(advice: str) -> Iterator[None]:
    """Give advice when the memory of the processor or the accelerator runs out.

    Args:
        advice: what the user can do, as a sentence.

    Raises:
        GenRecError: in place of the error of Python or PyTorch.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _means_out_of_memory(error):
            raise
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise GenRecError(f"There is not enough memory ({reason}). {advice}") from error


def _means_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


def reason_of(error: Exception) -> str:
    """`` (reason)`` in the words of an error, or nothing where these are for programmers.

    Args:
        error: of RecBole or another library.
    """
    if isinstance(error, (KeyError, AttributeError, IndexError)):
        return ""
    lines = str(error).strip().splitlines()
    if not lines or any(word in lines[0] for word in _FOR_PROGRAMMERS):
        return ""
    return f" ({lines[0]})"


@contextlib.contextmanager
def explained(what: str, advice: str, kind: type[GenRecError] = ArtefactError) -> Iterator[None]:
    """Refuse a file from outside, whatever error its content leads to.

    The error's own words are repeated where they are meant for people; it is the cause anyway.

    Args:
        what: the file, as the subject of a sentence.
        advice: what the user can do, as a sentence.
        kind: class of the error.

    Raises:
        GenRecError: in place of the error that the content led to.
    """
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
        raise kind(f"{what} cannot be used{reason_of(error)}. {advice}") from error
