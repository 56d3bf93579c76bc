"""Commands that work for long: signals end them in order."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import typer

from recbole_genrec.cli.options import quietly
from recbole_genrec.runtime.interrupts import Interrupted, handled_signals


def trained(
    context: typer.Context,
    body: Callable[[list[str]], None],
    quiet: bool = False,
    resumes: bool = True,
) -> int:
    """Carry out a command that takes ``--key=value``, and say how to go on after a signal.

    Args:
        context: of the command.
        body: what it does with its settings.
        quiet: whether to show warnings and the result alone.
        resumes: whether it goes on with ``--resume``; else it starts again.

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
        words = context.meta["words"]
        advice = "This starts again from the beginning:"
        if resumes:
            words = [word for word in words if word.partition("=")[0] != "--resume"]
            words.append("--resume")
            advice = "What was saved is kept; this continues from there:"
        command = shlex.join(["recbole-genrec", str(context.info_name), *words])
        print(f"\nStopped by {signal}. {advice}\n  {command}", file=sys.stderr)
        return signal.status
    return 0
