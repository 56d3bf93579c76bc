"""``recbole-genrec run``: train and test."""

from __future__ import annotations

import os

import typer

from recbole_genrec.cli.command import TRAIN, Command
from recbole_genrec.cli.training import trained


def run(context: typer.Context) -> int:
    """Train and test one model, or several on the same split.

    Keys are those of RecBole and of properties/; `--Model.key=value` is meant for one model,
    `--preset=paper` takes the published setting, `--resume` continues an interrupted run.
    """
    return trained(context, _run)


def _run(settings: list[str]) -> None:
    from recbole_genrec.experiments.run import run_recbole_genrec
    from recbole_genrec.report.console import results_table
    from recbole_genrec.runtime.processes import started_with_others

    result = run_recbole_genrec(argv=settings)
    if started_with_others() and os.environ["RANK"] != "0":
        return  # torchrun starts this command once a process
    several = "test_result" not in result
    if not several:
        result = {result["model"]: result}
    print(results_table(result))


COMMAND = Command(
    "run",
    run,
    TRAIN,
    examples=(
        "recbole-genrec run --model=STORE --dataset=ml-100k",
        "recbole-genrec run --model=STORE,SASRec --dataset=ml-100k --SASRec.epochs=20",
        "recbole-genrec run --model=TIGER --dataset=amazon-beauty --preset=paper",
    ),
    takes_settings=True,
    usage="--model=NAME --dataset=NAME [--key=value ...]",
    needs_arguments=True,
)
