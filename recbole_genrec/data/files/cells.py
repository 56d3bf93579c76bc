"""A line of a table cut into cells, with or without the quotes of CSV files."""

from __future__ import annotations

import re

OPEN = "a quote opens a cell and does not close it."
TRAILING = "a quoted cell goes on after its closing quote."

_QUOTED = re.compile(r'"(?:[^"]|"")*"(?!")')
_ESCAPED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')


def split_quoted(line: str, separator: str) -> tuple[list[str], str | None]:
    """The cells of ``line``; cells in double quotes may hold the separator and ``""`` for a quote.

    Args:
        line: text without its line end.
        separator: what stands between two cells, one or more characters, no pattern.

    Returns:
        The cells, and what is wrong with the quotes (:data:`OPEN`, :data:`TRAILING`) or None.
        Where something is wrong the cells keep their quotes.
    """
    if '"' not in line:
        return line.split(separator), None
    cells: list[str] = []
    problem = None
    start = 0
    while True:
        stop = -1
        quoted = _QUOTED.match(line, start)
        if quoted and (quoted.end() == len(line) or line.startswith(separator, quoted.end())):
            cells.append(unquoted(quoted.group()))
            stop = quoted.end()
        else:
            if line.startswith('"', start):
                problem = TRAILING if quoted else OPEN
            after_quote = quoted.end() if quoted else start
            stop = line.find(separator, after_quote)
            stop = len(line) if stop < 0 else stop
            cells.append(line[start:stop])
        if stop >= len(line):
            return cells, problem
        start = stop + len(separator)


def is_quoted(cell: str) -> bool:
    """Whether double quotes enclose the cell, and those inside it are written twice."""
    return cell.startswith('"') and _QUOTED.fullmatch(cell) is not None


def is_escaped(cell: str) -> bool:
    """Whether the cell is quoted and holds quotes that a CSV writer has written twice."""
    return cell.startswith('"') and _ESCAPED.fullmatch(cell) is not None


def unquoted(cell: str) -> str:
    """The content of a cell for which :func:`is_quoted` holds."""
    return cell[1:-1].replace('""', '"')
