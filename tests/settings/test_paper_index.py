"""The page of papers names every published setting, and its commands are settings that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recbole_genrec.config import GenRecConfig
from recbole_genrec.settings.property_files import properties_folder

PAGE = (Path(__file__).parents[2] / "docs" / "paper-index.md").read_text(encoding="utf-8")
PRESETS = sorted(path.stem for path in (properties_folder() / "paper").glob("*.yaml"))
COMMANDS = re.findall(r"`recbole-genrec (run [^`]+)`", PAGE)


@pytest.mark.parametrize("method", PRESETS)
def test_each_preset_has_a_row_a_section_and_a_command(method):
    (row,) = [line for line in PAGE.splitlines() if f"properties/paper/{method}.yaml`" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 5 and all(cells)  # paper, method, preset, run here, unverified
    anchor = re.search(r"\(#([\w-]+)\)", cells[0]).group(1)
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert anchor in {title.lower().replace(" ", "-") for title in titles}
    assert any(f"--model={method} " in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_settings(command, tmp_path):
    words = [word.replace("FOLDER", str(tmp_path)) for word in shlex.split(command)[1:]]
    model = next(word.partition("=")[2] for word in words if word.startswith("--model="))
    assert GenRecConfig(model, argv=words).model == model
