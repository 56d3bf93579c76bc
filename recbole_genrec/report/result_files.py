"""Where the result of a run lies, and the ranks beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.report.ranks import ADVICE, UserRanks, digest_of_test, ranks_folder


def beside_checkpoint(checkpoint: str | os.PathLike[str]) -> Path:
    """The result file of a run that was told no other.

    Args:
        checkpoint: of the run.
    """
    return Path(checkpoint).with_suffix(".json")


def result_file(result: Mapping[str, Any]) -> Path:
    """Where a run wrote its result.

    Args:
        result: of a run that kept its checkpoint or was told a ``result_file``.

    Raises:
        ConfigError: the run wrote no file.
    """
    file = result["config"].get("result_file")
    if file is not None:
        return Path(file)
    if not result.get("checkpoint"):
        raise ConfigError("The run wrote no result file; give it --result_file=X.json.")
    return beside_checkpoint(result["checkpoint"])


def ranks_of(result: Mapping[str, Any], file: Path) -> UserRanks | None:
    """The ranks that a run kept beside its result, or ``None``.

    Args:
        result: of the run.
        file: where it lies now.

    Raises:
        ArtefactError: they are damaged, or those of another result.
    """
    if not result.get("ranks"):
        return None
    folder = file.parent / str(result["ranks"])
    if not folder.is_dir():  # the result file was renamed together with its ranks
        folder = ranks_folder(file)
    if not folder.is_dir():
        return None
    ranks = UserRanks.load(folder)
    if ranks.test_digest not in ("", digest_of_test(result["test_result"])):
        raise ArtefactError(
            f"{folder} holds the ranks of another test than that of {file}. {ADVICE}"
        )
    return ranks
