"""Files that the documentation names by their path are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "recbole_genrec|properties|benchmarks|docs|tests|examples"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    names = re.findall(rf"`((?:{ROOMS})/[\w/.-]+\.\w+)`", text)
    assert [name for name in names if not (ROOT / name).exists()] == []
