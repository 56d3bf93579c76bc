"""The arguments of each command."""

from __future__ import annotations

import argparse
from typing import Any

MODEL_HELP = "package.module:Class of a method from outside this package"
DATA_PATH_HELP = "folder that holds the dataset's folder, when it has moved"
BACKBONE_HELP = "folder of the language model that the run started from, when it has moved"


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; those that take ``--key=value`` are listed for their help."""
    from recbole_genrec.data.preparation.prepare import add_arguments

    parser = argparse.ArgumentParser(
        prog="recbole-genrec",
        description="Generative recommendation with semantic ids, inside RecBole.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run", help="train and test: run --model=STORE --dataset=ml-100k --key=value ..."
    )
    commands.add_parser(
        "evaluate", help="test a checkpoint again: evaluate --checkpoint=F --beam_width=50 ..."
    )
    commands.add_parser(
        "tune",
        help="search parameters: "
        "tune --model=SASRec --dataset=ml-100k --params_file=F --key=value ...",
    )
    _add_recommend(commands)
    _add_export(commands)
    _add_inspect(commands)
    _add_benchmark(commands)
    _add_leaderboard(commands)
    commands.add_parser(
        "keys", help="every key of a method with value, file, meaning and range: keys LETTER"
    )
    method = commands.add_parser(
        "init-method", help="write the skeleton of a new method into the current folder"
    )
    method.add_argument("name", help="name of its class, for example NextCode")
    add_arguments(commands.add_parser("prepare", help="download and convert a dataset"))
    return parser


def _add_recommend(commands: Any) -> None:
    parser = commands.add_parser("recommend", help="the best next items for a user or a history")
    parser.add_argument(
        "--checkpoint", required=True, help="the .pth file of a run, or the folder of an export"
    )
    person = parser.add_mutually_exclusive_group(required=True)
    person.add_argument(
        "--user", help="raw user id of the dataset; several with commas between go to --output"
    )
    person.add_argument(
        "--all_users", action="store_true", help="every user of the dataset; goes to --output"
    )
    person.add_argument("--history", help="raw item ids, oldest first, separated by commas")
    parser.add_argument("--output", help="a .tsv or .csv file for the lists of users")
    parser.add_argument("--top", type=int, default=10, help="how many items (default 10)")
    parser.add_argument(
        "--candidate_file",
        help="choose among the raw item ids in this file, one a line (default: all items)",
    )
    _add_model_and_data(parser)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="a trained language model as peft adapter and codes, or merged into one model",
    )
    parser.add_argument("--checkpoint", required=True, help="the .pth file that a run wrote")
    parser.add_argument("--to", required=True, help="new folder")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="one model for transformers, whose vocabulary holds the codes",
    )
    _add_model_and_data(parser)


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="what LCRec says about an item when it sees its codes alone, beside the true title",
    )
    parser.add_argument("--checkpoint", required=True, help="the .pth file of a run")
    parser.add_argument("--item", required=True, help="raw item ids, separated by commas")
    _add_model_and_data(parser)


def _add_model_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--data_path", help=DATA_PATH_HELP)
    parser.add_argument("--backbone", help=BACKBONE_HELP)


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="many runs from one YAML file, and their leaderboard: benchmark F --seeds=[2020] ...",
    )
    parser.add_argument(
        "file",
        help="the YAML file; --key=value replaces a key of it, "
        "--only=[name, ...] carries out these runs alone",
    )


def _add_leaderboard(commands: Any) -> None:
    parser = commands.add_parser("leaderboard", help="the leaderboard of finished runs")
    parser.add_argument(
        "paths",
        nargs="+",
        help="output folders of benchmarks, folders with result files, or result files",
    )
    parser.add_argument("--baseline", help="name of the run that the others are tested against")
    parser.add_argument("--output", help="folder for leaderboard.md, .csv and .json")
