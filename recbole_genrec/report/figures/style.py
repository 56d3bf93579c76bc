"""What all figures share: colours, sizes, an empty background that pages and notebooks fill."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

COLOURS = ("#3b7dd8", "#e07b39", "#2f9e6e", "#b5539c", "#8a7fd1", "#c9a227", "#4aa3a2", "#d1495b")
"""Readable on white and on black."""
PATTERNS = ("", "/", ".", "x")
"""Of the fill of bars, where there are more bars than colours."""
GREY = "#8a8f98"


def colour(number: int) -> str:
    """The colour of the n-th curve or run."""
    return COLOURS[number % len(COLOURS)]


def fill(number: int) -> dict[str, object]:
    """The marker of the n-th bar of a group; bars of one colour differ in their pattern."""
    pattern = PATTERNS[number // len(COLOURS) % len(PATTERNS)]
    return {"color": colour(number), "pattern": {"shape": pattern}}


def bare_figure(figure: go.Figure, height: int = 320, legend: bool = True) -> go.Figure:
    """Give a figure the common layout.

    Args:
        figure: is changed.
        height: in pixels.
        legend: whether it is shown, above the figure.
    """
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 16, "t": 40, "b": 48},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        hoverlabel={"align": "left"},
        font={"size": 12},
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure


def line(
    name: str, x: Sequence[object], y: Sequence[object], number: int, **options: object
) -> go.Scatter:
    """A curve with points.

    Args:
        name: for the legend.
        x: places.
        y: values.
        number: decides the colour.
        **options: further arguments of plotly.
    """
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=name,
        mode="lines+markers",
        line={"color": colour(number), "width": 2},
        marker={"size": 5},
        **options,
    )
