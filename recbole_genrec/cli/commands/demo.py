"""``recbole-genrec demo``: a result in a minute."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAIN, Command
from recbole_genrec.cli.options import QuietOption
from recbole_genrec.cli.tables import print_outcome


def demo(
    folder: Annotated[str, typer.Option("--folder", help="where everything is written")] = "demo",
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="show the report in the browser")
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """A toy shop, made by the package: two models are trained on it and reported, in a minute.

    50 products with titles, 200 customers with hobbies who buy what comes next. Nothing is
    downloaded.
    """
    from recbole_genrec.experiments.demo import run_demo
    from recbole_genrec.runtime.memory import keep_freed_memory

    keep_freed_memory()
    results, page = run_demo(folder, quiet)
    print_outcome(results)
    checkpoint = results["TimelineRec"]["checkpoint"]
    print(f"\nReport: {page}")
    print(f"Next:   recbole-genrec recommend --checkpoint={checkpoint} --history=p1,p2 --top=3")
    if open_page:
        webbrowser.open(page.resolve().as_uri())


COMMAND = Command(
    "demo",
    demo,
    TRAIN,
    examples=("recbole-genrec demo", "recbole-genrec demo --no-open --folder=/tmp/demo"),
)
