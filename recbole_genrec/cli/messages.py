"""How errors are shown: in plain sentences on the error stream, without a traceback."""

from __future__ import annotations

import sys
from typing import Any

from recbole_genrec.errors import GenRecError


def show_error(error: GenRecError) -> None:
    """Print what went wrong and what to do.

    Args:
        error: with a message for people.
    """
    print(f"\n{type(error).__name__}: {error}", file=sys.stderr)


def show_usage_error(error: Any) -> None:
    """Print that the command line itself is wrong, and where its help is.

    Args:
        error: of typer.
    """
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if not message:
        return  # the help has been shown instead
    print(f"Error: {message}", file=sys.stderr)
    if context is not None:
        print(f"Help:  {context.command_path} --help", file=sys.stderr)
