"""The report of one run or of several: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

from recbole_genrec.report.baselines import baselines, is_baseline, references
from recbole_genrec.report.best import best_epoch, best_value
from recbole_genrec.report.comparisons import NOTE, metric_intervals, paired_tests
from recbole_genrec.report.contents import Analysis, ReportEntry
from recbole_genrec.report.evaluated_data import data_text
from recbole_genrec.report.figures import codes as code_figures
from recbole_genrec.report.figures import curves, lists, metrics
from recbole_genrec.report.metric_names import place
from recbole_genrec.report.protocol import masked_text, protocol_text
from recbole_genrec.report.result_names import tokenizer_of
from recbole_genrec.report.rows import common_metrics, main_metric
from recbole_genrec.report.templating import Figures, render

STAGES = (
    ("data", "data"),
    ("model_and_tokenizer", "tokenizer and model"),
    ("fit", "training"),
    ("after_fit", "decisions after training"),
    ("weights", "weights of the ensemble"),
    ("test", "test"),
    ("test_by_user", "test by kind of user"),
)
CATALOGUE_LABELS = {
    "itemcoverage": "item coverage",
    "giniindex": "Gini index",
    "averagepopularity": "average popularity",
    "tailpercentage": "tail percentage",
}


def report_page(entries: Sequence[ReportEntry], baseline: str | None = None) -> str:
    """The report.

    Args:
        entries: the runs, in the order of the page.
        baseline: name of the run that the others are compared with, on the same dataset and with
            the same seed; default the first run of RecBole's models on a dataset, or the first.

    Returns:
        HTML.

    Raises:
        ConfigError: ``baseline`` is the name of no run.
    """
    names_of_baselines = baselines(entries, baseline)
    figures = Figures()
    metric = main_metric([entry.run for entry in entries])
    runs: list[RunView] = []
    for entry, reference in zip(entries, references(entries, names_of_baselines), strict=True):
        runs.append(RunView(f"run-{len(runs)}", entry, reference, figures, metric))
    overview = Overview(runs, names_of_baselines, figures) if len(runs) > 1 else None
    names = ", ".join(dict.fromkeys(entry.run.dataset for entry in entries))
    title = f"{entries[0].name} on {names}" if len(runs) == 1 else f"{len(runs)} runs on {names}"
    return render(
        "page.html",
        title=title,
        runs=runs,
        overview=overview,
    )


@dataclass(frozen=True)
class MetricRow:
    """A line of the table of metrics.

    Attributes:
        name: of the metric.
        value: on the test split.
        interval: 95 % interval over users.
        valid: on the validation split.
        baseline: of the baseline on the test split.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    valid: float | None
    baseline: float | None


class RunView:
    """What the sections of one run show.

    Args:
        key: id of the run's section.
        entry: the run.
        baseline: the run that it is compared with; None where there is none.
        figures: of the page.
        metric: the main metric.
    """

    def __init__(
        self,
        key: str,
        entry: ReportEntry,
        baseline: ReportEntry | None,
        figures: Figures,
        metric: str,
    ) -> None:
        self.key = key
        self.entry = entry
        self.name = entry.name
        self.result = entry.result
        self.dataset = entry.run.dataset
        self.analysis = _analysis(entry)
        self.baseline = baseline
        self.figures = figures
        self.metric = metric
        self.place = place(metric)
        self.test = self.result["test_result"]
        self.intervals = metric_intervals(entry.ranks, list(self.test))

    # --- head -------------------------------------------------------------------------------------

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the run was, by label."""
        result = self.result
        config = self.result["config"]
        rows = [("model", result["model"])]
        if self.tokenizer is not None:
            rows.append(("tokenizer", str(config["tokenizer"])))
        rows += [
            ("dataset", result["dataset"]),
            ("protocol", protocol_text(result)),
            ("history masked", masked_text(config)),
            ("seed", str(result["seed"])),
        ]
        if result.get("parameters") is not None:
            rows.append(("parameters", f"{result['parameters']:,}"))
        if data_text(config):
            rows.append(("data", data_text(config)))
        if result.get("processes", 1) > 1:
            rows.append(("processes", str(result["processes"])))
        rows.append(("commit", str(result.get("commit") or "an installed package")))
        if self.entry.run.file is not None and self.entry.run.file.is_file():
            written = datetime.fromtimestamp(self.entry.run.file.stat().st_mtime)
            rows.append(("written", written.strftime("%Y-%m-%d %H:%M")))
        return rows

    @property
    def times(self) -> list[tuple[str, float, float | None, float | None]]:
        """Wall seconds, CPU seconds and highest memory (MiB) of each stage."""
        wall = self.result.get("seconds") or {}
        cpu = self.result.get("cpu_seconds") or {}
        memory = self.result.get("peak_memory_mb") or {}
        rows = []
        for stage, label in STAGES:
            if stage in wall:
                peak = memory.get(stage, {}).get("cpu")
                rows.append((label, wall[stage], cpu.get(stage), peak))
        return rows

    @property
    def tokenizer(self) -> dict[str, Any] | None:
        """Statistics of the codes in the result file; ``None`` where they decide nothing."""
        if tokenizer_of(self.result) is None:
            return None
        return self.result["report"].get("tokenizer")

    @property
    def search(self) -> dict[str, Any] | None:
        """Settings and statistics of the search in the result file."""
        return (self.result.get("report") or {}).get("search")

    @property
    def versions(self) -> str:
        """Versions of the libraries."""
        versions = self.result.get("versions") or {}
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    # --- metrics and curves -----------------------------------------------------------------------

    @property
    def rows(self) -> list[MetricRow]:
        """The table of metrics."""
        valid = self.result.get("best_valid_result") or {}
        other = self.baseline.result["test_result"] if self.baseline else {}
        rows = []
        for name, value in self.test.items():
            interval = self.intervals.get(name)
            rows.append(MetricRow(name, value, interval, valid.get(name), other.get(name)))
        return rows

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were tested, counted from 1."""
        return best_epoch(self.result)

    @property
    def training_figure(self) -> Any:
        """Curves of the training, where it had epochs."""
        training = self.result if self.result.get("epochs") else None
        return self._figure(training, curves.training_curves, "training curves")

    @property
    def stage_figure(self) -> Any:
        """Curves of the tokenizer's stages, where it trained."""
        stages = self.result.get("tokenizer_curves")
        return self._figure(stages, curves.tokenizer_curves, "curves of the tokenizer")

    def _figure(self, content: Any, draw: Callable[[Any], go.Figure], label: str) -> Any:
        """A figure of the page; ``None`` where there is no content, but perhaps a reason."""
        if isinstance(content, str) or not content:
            return None
        return self.figures(draw(content), label)

    # --- codes ------------------------------------------------------------------------------------

    @property
    def usage_figure(self) -> Any:
        """Use of the codes."""
        levels = (self.tokenizer or {}).get("levels")
        return self._figure(levels, code_figures.usage_bars, "use of the codes of each level")

    @property
    def map_figure(self) -> Any:
        """The items in the plane."""
        return self._figure(self.analysis.item_map, code_figures.map_of_items, "map of the items")

    # --- lists and search -------------------------------------------------------------------------

    @property
    def given_figure(self) -> Any:
        """Recall with given codes."""
        label = "recall by the number of given codes"
        return self._figure(self.analysis.given_codes, lists.recall_by_given_codes, label)

    @property
    def width_figure(self) -> Any:
        """Proven lists by beam width."""
        label = "certified lists by beam width"
        return self._figure(self.analysis.widths, lists.certified_by_width, label)

    @property
    def group_metrics(self) -> list[str]:
        """The metrics that groups of users are shown by."""
        if isinstance(self.analysis.lists, str):
            return []
        known = self.analysis.lists.popularity[0].metrics
        names = [f"recall@{self.place}", f"ndcg@{self.place}"]
        return [name for name in names if name in known] or list(known)[:2]

    @property
    def popularity_figure(self) -> Any:
        """Metrics by popularity of the target."""
        title = "training interactions of the target"
        return self._figure(
            self.analysis.lists,
            lambda found: lists.by_group(found.popularity, self.group_metrics, title),
            "metrics by popularity of the target",
        )

    @property
    def history_figure(self) -> Any:
        """Metrics by length of the history."""
        title = "items in the history"
        return self._figure(
            self.analysis.lists,
            lambda found: lists.by_group(found.history, self.group_metrics, title),
            "metrics by length of the history",
        )

    @property
    def shown_figure(self) -> Any:
        """How the list places are shared among the items."""
        return self._figure(
            self.analysis.lists,
            lambda found: lists.shown_items(found.shown),
            "share of the list places",
        )

    @property
    def catalogue(self) -> list[tuple[str, list[float | None]]]:
        """Metrics of all lists together: label, and the value at each length of the list."""
        values = self._catalogue
        rows = []
        for name, label in CATALOGUE_LABELS.items():
            cells = [values.get(f"{name}@{k}") for k in self.catalogue_places]
            if any(cell is not None for cell in cells):
                rows.append((label, cells))
        return rows

    @property
    def catalogue_places(self) -> list[int]:
        """Lengths of the lists that the catalogue's metrics look at."""
        return sorted({place(name) for name in self._catalogue})

    @property
    def _catalogue(self) -> dict[str, float]:
        """Metrics of all lists together, by name."""
        return {} if isinstance(self.analysis.lists, str) else self.analysis.lists.catalogue

    @property
    def configuration(self) -> list[tuple[str, Any]]:
        """Every setting, by name."""
        config = self.result["config"]
        return sorted(config.items(), key=lambda pair: pair[0].lower())


def _analysis(entry: ReportEntry) -> Analysis:
    """The analysis of a run; where it has none, every part says why."""
    if isinstance(entry.analysis, str):
        return Analysis(entry.analysis, entry.analysis, entry.analysis)
    return entry.analysis


class Overview:
    """Several runs side by side.

    Args:
        runs: the runs.
        names_of_baselines: of the row that the others are tested against, by dataset.
        figures: of the page.
    """

    def __init__(
        self, runs: Sequence[RunView], names_of_baselines: Mapping[str, str], figures: Figures
    ) -> None:
        self.runs = runs
        self.baseline = _in_words(names_of_baselines)
        self.metrics = common_metrics([run.result for run in runs])
        pairs = [(run.entry, run.baseline) for run in runs if run.baseline is not None]
        self.tests = paired_tests(pairs, self.metrics)
        self.note = NOTE.format(n=len(self.tests))
        tested = {test.run for test in self.tests}
        self.untested = []
        for run in runs:
            if run.name not in tested and not is_baseline(run.entry, names_of_baselines):
                self.untested.append(run.name)
        self._figures = figures

    def best(self, metric: str, dataset: str) -> float | None:
        """The best value of a metric on the test split of a dataset."""
        return best_value(metric, [run.test[metric] for run in self._on(dataset)])

    @property
    def figures(self) -> list[Any]:
        """The metrics of all runs, a figure a dataset."""
        return [self._figure(name) for name in dict.fromkeys(run.dataset for run in self.runs)]

    def _figure(self, dataset: str) -> Any:
        values = {}
        intervals = {}
        for run in self._on(dataset):
            values[run.name] = {name: run.test[name] for name in self.metrics}
            intervals[run.name] = run.intervals
        return self._figures(metrics.metric_bars(values, intervals), f"metrics on {dataset}")

    def _on(self, dataset: str) -> list[RunView]:
        """The runs on a dataset."""
        return [run for run in self.runs if run.dataset == dataset]

    @property
    def differences(self) -> list[tuple[str, list[Any]]]:
        """Settings in which the runs differ, with the value of each run."""
        configs = [run.result["config"] for run in self.runs]
        rows = []
        for name in dict.fromkeys(key for config in configs for key in config):
            values = [config.get(name) for config in configs]
            if any(value != values[0] for value in values):
                rows.append((name, values))
        return sorted(rows, key=lambda row: row[0].lower())


def _in_words(names_of_baselines: Mapping[str, str]) -> str:
    """The names of the baselines, with their datasets where the names differ."""
    names = set(names_of_baselines.values())
    if len(names) == 1:
        return names.pop()
    return ", ".join(f"{name} on {dataset}" for dataset, name in names_of_baselines.items())
