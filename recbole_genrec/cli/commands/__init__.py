"""The commands, one a file; a new one is added to the list below.

A command's file imports what its work needs inside its function, so that help and shell completion
are quick.
"""

from __future__ import annotations

from recbole_genrec.cli.command import Command
from recbole_genrec.cli.commands import (
    add_items,
    benchmark,
    datasets,
    demo,
    doctor,
    ensemble,
    evaluate,
    export,
    import_data,
    init_method,
    inspect,
    keys,
    leaderboard,
    models,
    prepare,
    recommend,
    report,
    run,
    serve,
    tokenize,
    tokenizers,
    tune,
)

COMMANDS: list[Command] = [
    demo.COMMAND,
    run.COMMAND,
    evaluate.COMMAND,
    ensemble.COMMAND,
    tune.COMMAND,
    tokenize.COMMAND,
    benchmark.COMMAND,
    leaderboard.COMMAND,
    report.COMMAND,
    recommend.COMMAND,
    serve.COMMAND,
    inspect.COMMAND,
    export.COMMAND,
    add_items.COMMAND,
    models.COMMAND,
    tokenizers.COMMAND,
    datasets.COMMAND,
    keys.COMMAND,
    doctor.COMMAND,
    prepare.COMMAND,
    import_data.COMMAND,
    init_method.COMMAND,
]
