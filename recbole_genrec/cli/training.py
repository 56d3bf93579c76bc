"""Commands that train or search for long: signals end them in order."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import typer

from recbole_genrec.cli.options import quietly
from recbole_genrec.runtime.interrupts import Interrupted, handled_signals


def trained(context: typer.Context, body: Callable[[list[str]], None], quiet: bool = False) -> int:
    """Carry out a command that takes ``--key=value`` and can go on after a signal.

    Args:
        context: of the command.
        body: what it does with its settings.
        quiet: whether to show warnings and the result alone.

    Returns:
        The exit status; 130 or 143 after SIGINT or SIGTERM.
    """
    from recbole_genrec.runtime.memory import keep_freed_memory

    settings = quietly(context.args) if quiet else context.args
    try:
        keep_freed_memory()
        with handled_signals():
            body(settings)
    except Interrupted as signal:
        words = [word for word in context.meta["words"] if word != "--resume"]
        command = shlex.join(["recbole-genrec", str(context.info_name), *words, "--resume"])
        print(
            f"\nStopped by {signal}. What was saved is kept; this continues from there:\n"
            f"  {command}",
            file=sys.stderr,
        )
        return signal.status
    return 0
