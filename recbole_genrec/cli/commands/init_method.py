"""``recbole-genrec init-method``: begin a method of your own."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import PREPARE, Command


def init_method(
    name: Annotated[str, typer.Argument(help="name of its class, for example NextCode")],
) -> None:
    """Write the skeleton of a new method into the current folder."""
    from recbole_genrec.experiments.new_method import write_new_method

    method, settings, test = write_new_method(name)
    print(f"Written: {method}, {settings}, {test}")
    print(f"Try:     recbole-genrec run --model={method.stem}:{name} --dataset=ml-100k")


COMMAND = Command(
    "init-method", init_method, PREPARE, examples=("recbole-genrec init-method NextCode",)
)
