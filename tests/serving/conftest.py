"""A small trained model for the tests of the service."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from toy import SMALL, TINY_OF, write_dataset

from recbole_genrec.experiments.run import run_recbole_genrec


class Checkpoints(NamedTuple):
    """Checkpoints of models that were trained on the same data.

    Two of them are RecBole's.
    """

    tiger: str
    setrec: str
    sasrec: str
    pop: str
    folder: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Checkpoints:
    """A model with codes, one with vectors, a sequential one of RecBole's and a general one."""
    folder = write_dataset(tmp_path_factory.mktemp("serving"))
    item_file = folder / "toy" / "toy.item"
    text = item_file.read_text().replace("soft soap no 16", "soft <b>soap</b> & no 16")
    item_file.write_text(text)
    files = []
    for model in ("TIGER", "SETRec", "SASRec", "Pop"):
        settings = {
            **TINY_OF.get(model, SMALL),
            "data_path": str(folder),
            "checkpoint_dir": str(folder / "saved"),
            "cache_dir": str(folder / "cache"),
            "epochs": 1,
        }
        if model == "TIGER":
            settings["beam_width"] = 20
        files.append(run_recbole_genrec(model, "toy", config_dict=settings)["checkpoint"])
    return Checkpoints(*files, folder)
