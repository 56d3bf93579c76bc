"""The commands and programs of docs/own-data.md and docs/recommend.md, as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from recbole_genrec.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
SMALL = ["--epochs=1", "--d_model=32", "--n_heads=2", "--codebook_sizes=[8,8]", "--beam_width=20"]


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "bash")).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip()]


def run(words: list[str]) -> None:
    if "<key>" in " ".join(words):
        checkpoint = next(Path("saved").glob("TimelineRec-shop-????????.pth"))
        key = checkpoint.stem.rpartition("-")[2]
        words = [word.replace("<key>", key) for word in words]
    if words[0] == "run":
        words = [*words, *SMALL]
    assert main(words) == 0, words


@pytest.fixture
def shop_files():
    """The tables that the pages name, with numbers of customers and a new day."""
    rows = ["customer,sku,ts"]
    for user in range(30):
        rows += [f"c{user},00{(user + step) % 24},{1_700_000_000 + step}" for step in range(6)]
    Path("clicks.csv").write_text("\n".join(rows) + "\n")
    items = ["sku,title,brand,price"]
    items += [f'00{item},"Lamp, ""no {item}""",brand {item % 3},{item}.50' for item in range(24)]
    Path("items.csv").write_text("\n".join(items) + "\n")
    Path("day2.csv").write_text("customer,sku,ts\nc77,003,1700000099\nc77,004,1700000100\n")
    Path("new.csv").write_text('sku,title,brand,price\n0099,"Lamp, new",brand 1,3\n')


def test_the_pages_run(shop_files, capsys):
    for words in commands("own-data.md"):
        run(words)
    assert set(pd.read_parquet("recs.parquet").user_id) == {"c77"}
    for text in blocks("own-data.md", "python"):
        exec(compile(text, "own-data.md", "exec"), {})
    for words in commands("recommend.md"):
        run(words)
    capsys.readouterr()
    for text in blocks("recommend.md", "python"):
        exec(compile(text, "recommend.md", "exec"), {})
    assert "user_id" in capsys.readouterr().out
    assert pd.read_parquet("all.parquet").user_id.nunique() == 31
