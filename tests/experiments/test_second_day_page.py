"""Every command and the program of docs/second-day.md, on a small shop."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from toy import TINY_T5, write_dataset

from recbole_genrec.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "second-day.md"
SMALL = [
    "--epochs=1",
    "--codebook_sizes=[8,8]",
    f"--backbone_config={TINY_T5['backbone_config']}",
    "--show_progress=False",
    "--gpu_id=",
]


def blocks(language: str) -> list[str]:
    """The blocks of a language on the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert all(line.startswith("recbole-genrec ") for line in lines)
    return [line.removeprefix("recbole-genrec ") for line in lines]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with ``dataset/shop``, and the checkpoint of the page's first command."""
    folder = tmp_path_factory.mktemp("shop")
    write_dataset(folder / "dataset", "shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*shlex.split(commands()[0]), *SMALL]) == 0
    (checkpoint,) = (folder / "saved").glob("TIGER-shop-*.pth")
    return folder, checkpoint


@pytest.mark.parametrize("command", commands()[1:])
def test_commands(shop, command, monkeypatch):
    folder, checkpoint = shop
    monkeypatch.chdir(folder)
    words = shlex.split(command.replace("$F", str(checkpoint)))
    if words[0] == "run":
        words += SMALL
    assert main(words) == 0


def test_the_program(shop, monkeypatch, tmp_path):
    folder, checkpoint = shop
    monkeypatch.chdir(folder)
    (program,) = blocks("python")
    names: dict = {"checkpoint": str(checkpoint)}
    exec(program, names)
    assert names["model"].recommend(["sku-1"], k=3)
    assert (folder / "with-new-items.pth").is_file()


def test_keys_and_options_of_the_page_exist(shop, monkeypatch):
    """Words of the tables, such as `--init_from`, are options of run or recommend."""
    from recbole_genrec.settings.classification import shared_keys

    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"--([a-z_]+)", text)) - {"genrec"}
    options = "checkpoint users output user top exclude_seen history data_path"
    files = ("candidate_file", "excluded_file")
    known = {*shared_keys(), *options.split(), *files, "model", "dataset", "backbone", "resume"}
    assert named <= known, named - known
