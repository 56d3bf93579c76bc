"""``recbole-genrec tune``: search parameters."""

from __future__ import annotations

import typer

from recbole_genrec.cli.command import TRAIN, Command
from recbole_genrec.cli.options import QuietOption
from recbole_genrec.cli.training import trained


def tune(context: typer.Context, quiet: QuietOption = False) -> int:
    """Search parameters with RecBole's HyperTuning.

    The file of `--params_file` holds lines like `learning_rate choice [0.01,0.001]`.
    `--algo=exhaustive|random|bayes`, `--max_evals=10`, `--early_stop=10` (trials without
    improvement), `--output_file=tuning.json`; other keys are those of run.
    """
    return trained(context, _tune, quiet)


def _tune(settings: list[str]) -> None:
    from recbole_genrec.experiments.tuning import tune as search

    best = search(settings)
    print(f"Best of {len(best['trials'])} trials: {best['best_params']}")
    print(f"validation {best['best_valid_score']}, test {best['test_result']}")


COMMAND = Command(
    "tune",
    tune,
    TRAIN,
    examples=(
        "recbole-genrec tune --model=SASRec --dataset=ml-100k --params_file=space.hyper",
        "recbole-genrec tune --model=STORE --dataset=ml-100k --params_file=space.hyper "
        "--algo=random --max_evals=20",
    ),
    takes_settings=True,
    usage="--model=NAME --dataset=NAME --params_file=FILE [--key=value ...]",
    needs_arguments=True,
)
