"""The programs of docs/python.md, as they stand there, with few users."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"

SMALL = '"epochs": 1, "d_model": 32, "tokenizer": "random"'


def test_the_programs_of_the_page_run(monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(programs) == 3
    names: dict = {}
    for program in programs:
        program = program.replace(
            '"epochs": 1', '"epochs": 1, "d_model": 32, "tokenizer": "random"'
        )
        exec(compile(program, PAGE.name, "exec"), names)
    assert pd.read_parquet("lists.parquet").user_id.nunique() == 3
    assert set(names["frame"].user_id) == {"1", "2", "3"}
    assert Path("report.html").is_file() and Path("both.json").is_file()
