"""Curves of the stages: what a tokenizer's fit and the training lost, and the validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_genrec.report.best import best_epoch, valid_metric
from recbole_genrec.report.figures.style import bare_figure, line


def training_curves(result: Mapping[str, Any]) -> go.Figure:
    """Losses and validation by epoch, counted from 1; the best epoch is marked.

    Args:
        result: the content of a result file.
    """
    epochs = result.get("epochs") or []
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.09)
    n_parts = max((len(epoch["loss"]) for epoch in epochs), default=0)
    for part in range(n_parts):
        rows = [epoch for epoch in epochs if part < len(epoch["loss"])]
        name = "training loss" if n_parts == 1 else f"training loss, part {part + 1}"
        x = [epoch["epoch"] + 1 for epoch in rows]
        figure.add_trace(line(name, x, [epoch["loss"][part] for epoch in rows], part), 1, 1)

    validated = [epoch for epoch in epochs if epoch.get("valid")]
    metric = valid_metric(result)
    x = [epoch["epoch"] + 1 for epoch in validated]
    names = list(validated[0]["valid"]) if validated else []
    for number, name in enumerate(names):
        visible: bool | str = True
        if name != metric and len(names) > 1:
            visible = "legendonly"
        curve = line(
            f"validation {name}",
            x,
            [epoch["valid"].get(name) for epoch in validated],
            n_parts + number,
            visible=visible,
        )
        figure.add_trace(curve, 2, 1)

    best = best_epoch(result)
    if best is not None:
        score = next(epoch["valid"][metric] for epoch in validated if epoch["epoch"] + 1 == best)
        star = {"symbol": "star", "size": 14, "color": "#d1495b"}
        mark = go.Scatter(
            x=[best], y=[score], mode="markers", marker=star, name=f"best epoch: {best}"
        )
        figure.add_trace(mark, 2, 1)
        figure.add_vline(best, line={"dash": "dot", "width": 1, "color": "#d1495b"})
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    if len(epochs) <= 20:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title_text="loss", row=1, col=1)
    figure.update_yaxes(title_text=metric, row=2, col=1)
    return bare_figure(figure, height=460)


def tokenizer_curves(stages: Mapping[str, Mapping[str, Sequence[float]]]) -> go.Figure:
    """Losses of the stages of a tokenizer's fit, one panel a stage.

    Args:
        stages: the values of each epoch, by stage and loss.
    """
    figure = make_subplots(
        len(stages), 1, subplot_titles=list(stages), vertical_spacing=0.18 / len(stages)
    )
    names = list(dict.fromkeys(name for losses in stages.values() for name in losses))
    shown = set()
    for row, losses in enumerate(stages.values(), start=1):
        for name, values in losses.items():
            number = names.index(name)
            x = list(range(1, len(values) + 1))
            figure.add_trace(
                line(name, x, values, number, legendgroup=name, showlegend=name not in shown),
                row,
                1,
            )
            shown.add(name)
    figure.update_yaxes(title_text="loss")
    figure.update_xaxes(title_text="epoch", row=len(stages), col=1)
    bare_figure(figure, height=110 + 210 * len(stages))
    # The legend stands above the title of the first stage.
    figure.update_layout(margin={"t": 84}, legend={"y": 1, "yref": "container", "yanchor": "top"})
    return figure
