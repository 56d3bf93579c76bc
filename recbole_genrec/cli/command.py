"""What a command is, and the two kinds: with options of its own, or with ``--key=value``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

TRAIN = "Train and test"
TRAINED = "Use a trained model"
LOOK_UP = "Look up"
PREPARE = "Data and methods of your own"


@dataclass(frozen=True)
class Command:
    """One command of ``recbole-genrec``.

    Attributes:
        name: what people type.
        function: does it and returns the exit status, ``None`` for 0. Its annotated parameters are
            the options and arguments, its docstring is the help.
        panel: the heading below which ``recbole-genrec --help`` lists it.
        examples: command lines for its help.
        takes_settings: whether it takes ``--key=value``; the function then has a parameter
            ``context: typer.Context`` and finds them in ``context.args``.
        usage: what stands for the settings in the first line of its help.
        needs_arguments: whether it shows its help when nothing is given.
        further_help: help on the settings that stand beside ``--help``, or ``None``.
    """

    name: str
    function: Callable[..., int | None]
    panel: str
    examples: tuple[str, ...]
    takes_settings: bool = False
    usage: str = "[OPTIONS]"
    needs_arguments: bool = False
    further_help: Callable[[list[str]], str | None] | None = None

    def add_to(self, app: typer.Typer) -> None:
        """Make it a command of ``app``."""
        kind: type[ShownExamples] = ShownExamples
        settings: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
        if self.takes_settings:
            kind = TakesSettings
            settings |= {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(
            self.name,
            cls=type(f"{kind.__name__}Of{self.function.__name__}", (kind,), {"command": self}),
            help=inspect.getdoc(self.function),
            rich_help_panel=self.panel,
            options_metavar=self.usage,
            no_args_is_help=self.needs_arguments,
            context_settings=settings,
        )(self.function)


class ShownExamples(TyperCommand):
    """A command whose help ends with examples.

    Attributes:
        command: its description.
    """

    command: Command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help and the examples."""
        super().format_help(ctx, formatter)
        if self.command.examples:
            lines = "\n".join(f"  {line}" for line in self.command.examples)
            typer.echo(f" Examples:\n{lines}\n")


class TakesSettings(ShownExamples):
    """A command that takes ``--key=value`` beside its own options, in any order."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words that are none of its options for the settings, unread.

        What was typed stays in ``ctx.meta["words"]``.
        """
        ctx.meta["words"] = list(args)
        options: set[str] = set()
        for parameter in self.get_params(ctx):
            options.update(parameter.opts)
        settings = [word for word in args if _is_setting(word, options)]
        others = [word for word in args if not _is_setting(word, options)]
        if settings:
            self.no_args_is_help = False
        super().parse_args(ctx, others)
        ctx.args = [*ctx.args, *settings]
        return ctx.args

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, and more about the settings that were given with it."""
        super().format_help(ctx, formatter)
        if self.command.further_help is None:
            return
        words = ctx.meta.get("words", [])
        settings = [word for word in words if _is_setting(word, {*ctx.help_option_names})]
        text = self.command.further_help(settings)
        if text is not None:
            typer.echo(text)


def _is_setting(word: str, options: set[str]) -> bool:
    return word.startswith("--") and word.partition("=")[0] not in options
