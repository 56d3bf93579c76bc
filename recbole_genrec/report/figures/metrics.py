"""Bars of metrics, with intervals, of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from recbole_genrec.report.figures.style import bare_figure, fill

Interval = tuple[float, float]


def metric_bars(
    values: Mapping[str, Mapping[str, float | None]],
    intervals: Mapping[str, Mapping[str, Interval]] | None = None,
) -> go.Figure:
    """Metrics side by side.

    Args:
        values: by run and metric; ``None`` where a run has none.
        intervals: lower and upper end by run and metric, where they are known.
    """
    figure = go.Figure()
    metrics = list(dict.fromkeys(name for run in values.values() for name in run))
    for number, (run, of_run) in enumerate(values.items()):
        ends = (intervals or {}).get(run, {})
        above = []
        below = []
        for name in metrics:
            value = of_run.get(name)
            if value is None or name not in ends:
                above.append(0.0)
                below.append(0.0)
            else:
                above.append(ends[name][1] - value)
                below.append(value - ends[name][0])
        bars = go.Bar(
            x=metrics,
            y=[of_run.get(name) for name in metrics],
            name=run,
            marker=fill(number),
            hovertemplate="%{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
        if any(above) or any(below):
            bars.error_y = {"array": above, "arrayminus": below, "thickness": 1.2, "width": 3}
        figure.add_trace(bars)
    figure.update_yaxes(rangemode="tozero")
    return bare_figure(figure, height=340, legend=len(values) > 1)
