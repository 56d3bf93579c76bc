"""The ``recbole-genrec`` command: one file a command in ``commands/``, and what they share."""

from __future__ import annotations

import sys
from typing import Any

import typer

from recbole_genrec.cli.application import PROGRAM, application
from recbole_genrec.errors import GenRecError


def main(argv: list[str] | None = None) -> int:
    """Carry out a command.

    Args:
        argv: the words of the command line; ``None`` takes those of the process.

    Returns:
        The exit status: 2 for an error that the user can mend, 130 or 143 after SIGINT or SIGTERM.

    Raises:
        SystemExit: the command or one of its options does not exist.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        status = application().main(words, prog_name=PROGRAM, standalone_mode=False)
    except GenRecError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except typer.TyperException as error:
        _show_usage_error(error)
        raise SystemExit(2) from None
    return status or 0


def run(argv: list[str] | None = None) -> int:
    """``recbole-genrec run --model=STORE --dataset=ml-100k --key=value ...``.

    Also the body of ``run_recbole_genrec.py``.
    """
    words = sys.argv[1:] if argv is None else argv
    return main(["run", *words])


def _show_usage_error(error: Any) -> None:
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
