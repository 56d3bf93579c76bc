"""Small tables for the terminal."""

from __future__ import annotations

from typing import Any

STAGES = ("data", "model_and_tokenizer", "fit", "test")


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


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Test metrics of several runs as a Markdown table.

    Args:
        results: name -> result of the run.

    Returns:
        The table, with the metrics in the order of the first run.
    """
    metrics = list(next(iter(results.values()))["test_result"])
    lines = [
        "| model | " + " | ".join(metrics) + " | minutes |",
        "|---|" + "---|" * (len(metrics) + 1),
    ]
    for name, result in results.items():
        cells = [f"{result['test_result'][metric]:.4f}" for metric in metrics]
        minutes = sum(result["seconds"].get(stage, 0) for stage in STAGES) / 60
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {minutes:.1f} |")
    return "\n".join(lines)
