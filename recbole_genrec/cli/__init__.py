"""The ``recbole-genrec`` command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from recbole_genrec.cli.parsers import make_parser
from recbole_genrec.errors import GenRecError
from recbole_genrec.runtime.interrupts import Interrupted, handled_signals

RUN_HELP = """usage: recbole-genrec run --model=STORE --dataset=ml-100k [--key=value ...]

Trains and tests one model, or several on the same split (--model=STORE,SASRec). Keys are those of
RecBole and of properties/; --Model.key=value is meant for one model, --preset=paper takes the
published setting, --resume continues an interrupted run."""

TUNE_HELP = """usage: recbole-genrec tune --model=SASRec --dataset=ml-100k --params_file=F
                           [--key=value ...]

Searches parameters with RecBole's HyperTuning. F holds lines like
'learning_rate choice [0.01,0.001]'. --algo=exhaustive|random|bayes, --max_evals=10, --early_stop=10
(trials without improvement), --output_file=tuning.json; other keys are those of run."""

EVALUATE_HELP = """usage: recbole-genrec evaluate --checkpoint=F [--key=value ...]

Tests the checkpoint of a run again; nothing is trained. Keys that may differ from the run:
beam_width, score_type, score_mode, constraint, candidate_file, topk, metrics, data_path and others
that the weights do not depend on. --backbone=F names the language model's folder when it has moved.
--result_file=F writes a JSON."""

KEYS_HELP = """usage: recbole-genrec keys [METHOD] [--dataset=ml-100k] [--key=value ...]

Prints every key that METHOD takes: its value, what it affects, the file that sets it, its meaning
and range. With --dataset the values are those for that dataset; other keys, like --preset=paper or
--tokenizer=rqvae, change the values as in run. Without METHOD: the keys that all methods share,
then those of every method and of every tokenizer."""


def run(argv: list[str] | None = None) -> int:
    """``recbole-genrec run --model=STORE --dataset=ml-100k --key=value ...``.

    Also the body of ``run_recbole_genrec.py``.
    """
    if argv is None:
        argv = sys.argv[1:]
    return _with_keys("run", _run, argv, RUN_HELP)


def _run(argv: list[str]) -> None:
    from recbole_genrec.experiments.run import run_recbole_genrec
    from recbole_genrec.report.console import results_table
    from recbole_genrec.runtime.processes import started_with_others

    result = run_recbole_genrec(argv=argv)
    if started_with_others() and os.environ["RANK"] != "0":
        return  # torchrun starts this command once a process
    results = result
    if "test_result" in result:  # of one model
        results = {result["model"]: result}
    print(results_table(results))


def tune(argv: list[str]) -> int:
    """``recbole-genrec tune --model=SASRec --dataset=ml-100k --params_file=F --key=value ...``."""
    return _with_keys("tune", _tune, argv, TUNE_HELP)


def _tune(argv: list[str]) -> None:
    from recbole_genrec.experiments.tuning import tune as search

    best = search(argv)
    print(f"Best of {len(best['trials'])} trials: {best['best_params']}")
    print(f"validation {best['best_valid_score']}, test {best['test_result']}")


def evaluate(argv: list[str]) -> int:
    """``recbole-genrec evaluate --checkpoint=F --key=value ...``."""
    return _with_keys("evaluate", _evaluate, argv, EVALUATE_HELP)


def _evaluate(argv: list[str]) -> None:
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.trained import evaluate as test_again
    from recbole_genrec.report.console import results_table
    from recbole_genrec.settings.parsing import parse_arguments
    from recbole_genrec.storage.artefacts import write_json
    from recbole_genrec.storage.atomic import check_writable

    keys: dict[str, Any] = parse_arguments(argv)
    checkpoint = keys.pop("checkpoint", None)
    result_file = keys.pop("result_file", None)
    model_class = keys.pop("model", None)
    if checkpoint is None:
        raise ConfigError("Which checkpoint? Give --checkpoint=F, the .pth file of a run.")
    if result_file is not None:
        check_writable(result_file)
    result = test_again(checkpoint, model_class, **keys)
    print(results_table({result["model"]: result}))
    masked = "yes" if result["history_masked"] else "no"
    print(f"  {'history masked':<24} {masked}")
    unreachable = result["unreachable_targets"]
    if unreachable is not None:
        print(f"  {'targets in their history':<24} {unreachable['test']}")
    for name, value in result["report"].get("search", {}).items():
        print(f"  {name:<24} {value}")
    if result_file is not None:
        write_json(result_file, result)


def keys(argv: list[str]) -> int:
    """``recbole-genrec keys METHOD --dataset=ml-100k --key=value ...``."""
    if argv and argv[0] in ("-h", "--help"):
        print(KEYS_HELP)
        return 0
    from recbole_genrec.experiments.key_list import key_list

    method = None
    if argv and not argv[0].startswith("--"):
        method, *argv = argv
    try:
        print(key_list(method, argv))
    except GenRecError as error:
        return _show_error(error)
    return 0


def _with_keys(name: str, body: Callable[[list[str]], None], argv: list[str], usage: str) -> int:
    """Carry out a command that takes ``--key=value``.

    Args:
        name: of the command.
        body: what it does.
        argv: its arguments; none, or ``--help``, prints the usage.
        usage: its help.

    Returns:
        The exit status: 2 for an error that the user can mend, 130 or 143 after SIGINT or SIGTERM.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    try:
        from recbole_genrec.runtime.memory import keep_freed_memory
        from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

        keep_freed_memory()
        quiet_pandas_warnings()
        with handled_signals():
            body(argv)
    except GenRecError as error:
        return _show_error(error)
    except Interrupted as signal:
        others = [argument for argument in argv if argument != "--resume"]
        command = shlex.join(["recbole-genrec", name, *others, "--resume"])
        print(
            f"\nStopped by {signal}. What was saved is kept; this continues from there:\n"
            f"  {command}",
            file=sys.stderr,
        )
        return signal.status
    return 0


def _show_error(error: GenRecError) -> int:
    print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
    return 2


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def benchmark(file: str, changes: list[str]) -> int:
    """Carry out a benchmark file and print its leaderboard; 1 when a run failed."""
    from recbole_genrec.experiments.benchmark import run_benchmark
    from recbole_genrec.experiments.benchmark_file import read_benchmark
    from recbole_genrec.report.leaderboard import make_leaderboard
    from recbole_genrec.settings.parsing import parse_arguments

    plan = read_benchmark(file, **parse_arguments(changes))
    try:
        failed = run_benchmark(plan)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues.", file=sys.stderr)
        return 130
    print(make_leaderboard([plan.output], output=plan.output))
    return 1 if failed else 0


def init_method(name: str) -> int:
    """Write the skeleton of a new method and say how to go on."""
    from recbole_genrec.experiments.new_method import write_new_method

    method, settings, test = write_new_method(name)
    print(f"Written: {method}, {settings}, {test}")
    print(f"Try:     recbole-genrec run --model={method.stem}:{name} --dataset=ml-100k")
    return 0


def leaderboard(args: argparse.Namespace) -> int:
    """Print the leaderboard of finished runs."""
    from recbole_genrec.report.leaderboard import make_leaderboard

    print(make_leaderboard(args.paths, args.baseline, args.output))
    return 0


def use_checkpoint(args: argparse.Namespace) -> int:
    """Recommend from a checkpoint, export it, or let it describe items."""
    from recbole_genrec.experiments.trained import export, inspect
    from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

    quiet_pandas_warnings()
    changes: dict[str, Any] = {"model_class": args.model}
    if args.data_path:
        changes["data_path"] = args.data_path
    if args.backbone:
        changes["backbone"] = args.backbone
    if args.command == "inspect":
        for row in inspect(args.checkpoint, _words(args.item), **changes):
            print(f"{row['item']}  {row['codes']}")
            print(f"  generated: {row['generated']}")
            print(f"  true:      {row['text']}")
        return 0
    if args.command == "export":
        export(args.checkpoint, args.to, args.merge, **changes)
        print(f"Exported to {args.to}")
        return 0
    return _recommend(args, changes)


def _recommend(args: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Print the best items for one user or history, or write those of many users to a file."""
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.trained import recommend, recommend_to_file

    users = None if args.user is None else _words(args.user)
    if args.output is not None:
        if args.history is not None:
            raise ConfigError("--output takes lists of users: give --user=u1,u2 or --all_users.")
        n_users = recommend_to_file(
            args.checkpoint, args.output, users, args.top, args.candidate_file, **changes
        )
        print(f"Lists of {n_users} users written to {args.output}")
        return 0
    if args.all_users or (users is not None and len(users) > 1):
        raise ConfigError("The lists of several users go to a file: add --output=lists.tsv.")

    history = _words(args.history) if args.history is not None else None
    user = users[0] if users else None
    rows = recommend(args.checkpoint, user, history, args.top, args.candidate_file, **changes)
    for row in rows:
        print(f"{row['rank']:>3}  {row['item']:<16}  {row['score']:9.4f}  {row['text']}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Carry out a command; the exit status is 2 for an error that the user can mend."""
    if argv is None:
        argv = sys.argv[1:]
    with_keys = {"run": run, "tune": tune, "evaluate": evaluate, "keys": keys}
    if argv and argv[0] in with_keys:
        return with_keys[argv[0]](argv[1:])
    parser = make_parser()
    args, others = parser.parse_known_args(argv)
    if others and args.command != "benchmark":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        return _carry_out(args, others)
    except GenRecError as error:
        return _show_error(error)


def _carry_out(args: argparse.Namespace, others: list[str]) -> int:
    """Carry out a command whose arguments are parsed."""
    if args.command == "prepare":
        from recbole_genrec.data.preparation.prepare import main as prepare

        return prepare(args) or 0
    if args.command == "benchmark":
        return benchmark(args.file, others)
    if args.command == "leaderboard":
        return leaderboard(args)
    if args.command == "init-method":
        return init_method(args.name)
    return use_checkpoint(args)
