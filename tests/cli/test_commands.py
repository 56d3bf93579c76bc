"""Every command has help with examples, and the command line says plainly what is wrong."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.cli.commands import COMMANDS
from recbole_genrec.runtime.interrupts import Interrupted

NAMES = [command.name for command in COMMANDS]


def complete(words: str) -> list[str]:
    """What bash is offered after ``words``."""
    environment = os.environ | {
        "_RECBOLE_GENREC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(shlex.split(words)) - int(not words.endswith(" "))),
    }
    command = [sys.executable, "-m", "recbole_genrec"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def test_all_commands_are_listed(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in NAMES if not re.search(rf"│ {name} ", shown)] == []


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_help_shows_examples_of_the_command(command, capsys):
    assert main([command.name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: recbole-genrec {command.name}" in shown
    assert command.examples[0].split()[1] == command.name
    for line in command.examples:
        program, name = line.split()[:2]
        assert program == "recbole-genrec" and name in NAMES  # the next step may be another one
        assert f"  {line}\n" in shown


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_options_have_help_and_say_so_with_underscores(command, capsys):
    main([command.name, "--help"])
    assert not re.search(r"--(?!no-)[a-z]+-[a-z]", capsys.readouterr().out)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"recbole-genrec {recbole_genrec.__version__}\n"


def test_without_arguments_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "Usage: recbole-genrec" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "No such command 'rum'. Did you mean 'run'?"),
        (["recommend"], "Missing option '--checkpoint'"),
        (["leaderboard", "out", "--bogus"], "No such option: --bogus"),
        (["recommend", "--checkpoint=a", "--user=1", "--history=2"], "give one of --user"),
        (["recommend", "--checkpoint=a"], "give one of --user"),
        (["recommend", "--checkpoint=a", "--user=1", "--top=many"], "'--top'"),
        (["benchmark", "--seeds=[1]"], "Missing argument"),
    ],
)
def test_a_wrong_command_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert message in shown.err and "--help" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("word", ["foo", "-x", "--", "--=3"])
def test_settings_are_read_as_before(word, capsys):
    assert main(["run", "--model=Pop", "--dataset=toy", word]) == 2
    shown = capsys.readouterr().err
    assert "ConfigError" in shown and "Traceback" not in shown


def test_settings_stand_before_or_after_an_argument(capsys):
    assert main(["keys", "--beam_width=40", "TIGER"]) == 0
    before = capsys.readouterr().out
    assert main(["keys", "TIGER", "--beam_width=40"]) == 0
    assert capsys.readouterr().out == before


def test_shell_completion():
    assert complete("recbole-genrec le") == ["leaderboard"]
    assert complete("recbole-genrec recommend --all") == ["--all_users"]


@pytest.mark.parametrize(
    ("name", "resumes"),
    [("evaluate", False), ("ensemble", False), ("tokenize", True), ("tune", True)],
)
def test_the_command_after_a_signal_is_one_that_works(name, resumes, monkeypatch, capsys):
    def stop(_):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(f"recbole_genrec.cli.commands.{name}._{name}", stop)
    assert main([name, "--seed=3"]) == 143
    shown = capsys.readouterr().err
    words = f"  recbole-genrec {name} --seed=3"
    if resumes:
        assert f"this continues from there:\n{words} --resume\n" in shown
    else:
        assert f"This starts again from the beginning:\n{words}\n" in shown
