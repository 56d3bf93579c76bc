"""The file of ranks beside a result: the place of each test user's item in their list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.report.ranks import (
    UserRanks,
    digest_of_test,
    evaluated_cases,
    ranks_folder,
    ranks_from_hits,
)


class RankFile:
    """Stores ranks as ``save_ranks`` says, for the run of a model and for later tests of it.

    Args:
        config: the settings of the test; reads ``save_ranks``, ``metrics`` and ``topk``.
        loader: RecBole's loader of the test split, or ``None``.

    Attributes:
        cases: raw ids of the test users and of their items, or ``None`` where no ranks are stored.

    Raises:
        ConfigError: with ``save_ranks: True``, a test that gives no rank for each user.
    """

    def __init__(self, config: GenRecConfig, loader: Any) -> None:
        self._settings = config.settings
        self._demanded = config.settings.save_ranks is True
        self.cases: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        if not config.settings.save_ranks or loader is None:
            return
        try:
            self.cases = evaluated_cases(loader)
        except ConfigError:
            if self._demanded:
                raise

    def check(self, collector: Any) -> None:
        """Check that the metrics make RecBole collect ranked lists.

        Args:
            collector: RecBole's collector of the evaluation.

        Raises:
            ConfigError: with ``save_ranks: True``, they do not.
        """
        if self.cases is None or collector.register.need("rec.topk"):
            return
        if self._demanded:
            raise ConfigError(
                f"save_ranks needs a metric of ranked lists, but metrics is "
                f"{self._settings.metrics}. Add Recall or NDCG."
            )
        self.cases = None

    def write(self, collector: Any, test: dict[str, Any], result_file: str | Path) -> str | None:
        """Store the ranks beside a result file.

        Args:
            collector: RecBole's collector after the test.
            test: entries of the result with the metrics of the test.
            result_file: the result file.

        Returns:
            The name of the folder, or ``None`` where no ranks are stored: a test of several
            variants has several lists for each user.
        """
        if self.cases is None or "test_variants" in test:
            return None
        users, targets = self.cases
        folder = ranks_folder(result_file)
        depth = max(self._settings.topk)
        ranks = UserRanks(
            ranks_from_hits(collector.hits),
            users,
            depth,
            targets,
            test_digest=digest_of_test(test["test_result"]),
        )
        ranks.save(folder)
        return folder.name
