"""README.md is short, its links lead somewhere, and its commands and programs run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recbole_genrec.cli import main
from recbole_genrec.cli.commands import COMMANDS
from recbole_genrec.config import GenRecConfig
from recbole_genrec.experiments.benchmark_file import read_benchmark

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += [ROOT / "dataset" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ["--epochs=1", "--show_progress=False"]
FEW_USERS = "--user_inter_num_interval=[20,24]"
GENERATED = ("methods/", "tokenizers/", "results/", "cli.md", "contributing.md", "security.md")
"""Pages that docs/hooks.py makes; ``mkdocs build --strict`` checks links to them."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of_command(name: str) -> list[list[str]]:
    return [words[1:] for words in commands(README) if words[:2] == ["recbole-genrec", name]]


@pytest.fixture
def shop() -> None:
    """The tables that the page names."""
    rows = ["customer,sku,ts"]
    for user in range(30):
        rows += [f"c{user},s{(user + step) % 24},{1_700_000_000 + step}" for step in range(6)]
    Path("clicks.csv").write_text("\n".join(rows) + "\n")
    items = ["sku,title,brand", *(f"s{item},Lamp {item},brand {item % 3}" for item in range(24))]
    Path("items.csv").write_text("\n".join(items) + "\n")


def test_it_is_short():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if target.startswith(("http://", "https://", *GENERATED)):
            continue
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    names = {command.name for command in COMMANDS}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "recbole-genrec":
            assert words[1] in names or words[1].startswith("-"), words
        if words[0] == "make":
            assert words[1] in targets, words


def test_the_demo_stands_there():
    assert of_command("demo") == [["demo"]]  # tests/cli/test_demo.py runs it


def test_the_shop(shop, capsys):
    (bring,) = of_command("import")
    assert main(bring) == 0
    (train,) = [words for words in of_command("run") if "--dataset=shop" in words]
    assert main([*train, *SMALL, "--codebook_sizes=[8,8]", "--d_model=32"]) == 0
    (lists,) = of_command("recommend")
    key = next(Path("saved").glob("TimelineRec-shop-????????.pth")).stem.rpartition("-")[2]
    assert main([word.replace("<key>", key) for word in lists]) == 0
    assert len(Path("lists.csv").read_text().splitlines()) > 30
    (serve,) = of_command("serve")  # tests/serving runs it
    assert Path(serve[1].partition("=")[2].replace("<key>", key)).is_file()


def test_the_lists_of_what_there_is(capsys):
    for name in ("models", "tokenizers", "datasets", "keys"):
        (words,) = of_command(name)
        assert main(words) == 0
    assert "LETTER" in capsys.readouterr().out


def test_the_settings_of_a_papers_table():
    tables = [words for words in of_command("run") if "--dataset=shop" not in words][:2]
    for words in tables:
        (models,) = [word.partition("=")[2] for word in words if word.startswith("--model=")]
        others = [word for word in words[1:] if not word.startswith("--model=")]
        for model in models.split(","):
            assert GenRecConfig(model, argv=[f"--model={model}", *others]).model == model
    (benchmark,) = of_command("benchmark")
    assert read_benchmark(ROOT / benchmark[1]).runs


def test_a_method_of_ones_own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    (skeleton,) = of_command("init-method")
    assert main(skeleton) == 0
    (train,) = [words for words in of_command("run") if "--model=next_code:NextCode" in words]
    assert main([*train, *SMALL, FEW_USERS]) == 0


def test_the_program(capsys):
    (text,) = blocks(README, "python")
    settings = '{"epochs": 1, "user_inter_num_interval": "[20,24]", "show_progress": False}'
    assert '{"epochs": 3}' in text
    names: dict = {}
    exec(compile(text.replace('{"epochs": 3}', settings), "README.md", "exec"), names)
    assert names["result"]["model"] == "TimelineRec"
    assert len(names["model"].recommend(["242"], k=5)) == 5


@pytest.mark.slow
def test_the_table_runs():
    (words,) = [words for words in of_command("run") if "--model=STORE,SASRec,Pop" in words]
    assert main([*words, *SMALL, FEW_USERS, "--STORE.tokenizer_epochs=1"]) == 0
