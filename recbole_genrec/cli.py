"""The ``recbole-genrec`` command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable

from recbole_genrec.errors import GenRecError
from recbole_genrec.runtime.interrupts import Interrupted, handled_signals

RUN_HELP = """usage: recbole-genrec run --model=STORE --dataset=ml-100k [--key=value ...]

Trains and tests one model, or several on the same split (--model=STORE,SASRec). Keys are those of RecBole and of properties/;
--Model.key=value is meant for one model, --preset=paper takes the published setting, --resume continues an interrupted run."""

TUNE_HELP = """usage: recbole-genrec tune --model=SASRec --dataset=ml-100k --params_file=F [--key=value ...]

Searches parameters with RecBole's HyperTuning. F holds lines like 'learning_rate choice [0.01,0.001]'. --algo=exhaustive|random|bayes,
--max_evals=10, --early_stop=10 (trials without improvement), --output_file=tuning.json; other keys are those of run."""


EVALUATE_HELP = """usage: recbole-genrec evaluate --checkpoint=F [--key=value ...]

Tests the checkpoint of a run again; nothing is trained. Keys that may differ from the run: beam_width, score_type, score_mode, constraint,
candidate_file, topk, metrics, data_path and others that the weights do not depend on. --result_file=F writes a JSON."""

KEYS_HELP = """usage: recbole-genrec keys [METHOD] [--dataset=ml-100k] [--key=value ...]

Prints every key that METHOD takes: its value, what it affects, the file that sets it, its meaning and range. With --dataset the values are
those for that dataset; other keys, like --preset=paper or --tokenizer=rqvae, change the values as in run. Without METHOD: the keys that all
methods share."""


MODEL_HELP = "package.module:Class of a method from outside this package"


def run(argv: list[str] | None = None) -> int:
    """``recbole-genrec run --model=STORE --dataset=ml-100k --key=value ...``; also the body of ``run_recbole_genrec.py``."""

    def body(argv: list[str]) -> None:
        from recbole_genrec.experiments.run import run_recbole_genrec
        from recbole_genrec.report.console import results_table
        from recbole_genrec.runtime.processes import started_with_others

        result = run_recbole_genrec(argv=argv)
        if (
            not started_with_others() or os.environ["RANK"] == "0"
        ):  # torchrun starts this command once a process
            print(results_table({result["model"]: result} if "test_result" in result else result))

    return _with_keys("run", body, sys.argv[1:] if argv is None else argv, RUN_HELP)


def tune(argv: list[str]) -> int:
    """``recbole-genrec tune --model=SASRec --dataset=ml-100k --params_file=F --key=value ...``"""

    def body(argv: list[str]) -> None:
        from recbole_genrec.experiments.tuning import tune as search

        best = search(argv)
        print(f"Best of {len(best['trials'])} trials: {best['best_params']}")
        print(f"validation {best['best_valid_score']}, test {best['test_result']}")

    return _with_keys("tune", body, argv, TUNE_HELP)


def evaluate(argv: list[str]) -> int:
    """``recbole-genrec evaluate --checkpoint=F --key=value ...``"""

    def body(argv: list[str]) -> None:
        from recbole_genrec.errors import ConfigError
        from recbole_genrec.experiments.trained import evaluate as test_again
        from recbole_genrec.report.console import results_table
        from recbole_genrec.settings.parsing import parse_arguments
        from recbole_genrec.storage.artefacts import write_json
        from recbole_genrec.storage.atomic import check_writable

        keys = parse_arguments(argv)
        checkpoint, path = keys.pop("checkpoint", None), keys.pop("result_file", None)
        model_class = keys.pop("model", None)
        if checkpoint is None:
            raise ConfigError("Which checkpoint? Give --checkpoint=F, the .pth file of a run.")
        if path is not None:
            check_writable(path)
        result = test_again(checkpoint, model_class, **keys)
        print(results_table({result["model"]: result}))
        for name, value in result["report"].get("search", {}).items():
            print(f"  {name:<24} {value}")
        if path is not None:
            write_json(path, result)

    return _with_keys("evaluate", body, argv, EVALUATE_HELP)


def keys(argv: list[str]) -> int:
    """``recbole-genrec keys METHOD --dataset=ml-100k --key=value ...``"""
    if argv[:1] in (["-h"], ["--help"]):
        print(KEYS_HELP)
        return 0
    from recbole_genrec.experiments.key_list import key_list

    method = None
    if argv and not argv[0].startswith("--"):
        method, argv = argv[0], argv[1:]
    try:
        print(key_list(method, argv))
    except GenRecError as error:
        return _said(error)
    return 0


def _with_keys(name: str, body: Callable[[list[str]], None], argv: list[str], usage: str) -> int:
    """A command that takes ``--key=value``: its help without arguments, one line for an error that the user can mend, and how to go on
    after SIGINT or SIGTERM (exit status 130 or 143)."""
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
        return _said(error)
    except Interrupted as signal:
        again = shlex.join(
            [
                "recbole-genrec",
                name,
                *(argument for argument in argv if argument != "--resume"),
                "--resume",
            ]
        )
        print(
            f"\nEnded by {signal}. What is saved is kept; this continues from there:\n  {again}",
            file=sys.stderr,
        )
        return signal.status
    return 0


def _said(error: GenRecError) -> int:
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


def main(argv: list[str] | None = None) -> int:
    """Dispatch to a sub-command; the exit status is 2 for an error that the user can mend."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["run"]:
        return run(argv[1:])
    if argv[:1] == ["tune"]:
        return tune(argv[1:])
    if argv[:1] == ["evaluate"]:
        return evaluate(argv[1:])
    if argv[:1] == ["keys"]:
        return keys(argv[1:])
    parser = argparse.ArgumentParser(
        prog="recbole-genrec",
        description="Generative recommendation with semantic ids, inside RecBole.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run", help="train and test: run --model=STORE --dataset=ml-100k --key=value ..."
    )
    wanted = commands.add_parser("recommend", help="the best next items for a user or a history")
    wanted.add_argument(
        "--checkpoint", required=True, help="the .pth file of a run, or the folder of an export"
    )
    who = wanted.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="raw user id of the dataset")
    who.add_argument("--history", help="raw item ids, oldest first, separated by commas")
    wanted.add_argument("--top", type=int, default=10, help="how many items (default 10)")
    wanted.add_argument(
        "--candidate_file",
        help="choose among the raw item ids in this file, one a line (default: all items)",
    )
    wanted.add_argument("--model", help=MODEL_HELP)
    wanted.add_argument(
        "--data_path", help="folder that holds the dataset's folder, when it has moved"
    )
    commands.add_parser(
        "evaluate", help="test a checkpoint again: evaluate --checkpoint=F --beam_width=50 ..."
    )
    exported = commands.add_parser(
        "export",
        help="a trained language model as peft adapter and codes, or merged into one model",
    )
    exported.add_argument("--checkpoint", required=True, help="the .pth file that a run wrote")
    exported.add_argument("--to", required=True, help="new folder")
    exported.add_argument(
        "--merge",
        action="store_true",
        help="one model for transformers, whose vocabulary holds the codes",
    )
    exported.add_argument("--model", help=MODEL_HELP)
    exported.add_argument(
        "--data_path", help="folder that holds the dataset's folder, when it has moved"
    )
    told = commands.add_parser(
        "inspect",
        help="what LCRec says about an item when it sees its codes alone, beside the true title",
    )
    told.add_argument("--checkpoint", required=True, help="the .pth file of a run")
    told.add_argument("--item", required=True, help="raw item ids, separated by commas")
    told.add_argument("--model", help=MODEL_HELP)
    told.add_argument(
        "--data_path", help="folder that holds the dataset's folder, when it has moved"
    )
    commands.add_parser(
        "tune",
        help="search parameters: tune --model=SASRec --dataset=ml-100k --params_file=F --key=value ...",
    )
    commands.add_parser(
        "keys", help="every key of a method with value, file, meaning and range: keys LETTER"
    )
    runs = commands.add_parser(
        "benchmark",
        help="many runs from one YAML file, and their leaderboard: benchmark F --seeds=[2020] ...",
    )
    runs.add_argument(
        "file",
        help="the YAML file; --key=value replaces a key of it, --only=[name, ...] carries out these runs alone",
    )
    table = commands.add_parser("leaderboard", help="the leaderboard of finished runs")
    table.add_argument(
        "paths",
        nargs="+",
        help="output folders of benchmarks, folders with result files, or result files",
    )
    table.add_argument("--baseline", help="name of the run that the others are tested against")
    table.add_argument("--output", help="folder for leaderboard.md, .csv and .json")
    method = commands.add_parser(
        "init-method", help="write the skeleton of a new method into the current folder"
    )
    method.add_argument("name", help="name of its class, for example NextCode")
    prepare = commands.add_parser("prepare", help="download and convert a dataset")
    from recbole_genrec.data.preparation.prepare import add_arguments
    from recbole_genrec.data.preparation.prepare import main as prepare_main

    add_arguments(prepare)
    args, more = parser.parse_known_args(argv)
    if more and args.command != "benchmark":
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        if args.command == "prepare":
            return prepare_main(args) or 0
        if args.command == "benchmark":
            return benchmark(args.file, more)
        if args.command == "init-method":
            return init_method(args.name)
        if args.command == "leaderboard":
            from recbole_genrec.report.leaderboard import make_leaderboard

            print(make_leaderboard(args.paths, args.baseline, args.output))
            return 0
        from recbole_genrec.experiments.trained import export, inspect, recommend
        from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

        quiet_pandas_warnings()
        changes = {"data_path": args.data_path} if args.data_path else {}
        changes["model_class"] = args.model
        if args.command == "inspect":
            for row in inspect(args.checkpoint, _words(args.item), **changes):
                print(
                    f"{row['item']}  {row['codes']}\n  generated: {row['generated']}\n  true:      {row['text']}"
                )
            return 0
        if args.command == "export":
            export(args.checkpoint, args.to, args.merge, **changes)
            print(f"Exported to {args.to}")
            return 0
        history = _words(args.history) if args.history is not None else None
        for row in recommend(
            args.checkpoint, args.user, history, args.top, args.candidate_file, **changes
        ):
            print(f"{row['rank']:>3}  {row['item']:<16}  {row['score']:9.4f}  {row['text']}")
    except GenRecError as error:
        return _said(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
