"""``recbole-genrec evaluate``: test a checkpoint again."""

from __future__ import annotations

from typing import Any

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import QuietOption, refuse
from recbole_genrec.cli.tables import print_outcome
from recbole_genrec.cli.training import trained

TEXTS = ("checkpoint", "model", "result_file")
"""Keys of paths and names."""


def evaluate(context: typer.Context, quiet: QuietOption = False) -> int:
    """Test the checkpoint of a run again; nothing is trained.

    Keys that may differ from the run: beam_width, score_type, score_mode, constraint,
    candidate_file, topk, metrics, data_path and others that the weights do not depend on.
    `--backbone=F` names the language model's folder when it has moved. `--result_file=F` writes a
    JSON, and the rank of each user's test item beside it, for `leaderboard` and `report`.
    """
    return trained(context, _evaluate, quiet, resumes=False)


def _evaluate(settings: list[str]) -> None:
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.trained import evaluate as test_again
    from recbole_genrec.settings.parsing import parse_arguments

    keys: dict[str, Any] = parse_arguments(settings, TEXTS)
    refuse(keys, "model_class")
    checkpoint = keys.pop("checkpoint", None)
    model_class = keys.pop("model", None)
    if checkpoint is None:
        raise ConfigError("Which checkpoint? Give --checkpoint=F, the .pth file of a run.")
    result = test_again(checkpoint, model_class, **keys)
    print_outcome({result["model"]: result})

    masked = "no"
    if result["history_masked"]:
        masked = "yes"
    print(f"  {'history masked':<24} {masked}")
    unreachable = result["unreachable_targets"]
    if unreachable is not None:
        print(f"  {'targets in their history':<24} {unreachable['test']}")
    for name, value in result["report"].get("search", {}).items():
        print(f"  {name:<24} {value}")


COMMAND = Command(
    "evaluate",
    evaluate,
    TRAINED,
    examples=(
        "recbole-genrec evaluate --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth",
        "recbole-genrec evaluate --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --beam_width=50 "
        "--result_file=wide.json",
    ),
    takes_settings=True,
    usage="--checkpoint=FILE [--key=value ...]",
    needs_arguments=True,
)
