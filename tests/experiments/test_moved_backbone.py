"""A language model's folder that has moved, or is gone, after the training."""

from __future__ import annotations

from pathlib import Path

import pytest
from language_models import save_base
from toy import TINY_OF, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import BackboneError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, recommend


# case 48
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_folder_moves(tmp_path, tuning):
    folder = write_dataset(tmp_path / "data")
    settings = {
        **TINY_OF["LCRec"],
        "data_path": str(folder),
        "epochs": 1,
        "tuning": tuning,
        "tasks": ["seqrec", "index2item"],
        "backbone": save_base(tmp_path / "lm", "llama"),
    }
    settings.pop("backbone_config")
    settings.pop("text_vocab_size")
    run = run_recbole_genrec("LCRec", "toy", config_dict=settings)
    checkpoint = run["checkpoint"]
    before = recommend(checkpoint, history=["i1"])
    Path(tmp_path / "lm").rename(tmp_path / "moved")
    moved = f"--backbone={tmp_path / 'moved'}"
    command = ["recommend", f"--checkpoint={checkpoint}", "--history=i1"]
    if tuning == "lora":
        with pytest.raises(BackboneError, match="does not exist"):
            recommend(checkpoint, history=["i1"])
        assert main([*command, moved]) == 0
        options = {"backbone": str(tmp_path / "moved")}
        assert recommend(checkpoint, history=["i1"], **options) == before
        assert main(["evaluate", f"--checkpoint={checkpoint}", moved]) == 0
        assert (
            main(["export", f"--checkpoint={checkpoint}", f"--to={tmp_path / 'out'}", moved]) == 0
        )
        assert main(["inspect", f"--checkpoint={checkpoint}", "--item=i1", moved]) == 0
        return
    assert recommend(checkpoint, history=["i1"]) == before
    model = load_data_and_model(checkpoint).model
    model.save("again.pth")
    assert recommend("again.pth", history=["i1"]) == before
