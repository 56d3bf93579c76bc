"""The ``recbole-genrec`` command: one file a command in ``commands/``, and what they share."""

from __future__ import annotations

import sys

import typer

from recbole_genrec.cli.application import PROGRAM, application
from recbole_genrec.cli.messages import show_error, show_usage_error
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
    words = sys.argv[1:]
    if argv is not None:
        words = argv
    try:
        status = application().main(words, prog_name=PROGRAM, standalone_mode=False)
    except GenRecError as error:
        show_error(error)
        return 2
    except typer.TyperException as error:
        show_usage_error(error)
        raise SystemExit(2) from None
    return status or 0


def run(argv: list[str] | None = None) -> int:
    """``recbole-genrec run --model=STORE --dataset=ml-100k --key=value ...``.

    Also the body of ``run_recbole_genrec.py``.
    """
    words = sys.argv[1:]
    if argv is not None:
        words = argv
    return main(["run", *words])
