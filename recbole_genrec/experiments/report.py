"""Reports of runs and leaderboards of benchmarks as pages that people open in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.analysis import analysis_or_reason
from recbole_genrec.experiments.stored_settings import changes_of_model
from recbole_genrec.report.contents import Analysis, Reason, ReportEntry
from recbole_genrec.report.leaderboard import Leaderboard
from recbole_genrec.report.page import report_page
from recbole_genrec.report.ranks import beside
from recbole_genrec.report.result_files import result_file
from recbole_genrec.report.runs import Run, collect, saved_ranks
from recbole_genrec.storage.atomic import check_writable, write_text

Paths = Iterable[str | os.PathLike[str]]


def write_report(
    paths: Paths,
    output: str | os.PathLike[str] | None = None,
    baseline: str | None = None,
    analysis: bool = True,
    users: int | None = None,
    **changes: Any,
) -> Path:
    """Write the report of result files as one HTML file.

    Args:
        paths: result files that runs wrote.
        output: the page; default beside a single result file, or ``report.html``.
        baseline: name of the run that the others are compared with.
        analysis: whether checkpoints are loaded for what the result files do not say.
        users: at most so many test users get lists in the analysis; default all.
        **changes: settings to replace when checkpoints are loaded, for example ``data_path``.

    Returns:
        The page.

    Raises:
        ArtefactError: a file is missing or holds no result.
        ConfigError: the runs cannot be compared, or ``baseline`` is no run.
    """
    files = list(paths)
    runs, about = collect(files, compared=len(files) > 1)
    done = [run for run in runs if run.result is not None]
    if not done:
        raise ConfigError("None of these runs is finished, so there is nothing to report.")
    page = Path(output) if output is not None else _beside(done)
    check_writable(page)
    entries = make_entries(done, analysis, users, **changes)
    text = report_page(entries, baseline or about.get("baseline"))
    write_text(page, text)
    return page


def write_pages(
    paths: Paths,
    output: str | os.PathLike[str] | None = None,
    baseline: str | None = None,
    analysis: bool = True,
    users: int | None = None,
    **changes: Any,
) -> list[Path]:
    """The report of result files, or with a folder among the paths the page of a leaderboard.

    Args:
        paths: result files, output folders of benchmarks, folders with result files.
        output: the page of a report; for a leaderboard the folder of its files.
        baseline: as in :func:`write_report`.
        analysis: as in :func:`write_report`.
        users: as in :func:`write_report`.
        **changes: as in :func:`write_report`.

    Returns:
        The pages and tables that were written.
    """
    places = [Path(path) for path in paths]
    folders = [path for path in places if path.is_dir()]
    if not folders:
        return [write_report(places, output, baseline, analysis, users, **changes)]
    folder = Path(output) if output is not None else folders[0]
    Leaderboard.of(places, baseline).write(folder)
    return [folder / "leaderboard.html", folder / "leaderboard.tex"]


def write_report_of(results: Mapping[str, dict[str, Any]]) -> Path:
    """The report of runs that have just ended.

    Args:
        results: result of each run by its name.
    """
    return write_report([result_file(result) for result in results.values()])


def _beside(runs: Sequence[Run]) -> Path:
    if len(runs) == 1 and runs[0].file is not None:
        return beside(runs[0].file, ".html")
    return Path("report.html")


def make_entries(
    runs: Sequence[Run], analysis: bool = True, users: int | None = None, **changes: Any
) -> list[ReportEntry]:
    """What a report shows of each run.

    Args:
        runs: finished runs.
        analysis: whether their checkpoints are loaded.
        users: as in :func:`write_report`.
        **changes: as in :func:`write_report`.
    """
    names = _names(runs)
    entries = []
    for name, run in zip(names, runs, strict=True):
        contents: Analysis | Reason = "The report was made without an analysis of the checkpoint."
        if analysis:
            contents = _analysis(run, users, changes)
        ranks = saved_ranks(run)
        if ranks is None and isinstance(contents, Analysis):
            ranks = contents.ranks
        entries.append(ReportEntry(name, run, ranks, contents))
    return entries


def _names(runs: Sequence[Run]) -> list[str]:
    """Names that differ: with the dataset and the seed where these tell runs apart."""
    names = [run.name for run in runs]
    if len({run.dataset for run in runs}) > 1:
        names = [f"{name} on {run.dataset}" for name, run in zip(names, runs, strict=True)]
    repeated = {name for name in names if names.count(name) > 1}
    result = []
    for name, run in zip(names, runs, strict=True):
        if name in repeated:
            name = f"{name}, seed {run.seed}"
        result.append(name)
    return result


def _analysis(run: Run, users: int | None, changes: dict[str, Any]) -> Analysis | Reason:
    """The analysis of a run's checkpoint, or why there is none."""
    assert run.result is not None
    if "members" in run.result:
        return "An ensemble has no codes and no search of its own: see those of its members."
    checkpoint = run.result.get("checkpoint")
    if not checkpoint:
        return "The run kept no checkpoint, so only what its result file says is shown."
    file = find_checkpoint(checkpoint, run.file)
    if file is None:
        return (
            f"The checkpoint {checkpoint} is not there, so only what the result file says is "
            "shown. Make the report in the folder that the run was started in."
        )
    of_test = changes_of_model(run.result["model"], run.result.get("changes", {}))
    changes = {**of_test, **changes}
    return analysis_or_reason(str(file), users=users, result=run.result, **changes)


def find_checkpoint(checkpoint: str, result_file: Path | None) -> Path | None:
    """The checkpoint of a run: where its result says, or near the result file.

    Args:
        checkpoint: as the result says, relative to the folder that the run was started in.
        result_file: the result.
    """
    places = [Path(checkpoint)]
    if result_file is not None:
        folder = result_file.parent
        places += [folder / checkpoint, folder / Path(checkpoint).name]
    for place in places:
        if place.exists():  # an exported model is a folder
            return place
    return None
