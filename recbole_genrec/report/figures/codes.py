"""Figures of the codes: their use, and the items in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from recbole_genrec.report.contents import ItemMap
from recbole_genrec.report.figures.style import GREY, bare_figure, colour


def usage_bars(levels: Sequence[Mapping[str, float]]) -> go.Figure:
    """Size, codes in use and perplexity of each level.

    Args:
        levels: as the statistics of codes in a result file have them.
    """
    names = [f"level {number + 1}" for number in range(len(levels))]
    figure = go.Figure()
    shades = {"size": GREY, "used": colour(0), "perplexity": colour(1)}
    for name, shade in shades.items():
        values = [level[name] for level in levels]
        figure.add_trace(go.Bar(x=names, y=values, name=name, marker={"color": shade}))
    figure.update_yaxes(title_text="codes")
    return bare_figure(figure, height=300)


def map_of_items(item_map: ItemMap) -> go.Figure:
    """The items in the plane, coloured by their first code."""
    texts = []
    first = []
    for item in item_map.items:
        codes = " ".join(map(str, item.codes))
        texts.append(f"{escape(item.title, quote=False)}<br>{codes}")
        first.append(next(iter(item.codes), 0))
    points = item_map.points.round(4)
    turns = _turns(points, np.array(first))
    figure = go.Figure(
        go.Scatter(
            x=points[:, 0].tolist(),
            y=points[:, 1].tolist(),
            mode="markers",
            text=texts,
            hovertemplate="%{text}<extra></extra>",
            marker={
                "size": 5,
                "opacity": 0.75,
                "color": turns.round(4).tolist(),
                "colorscale": [[place / 12, f"hsl({30 * place}, 62%, 54%)"] for place in range(13)],
                "cmin": 0,
                "cmax": 1,
            },
        )
    )
    figure.update_xaxes(title_text="first component", showticklabels=False, ticks="")
    figure.update_yaxes(title_text="second component", showticklabels=False, ticks="")
    return bare_figure(figure, height=460, legend=False)


def _turns(points: np.ndarray, first: np.ndarray) -> np.ndarray:
    """A place on the colour circle for each item: that of its first code.

    Codes stand on the circle in the order of the angles of their items' means, so that codes whose
    items lie near each other have similar colours.

    Args:
        points: ``[n, 2]``.
        first: int64 ``[n]``, first codes.

    Returns:
        ``[n]``, 0 to 1.
    """
    codes, rows = np.unique(first, return_inverse=True)
    counts = np.bincount(rows)
    means = np.stack([np.bincount(rows, points[:, axis]) / counts for axis in (0, 1)], 1)
    means -= points.mean(0)
    order = np.argsort(np.arctan2(means[:, 1], means[:, 0]))
    place = np.empty(len(codes))
    place[order] = np.arange(len(codes)) / len(codes)
    return place[rows]
