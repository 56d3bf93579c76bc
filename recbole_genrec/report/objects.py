"""Results as objects: dictionaries that a notebook shows as tables and that draw themselves."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from recbole_genrec.report.figures.curves import training_curves
from recbole_genrec.report.figures.metrics import metric_bars
from recbole_genrec.report.outcome import minutes_of


class Result(dict[str, Any]):
    """The result of one run or test: the content of its result file, with a face.

    It is a dictionary, so ``result["test_result"]["ndcg@10"]`` and ``json.dump`` work.
    """

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the test split."""
        return self["test_result"]

    def to_frame(self) -> pd.DataFrame:
        """Metrics as columns, rows ``valid`` and ``test``.

        Validation is that of the best epoch, where there was one.
        """
        rows = {}
        if self.get("best_valid_result"):
            rows["valid"] = self["best_valid_result"]
        rows["test"] = self.metrics
        return pd.DataFrame.from_dict(rows, orient="index")

    def epochs_frame(self) -> pd.DataFrame:
        """Losses and validation metrics by epoch, counted from 0 as in result files."""
        rows = []
        for epoch in self.get("epochs") or []:
            losses = {f"loss {part}": value for part, value in enumerate(epoch["loss"], start=1)}
            rows.append({"epoch": epoch["epoch"], **losses, **(epoch.get("valid") or {})})
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Curves of the training with the best epoch; bars of the metrics of a test alone."""
        if self.get("epochs"):
            return training_curves(self)
        return metric_bars({self["model"]: self.metrics})

    def _repr_html_(self) -> str:
        heading = f"{self['model']} on {self['dataset']}"
        if self.get("seed") is not None:
            heading += f", seed {self['seed']}"
        minutes = _minutes(self)
        if minutes is not None:
            heading += f", {minutes:.1f} minutes"
        return f"<p><b>{escape(heading)}</b></p>{_table(self.to_frame())}"


class Results(dict[str, Result]):
    """Results of several models by name."""

    def to_frame(self) -> pd.DataFrame:
        """Test metrics as columns, a row a model."""
        frame = pd.DataFrame.from_dict(
            {name: result["test_result"] for name, result in self.items()}, orient="index"
        )
        frame.index.name = "model"
        return frame

    def plot(self) -> go.Figure:
        """Bars of the test metrics."""
        return metric_bars({name: result["test_result"] for name, result in self.items()})

    def _repr_html_(self) -> str:
        return _table(self.to_frame())


def results_of(results: Mapping[str, Mapping[str, Any]]) -> Results:
    """Plain results of several models as objects."""
    return Results({name: Result(result) for name, result in results.items()})


def _minutes(result: Result) -> float | None:
    seconds = result.get("seconds")
    return minutes_of(seconds) if seconds else None


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(float_format="{:.4f}".format, border=0)
