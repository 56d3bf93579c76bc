"""Which run of a report each of the others is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recbole_genrec.report.contents import ReportEntry
from recbole_genrec.report.rows import check_baseline


def baselines(entries: Sequence[ReportEntry], name: str | None = None) -> dict[str, str]:
    """The row that the runs of each dataset are compared with.

    Args:
        entries: the runs.
        name: of the row, or of one of its runs; default the first run of RecBole's models on a
            dataset, or the first.

    Returns:
        The name of the row by dataset; a dataset without a run of that name is left out.

    Raises:
        ConfigError: ``name`` is the name of no run.
    """
    if name is not None:
        rows = {entry.name: entry.run.name for entry in entries}
        check_baseline([*rows.values(), *rows], name)
        name = rows.get(name, name)
    chosen = {}
    for dataset in dict.fromkeys(entry.run.dataset for entry in entries):
        of_dataset = [entry for entry in entries if entry.run.dataset == dataset]
        names = [entry.run.name for entry in of_dataset]
        if name is None:
            recbole = [entry.run.name for entry in of_dataset if not entry.result["report"]]
            chosen[dataset] = [*recbole, *names][0]
        elif name in names:
            chosen[dataset] = name
    return chosen


def is_baseline(entry: ReportEntry, names: Mapping[str, str]) -> bool:
    """Whether a run is one of the baseline of its dataset.

    Args:
        entry: the run.
        names: as of :func:`baselines`.
    """
    return names.get(entry.run.dataset) == entry.run.name


def references(
    entries: Sequence[ReportEntry], names: Mapping[str, str]
) -> list[ReportEntry | None]:
    """The run that each run is compared with: the baseline's on its dataset with its seed.

    Args:
        entries: the runs.
        names: as of :func:`baselines`.

    Returns:
        A run for each; ``None`` where there is none, and for the runs of the baseline.
    """
    runs = {entry.run.key: entry for entry in entries}
    found = []
    for entry in entries:
        run = entry.run
        reference = None
        if run.dataset in names and not is_baseline(entry, names):
            reference = runs.get((names[run.dataset], run.dataset, run.seed))
        found.append(reference)
    return found
