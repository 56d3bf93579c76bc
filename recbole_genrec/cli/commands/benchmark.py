"""``recbole-genrec benchmark``: many runs and their leaderboard."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAIN, Command


def benchmark(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="the YAML file with runs and seeds")],
) -> int:
    """Many runs from one YAML file, and their leaderboard.

    `--key=value` replaces a key of the file, `--only=[name, ...]` carries out these runs alone.
    The exit status is 1 when a run failed.
    """
    from recbole_genrec.experiments.benchmark import run_benchmark
    from recbole_genrec.experiments.benchmark_file import read_benchmark
    from recbole_genrec.report.leaderboard import make_leaderboard
    from recbole_genrec.settings.parsing import parse_arguments

    plan = read_benchmark(file, **parse_arguments(context.args))
    try:
        failed = run_benchmark(plan)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues.", file=sys.stderr)
        return 130
    print(make_leaderboard([plan.output], output=plan.output))
    return int(bool(failed))


COMMAND = Command(
    "benchmark",
    benchmark,
    TRAIN,
    examples=(
        "recbole-genrec benchmark benchmarks/tokenizers.yaml",
        "recbole-genrec benchmark benchmarks/tokenizers.yaml --seeds=[2020] --only=[SASRec-CE]",
    ),
    takes_settings=True,
    usage="[--key=value ...]",
)
