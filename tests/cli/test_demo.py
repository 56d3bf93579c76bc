"""``recbole-genrec demo``: its shop can be learned, its report is written, within its minute."""

from __future__ import annotations

import time
import webbrowser
from collections import Counter
from pathlib import Path

from recbole_genrec.cli import main
from recbole_genrec.data.preparation.toy_shop import HOBBIES, N_CUSTOMERS, NAME, write_toy_shop
from recbole_genrec.experiments import demo


def rows(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]


def test_the_shop(tmp_path):
    folder = write_toy_shop(tmp_path / "a")
    items, purchases = rows(folder / f"{NAME}.item"), rows(folder / f"{NAME}.inter")
    assert len(items) == len({row[1] for row in items}) == 50
    assert len({row[0] for row in purchases}) == N_CUSTOMERS
    assert {row[2] for row in items} == set(HOBBIES)
    again = write_toy_shop(tmp_path / "b")
    for name in (f"{NAME}.item", f"{NAME}.inter"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_the_next_product_of_a_hobby_is_the_likeliest(tmp_path):
    purchases = rows(write_toy_shop(tmp_path) / f"{NAME}.inter")
    pairs = Counter(
        (before[1], after[1])
        for before, after in zip(purchases, purchases[1:], strict=False)
        if before[0] == after[0]
    )
    of_first = Counter({after: count for (before, after), count in pairs.items() if before == "p1"})
    assert of_first.most_common(1)[0][0] == "p2"


def test_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    assert main(["demo", "--no-open", "--quiet"]) == 0
    assert time.process_time() - started < 60
    cells = {}
    for line in capsys.readouterr().out.splitlines():
        words = [cell.strip("* ") for cell in line.split("|")[1:-1]]
        if words:
            cells[words[0]] = words
    place = cells["model"].index("ndcg@10")
    assert float(cells["TimelineRec"][place]) > 3 * float(cells["Pop"][place])
    assert "Espresso machine" in Path("demo/report.html").read_text(encoding="utf-8")


def test_the_report_is_opened(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    results = {"TimelineRec": {"checkpoint": "saved/T.pth"}}
    monkeypatch.setattr(demo, "run_demo", lambda *_: (results, page))
    monkeypatch.setattr("recbole_genrec.cli.commands.demo.print_outcome", lambda _: None)
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["demo"]) == 0
    assert opened == [page.resolve().as_uri()]
