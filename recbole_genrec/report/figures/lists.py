"""Figures of lists and of the search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from recbole_genrec.report.contents import BeamWidth, GivenCodes, Group
from recbole_genrec.report.figures.style import GREY, bare_figure, fill, line
from recbole_genrec.report.metric_names import kind


def recall_by_given_codes(rows: Sequence[GivenCodes]) -> go.Figure:
    """Recall when the first codes of the target are given."""
    figure = go.Figure()
    names = [name for name in rows[0].metrics if kind(name) == "recall"]
    x = [row.n_codes for row in rows]
    for number, name in enumerate(names):
        values = [row.metrics[name] for row in rows]
        figure.add_trace(line(name, x, values, number))
    figure.update_xaxes(title_text="codes of the target that are given", dtick=1)
    figure.update_yaxes(title_text="recall", range=[0, 1.02])
    return bare_figure(figure)


def certified_by_width(rows: Sequence[BeamWidth]) -> go.Figure:
    """Share of users with a proven list, by beam width."""
    figure = go.Figure()
    x = [row.width for row in rows]
    for number, k in enumerate(rows[0].certified):
        figure.add_trace(line(f"top {k}", x, [row.certified[k] for row in rows], number))
    figure.update_xaxes(title_text="beam width", type="log", tickvals=x, ticktext=list(map(str, x)))
    figure.update_yaxes(title_text="certified lists", range=[0, 1.02], tickformat=".0%")
    return bare_figure(figure)


def by_group(rows: Sequence[Group], metrics: Sequence[str], title: str) -> go.Figure:
    """Metrics of groups of users; the number of users stands below each group.

    Args:
        rows: the groups.
        metrics: names of those that are shown.
        title: of the horizontal axis.
    """
    figure = go.Figure()
    ticks = [f"{row.label}<br>({row.users:,})" for row in rows]
    for number, name in enumerate(metrics):
        heights = [row.metrics[name] for row in rows]
        figure.add_trace(go.Bar(x=ticks, y=heights, name=name, marker=fill(number)))
    figure.update_xaxes(title_text=f"{title} (users)", type="category")
    return bare_figure(figure, height=340)


def shown_items(counts: np.ndarray) -> go.Figure:
    """What share of all list places the most shown items take (a Lorenz curve, highest first).

    Args:
        counts: how often each item is shown, highest first.
    """
    shares = np.cumsum(counts) / max(1, counts.sum())
    items = np.arange(1, len(counts) + 1) / len(counts)
    keep = np.unique(np.linspace(0, len(counts) - 1, 200).astype(int))
    figure = go.Figure()
    x = items[keep].round(5).tolist()
    y = shares[keep].round(5).tolist()
    figure.add_trace(line("lists of the test users", x, y, 0, hoverinfo="x+y"))
    figure.data[0].mode = "lines"
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"dash": "dot", "width": 1, "color": GREY},
            name="all alike",
        )
    )
    figure.update_xaxes(title_text="items, the most shown first", tickformat=".0%")
    figure.update_yaxes(title_text="share of the list places", tickformat=".0%", range=[0, 1.02])
    return bare_figure(figure)
