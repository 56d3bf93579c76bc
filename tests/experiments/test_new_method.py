"""``recbole-genrec init-method``: what it writes runs as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import write_dataset

from recbole_genrec.cli import main


def python(*arguments):
    package = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": package},
    )


def test_the_skeleton_passes_its_test_and_trains(tmp_path, capsys):
    assert main(["init-method", "NextCode"]) == 0
    written = {"next_code.py", "NextCode.yaml", "test_next_code.py"}
    assert written == {file.name for file in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    assert all(name in printed for name in written)

    tested = python("pytest", "-q", "test_next_code.py")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "3 passed" in tested.stdout

    folder = write_dataset(tmp_path / "data")
    settings = ["--epochs=1", "--item_text_fields=[title]", f"--data_path={folder}"]
    trained = python(
        "recbole_genrec.cli", "run", "--model=next_code:NextCode", "--dataset=toy", *settings
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "| NextCode |" in trained.stdout


def test_lint_has_nothing_to_say_of_the_skeleton(tmp_path):
    """The templates are no Python files, so nothing else checks them."""
    pytest.importorskip("ruff")
    main(["init-method", "NextCode"])
    for command in (["check", "--select=E,F,W,N,B,UP"], ["format", "--check"]):
        done = python("ruff", *command, "--line-length=100", ".")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("next-code", "is no name of a class"), ("SASRec", "There is a model SASRec already")],
)
def test_names_that_cannot_be(name, message, capsys):
    assert main(["init-method", name]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_nothing_is_overwritten(capsys):
    Path("NextCode.yaml").write_text("mine: 1\n")
    assert main(["init-method", "NextCode"]) == 2
    assert "NextCode.yaml exists already" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["NextCode.yaml"]
