"""The package is started as a module, and RecBole is added where pip alone cannot do it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import recbole_genrec
from recbole_genrec import install


def started(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_package_is_a_command():
    shown = started("recbole_genrec", "run", "--help")
    assert shown.returncode == 0
    assert shown.stdout.split()[:3] == ["Usage:", "recbole-genrec", "run"]


def test_an_installed_recbole_stays():
    done = started("recbole_genrec.install")
    assert (done.returncode, done.stdout) == (0, "RecBole is installed already.\n")


def test_recbole_is_installed_without_its_dependencies(monkeypatch):
    commands = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: name == "pip" or None)
    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.main(["--dry-run"]) == 3
    pip = [sys.executable, "-m", "pip", "install"]
    assert commands == [[*pip, "--no-deps", "--dry-run", "recbole==1.2.1"]]


def test_without_pip_the_command_to_use_is_named(monkeypatch, capsys):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    assert install.main([]) == 2
    assert "uv pip install --no-deps recbole==1.2.1" in capsys.readouterr().err


def test_nothing_but_the_standard_library_is_needed_to_install():
    code = (
        "import sys, recbole_genrec.install; print(*{name.split('.')[0] for name in sys.modules})"
    )
    # -S leaves out the folder of installed packages, and an editable install with it
    root = str(Path(recbole_genrec.__file__).parents[1])
    modules = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "recbole_genrec" in modules
    assert not {"numpy", "torch", "recbole", "filelock"} & set(modules)
