"""``recbole-genrec keys``: what can be set."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import LOOK_UP, Command


def keys(
    context: typer.Context,
    method: Annotated[str | None, typer.Argument(help="a name that --model takes")] = None,
) -> None:
    """Every key of a method: value, what it affects, the file that sets it, meaning and range.

    With `--dataset` the values are those for that dataset; other keys, like `--preset=paper` or
    `--tokenizer=rqvae`, change the values as in run. Without METHOD: the keys that all methods
    share, then those of every method and of every tokenizer.
    """
    from recbole_genrec.experiments.key_list import key_list

    print(key_list(method, context.args))


COMMAND = Command(
    "keys",
    keys,
    LOOK_UP,
    examples=(
        "recbole-genrec keys LETTER",
        "recbole-genrec keys TIGER --dataset=amazon-beauty --preset=paper",
    ),
    takes_settings=True,
    usage="[--key=value ...]",
)
