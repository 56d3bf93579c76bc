"""The demonstration: a shop that the package makes, two models, and a report, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.data.preparation.toy_shop import FIELDS, NAME, write_toy_shop
from recbole_genrec.experiments.report import write_report
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.report.result_files import result_file

MODELS = "Pop,TimelineRec"
SETTINGS: dict[str, Any] = {
    "item_text_fields": list(FIELDS),
    "topk": [1, 5, 10],
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "TimelineRec.codebook_sizes": [10, 5],
    "TimelineRec.epochs": 30,
    "TimelineRec.stopping_step": 30,
    "TimelineRec.eval_step": 5,
}
"""Small because the shop is (our choice): a hobby and a product of it are two codes."""


def run_demo(folder: str | Path, quiet: bool = False) -> tuple[dict[str, dict[str, Any]], Path]:
    """Make the shop, train and test on it, and write the report.

    Args:
        folder: everything is written below it.
        quiet: whether warnings alone are logged.

    Returns:
        The results by model, and the report.
    """
    folder = Path(folder)
    write_toy_shop(folder)
    places = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
    }
    if quiet:
        places["state"] = "WARNING"
    results = run_recbole_genrec(MODELS, NAME, config_dict={**SETTINGS, **places})
    files = [result_file(result) for result in results.values()]
    page = write_report(files, folder / "report.html", baseline="Pop")
    return dict(results), page
