"""The commands of docs/protocol.md, on the toy dataset."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from toy import TINY_T5, write_dataset

from recbole_genrec.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^recbole-genrec (.*)$", TEXT, re.MULTILINE)
SMALL = ["--epochs=1", "--show_progress=False", "--gpu_id=", "--MAX_ITEM_LIST_LENGTH=8"]
OF_MODEL = {
    "TIGER": [
        "--codebook_sizes=[8,8]",
        f"--backbone_config={TINY_T5['backbone_config']}",
        "--tokenizer=random",
    ],
    "SASRec,Pop": ["--SASRec.hidden_size=16", "--SASRec.inner_size=16"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, tmp_path):
    write_dataset(tmp_path / "data")
    words = shlex.split(command.replace("ml-100k", "toy"))
    (model,) = [word.partition("=")[2] for word in words if word.startswith("--model=")]
    words += [*SMALL, *OF_MODEL[model], f"--data_path={tmp_path / 'data'}"]
    assert main(words) == 0


def test_there_are_commands():
    assert len(COMMANDS) >= 2
