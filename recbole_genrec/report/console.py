"""Small tables for the terminal."""

from __future__ import annotations


def side_by_side(columns: dict[str, dict[str, float]]) -> str:
    """The same figures of several groups, one a line.

    Args:
        columns: group -> figure -> value.
    """
    first = next(iter(columns.values()))
    header = "".join(f"{name:>10}" for name in columns)
    lines = [f"{'':<12}{header}"]
    for figure in first:
        values = "".join(f"{group[figure]:>10.6g}" for group in columns.values())
        lines.append(f"{figure:<12}{values}")
    return "\n".join(lines)
