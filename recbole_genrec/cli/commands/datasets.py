"""``recbole-genrec datasets``: what can be run on."""

from __future__ import annotations

from recbole_genrec.cli.command import LOOK_UP, Command
from recbole_genrec.cli.options import DatasetsFolderOption
from recbole_genrec.cli.tables import print_table


def datasets(data_path: DatasetsFolderOption = "dataset") -> None:
    """The datasets at hand, and those that `prepare` makes, with their published counts."""
    from recbole_genrec.experiments.offers import list_datasets

    table = list_datasets(data_path)
    rows = []
    for cells in table.astype(object).to_numpy().tolist():
        rows.append([_shown(cell) for cell in cells])
    print_table(list(table.columns), rows)


def _shown(cell: object) -> str:
    """A cell for people; counts that are not known stay empty."""
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return cell
    return ""


COMMAND = Command(
    "datasets",
    datasets,
    LOOK_UP,
    examples=("recbole-genrec datasets", "recbole-genrec datasets --data_path=/data"),
)
