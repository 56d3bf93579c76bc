"""``recbole-genrec ensemble``: add the log-probabilities of trained models."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import QuietOption, refuse, split_words
from recbole_genrec.cli.tables import print_outcome
from recbole_genrec.cli.training import trained

TEXTS = ("checkpoints", "output", "model")
"""Keys of paths and names."""


def ensemble(context: typer.Context, quiet: QuietOption = False) -> int:
    """Add the log-probabilities of several checkpoints, ours or RecBole's, and test the sum.

    Weights are chosen on validation unless `--weights=1,2` gives them. `--output=F.json` is the
    ensemble: `evaluate` and `recommend` take it in place of a checkpoint, and `leaderboard` ranks
    `F.result.json`. Other keys apply to all members, such as `--exclude_history=True`, and the
    ensemble keeps them. `--model=package.module:Class` names the class of members from outside.
    """
    return trained(context, _ensemble, quiet, resumes=False)


def _ensemble(settings: list[str]) -> None:
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.ensemble import make_ensemble
    from recbole_genrec.settings.parsing import parse_arguments
    from recbole_genrec.settings.plain import as_list

    keys: dict[str, Any] = parse_arguments(settings, TEXTS)
    refuse(keys, "model_class", "command")
    named = keys.pop("checkpoints", None)
    output = keys.pop("output", None) or "ensemble.json"
    weights = keys.pop("weights", None)
    model_class = keys.pop("model", None)
    if named is None:
        raise ConfigError("Which models? Give --checkpoints=a.pth,b.pth, the files of their runs.")
    if isinstance(weights, str):
        weights = split_words(weights)
    if weights is not None:
        weights = _numbers(as_list(weights))
    command = shlex.join(["recbole-genrec", *sys.argv[1:]])
    result = make_ensemble(_paths(named), output, weights, command, model_class, **keys)
    print_outcome({result["model"]: result})
    for member in result["members"]:
        print(f"  {member['model']:<24} weight {member['weight']:g}  {member['checkpoint']}")


def _paths(text: str) -> list[str]:
    """The checkpoints in ``a.pth,b.pth`` or ``[a.pth,b.pth]``."""
    from recbole_genrec.settings.parsing import parse_value

    listed = parse_value(text)
    if isinstance(listed, (list, tuple)):
        return [str(path) for path in listed]
    return split_words(text)


def _numbers(words: Sequence[Any]) -> list[float]:
    """The weights as numbers.

    Raises:
        ConfigError: one is no number.
    """
    from recbole_genrec.errors import ConfigError

    try:
        return [float(word) for word in words]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--weights={','.join(map(str, words))} must be numbers with commas, such as 1,0.5."
        ) from error


COMMAND = Command(
    "ensemble",
    ensemble,
    TRAINED,
    examples=(
        "recbole-genrec ensemble --checkpoints=saved/TimelineRec-ml-100k-1a2b3c4d.pth,"
        "saved/SASRec-ml-100k-5e6f7a8b.pth --output=both.json",
        "recbole-genrec evaluate --checkpoint=both.json --exclude_history=True",
    ),
    takes_settings=True,
    usage="--checkpoints=FILE,FILE [--key=value ...]",
    needs_arguments=True,
)
