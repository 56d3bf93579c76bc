"""All commands together."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.main import get_command

import recbole_genrec
from recbole_genrec.cli.commands import COMMANDS

PROGRAM = "recbole-genrec"


def application() -> Any:
    """The command line with all of its commands."""
    app = typer.Typer(
        name=PROGRAM,
        help="Generative recommendation with semantic ids, inside RecBole.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_before_a_command)
    for command in COMMANDS:
        command.add_to(app)
    return get_command(app)


def _print_version(is_given: bool) -> None:
    """Print the version and end, where ``--version`` is given."""
    if is_given:
        typer.echo(f"recbole-genrec {recbole_genrec.__version__}")
        raise typer.Exit


def _before_a_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options without a command."""
