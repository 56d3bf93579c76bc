"""Tables: of rich on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

BEST = "bold green"
NUMBERS = frozenset("0123456789.,+-% ")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table.

    Args:
        columns: the headings.
        rows: the cells of each row.
    """
    console = Console()
    right = []
    for place in range(len(columns)):
        cells = [row[place] for row in rows]
        right.append(_is_numeric(cells))
    if not console.is_terminal:
        print(plain_table(columns, rows, right))
        return
    table = Table()
    for heading, is_right in zip(columns, right, strict=True):
        justify = "right" if is_right else "left"
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_outcome(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table at the end of runs, with the best values marked.

    Args:
        results: name -> result of the run.
    """
    from recbole_genrec.report.outcome import outcome

    table = outcome(results)
    console = Console()
    if not console.is_terminal:
        print(table.markdown())
        return
    shown = Table()
    shown.add_column(table.columns[0])
    for heading in table.columns[1:]:
        shown.add_column(heading, justify="right")
    for row, cells in enumerate(table.rows):
        styles = [BEST if (row, column) in table.best else "" for column in range(len(cells))]
        shown.add_row(*map(Text, cells, styles))
    console.print(shown)
    if table.note:
        print(table.note)


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> str:
    """Cells in aligned columns, without colour.

    Args:
        columns: the headings.
        rows: the cells of each row.
        right: which columns stand at their right end.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = []
        for cell, width, is_right in zip(row, widths, right, strict=True):
            if is_right:
                cells.append(cell.rjust(width))
            else:
                cells.append(cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_numeric(cells: Sequence[str]) -> bool:
    return any(cells) and all(NUMBERS.issuperset(cell) for cell in cells)
