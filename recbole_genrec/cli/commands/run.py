"""``recbole-genrec run``: train and test."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAIN, Command
from recbole_genrec.cli.options import QuietOption, split_words
from recbole_genrec.cli.tables import print_outcome
from recbole_genrec.cli.training import trained


def run(
    context: typer.Context,
    quiet: QuietOption = False,
    report: Annotated[
        bool, typer.Option("--report", help="write a page about the run beside its result file")
    ] = False,
) -> int:
    """Train and test one model, or several on the same split.

    Keys are those of RecBole and of properties/; `--Model.key=value` is meant for one model,
    `--preset=paper` takes the published setting, `--resume` continues an interrupted run.
    `recbole-genrec run --model=LETTER --help` lists the keys of a method.
    """
    return trained(context, partial(_run, with_report=report), quiet)


def _keys_of_a_method(settings: list[str]) -> str | None:
    """Help on the keys of the method that is named beside ``--help``."""
    from recbole_genrec.experiments.key_list import keys_by_effect
    from recbole_genrec.experiments.run import joined_names
    from recbole_genrec.settings.parsing import parse_arguments

    method = joined_names(parse_arguments(settings).get("model"))
    if not isinstance(method, str):
        return None
    others = [word for word in settings if not word.startswith("--model=")]
    tables = [keys_by_effect(name, others) for name in split_words(method)]
    return "\n\n".join(tables)


def _run(settings: list[str], with_report: bool) -> None:
    from recbole_genrec.experiments.run import run_recbole_genrec
    from recbole_genrec.report.objects import Results, results_of
    from recbole_genrec.runtime.processes import is_first_started

    result = run_recbole_genrec(argv=settings)
    if not is_first_started():
        return  # torchrun starts this command once a process
    results = result if isinstance(result, Results) else results_of({result["model"]: result})
    print_outcome({**results})
    if with_report:
        from recbole_genrec.experiments.report import write_report_of

        print(f"Report written to {write_report_of(results)}")


COMMAND = Command(
    "run",
    run,
    TRAIN,
    examples=(
        "recbole-genrec run --model=STORE --dataset=ml-100k",
        "recbole-genrec run --model=STORE,SASRec --dataset=ml-100k --SASRec.epochs=20",
        "recbole-genrec run --model=TIGER --dataset=amazon-beauty --preset=paper",
        "recbole-genrec run --model=LETTER --dataset=ml-100k --help",
    ),
    takes_settings=True,
    usage="--model=NAME --dataset=NAME [--key=value ...]",
    needs_arguments=True,
    further_help=_keys_of_a_method,
)
