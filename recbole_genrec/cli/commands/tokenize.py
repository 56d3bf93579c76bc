"""``recbole-genrec tokenize``: fit item tokenizers and judge their codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from recbole_genrec.cli.command import TRAIN, Command
from recbole_genrec.cli.options import QuietOption
from recbole_genrec.cli.tables import print_table
from recbole_genrec.cli.training import trained

if TYPE_CHECKING:
    from recbole_genrec.experiments.tokenizing import FittedTokenizer

COLUMNS = (
    "tokenizer",
    "codes used",
    "perplexity",
    "collisions",
    "largest group",
    "error",
    "near by text",
    "bought next",
    "chance",
    "CPU-s",
)
NOTE = """\
collisions: share of the items that share all codes with another one, before they are told apart.
error: mean squared error of the vectors that the codes stand for.
near by text, bought next, chance: how often an item has the same first code as one of its ten
nearest by text, as the next item of a training sequence, and as one put beside it at random.
A run with the same settings takes these codes from the cache."""


def tokenize(context: typer.Context, quiet: QuietOption = False) -> int:
    """Fit item tokenizers and judge their codes; no generator is trained.

    `--tokenizer=rkmeans,rqvae` compares several, with the settings of `--model` (TIGER unless it
    is given). `--output=F.json` writes the figures; other keys are those of run.
    """
    return trained(context, _tokenize, quiet)


def _tokenize(settings: list[str]) -> None:
    from recbole_genrec.experiments.tokenizing import tokenize as fitted

    rows = fitted(settings)
    print_table(COLUMNS, [_cells(row) for row in rows])
    for row in rows:
        for warning in row.warnings:
            print(f"{row.tokenizer}: {warning}")
    print(NOTE)


def _cells(row: FittedTokenizer) -> list[str]:
    """A row of the table."""
    return [
        row.tokenizer,
        " ".join(map(str, row.used)),
        " ".join(f"{value:.0f}" for value in row.perplexity),
        f"{row.colliding:.1%}",
        str(row.largest_group),
        "-" if row.reconstruction_error is None else f"{row.reconstruction_error:.3f}",
        "-" if row.neighbours is None else f"{row.neighbours[0]:.3f}",
        f"{row.purchases[0]:.3f}",
        f"{row.chance[0]:.3f}",
        "-" if row.fit_cpu_seconds is None else f"{row.fit_cpu_seconds:.0f}",
    ]


COMMAND = Command(
    "tokenize",
    tokenize,
    TRAIN,
    examples=(
        "recbole-genrec tokenize --dataset=ml-100k --tokenizer=rkmeans,cid,random",
        "recbole-genrec tokenize --model=LETTER --dataset=ml-100k --output=codes.json",
    ),
    takes_settings=True,
    usage="--dataset=NAME [--tokenizer=NAME,NAME] [--key=value ...]",
    needs_arguments=True,
)
