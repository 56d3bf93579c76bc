"""``recbole-genrec tokenizers``: the ways from items to codes."""

from __future__ import annotations

from recbole_genrec.cli.command import LOOK_UP, Command
from recbole_genrec.cli.tables import print_table


def tokenizers() -> None:
    """The tokenizers that `--tokenizer` takes; a folder or a file of stored codes is one too."""
    from recbole_genrec.experiments.offers import list_tokenizers

    table = list_tokenizers()
    print_table(list(table.columns), table.to_numpy().tolist())


COMMAND = Command("tokenizers", tokenizers, LOOK_UP, examples=("recbole-genrec tokenizers",))
