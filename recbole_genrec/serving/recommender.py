"""A trained model behind the service: by raw ids, in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.served import Served
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.lists.beam_trace import TracedLevel, trace_search
from recbole_genrec.model.lists.queries import Query
from recbole_genrec.model.registry import reads_codes
from recbole_genrec.serving.titles import TitleIndex


class Recommender:
    """What the service asks of a trained model.

    :meth:`answer`, :meth:`trace` and :meth:`add_item` use the model and belong to one thread. The
    others only read what does not change, or only grows.

    Args:
        served: the model and what its users have chosen.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self.model = served.model
        settings = served.config.settings
        self.name = settings.model
        self.dataset = settings.dataset
        self.excludes_seen = settings.exclude_history
        tokens = self.model.catalogue.items
        self.titles = TitleIndex(tokens, [self._title(item) for item in range(len(tokens))])
        self.has_walk = self.has_codes and self.model.has_one_tree

    def _title(self, item: int) -> str:
        """The title of an item by its internal id; its raw id where it has none."""
        return self.model.list_titles()[item] or self.model.catalogue.items[item]

    @property
    def n_items(self) -> int:
        """Number of items that can be recommended."""
        return len(self.titles)

    @property
    def has_codes(self) -> bool:
        """Whether items have codes that the model reads."""
        is_coded = isinstance(self.model, GenerativeRecommender)
        return is_coded and reads_codes(self.served.config)

    @property
    def takes_new_items(self) -> bool:
        """Whether the model can take in an item by its text without training."""
        if not isinstance(self.model, GenRecModel):
            return False
        return self.model.places_by_text

    @property
    def example_text(self) -> str:
        """The beginning of the text of an item, to show what such texts look like."""
        return self.model.list_texts()[1][:200]

    @property
    def code_sizes(self) -> list[int] | None:
        """Alphabet sizes of the code levels."""
        if not self.has_codes:
            return None
        return list(self.model.level_sizes)

    def query(
        self,
        history: Sequence[str] | None,
        user: str | None,
        k: int,
        candidates: Sequence[str] | None,
        exclude_seen: bool | None,
        excluded: Sequence[str] | None = None,
    ) -> Query:
        """The query of a request; its ids are known and it can be answered.

        Args:
            history: raw item ids, oldest first; or
            user: raw id of a user of the data.
            k: length of the list.
            candidates: raw ids to choose among.
            exclude_seen: whether the history's items are left out; default as the model was
                evaluated.
            excluded: raw ids that are left out besides; unknown ones cannot be in a list anyway.

        Raises:
            ConfigError: an unknown id, an empty history or list, or not exactly one of history and
                user.
        """
        if (history is None) == (user is None):
            raise ConfigError("Give either a history (item ids, oldest first) or a user.")
        person = None
        items = list(history or [])
        if user is not None:
            items, person = self.served.chosen_by(user, "Give a history.")
        query = Query(items, k, candidates, person, self._left_out(items, exclude_seen, excluded))
        query.check()
        self.model.catalogue.item_ids([*items, *(candidates or [])])
        return query

    def _left_out(
        self, history: list[str], exclude_seen: bool | None, excluded: Sequence[str] | None
    ) -> list[str] | None:
        """The items that a list may not hold; ``None`` leaves it to the model's settings."""
        if exclude_seen is None and excluded is None:
            return None
        if exclude_seen is None:
            exclude_seen = self.model.list_options().exclude_history
        known = [item for item in excluded or [] if self.model.catalogue.has_item(item)]
        return [*history, *known] if exclude_seen else known

    def answer(self, queries: Sequence[Query]) -> list[list[dict[str, Any]]]:
        """The lists of some queries, each as ``recommend`` gives it, with titles and codes."""
        return [self._with_codes(rows) for rows in self.model.recommend_batch(queries)]

    def _with_codes(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items = self.model.catalogue.item_ids([row["item"] for row in rows])
        codes: list[list[int]] | list[None] = [None] * len(rows)
        if self.has_codes:
            codes = self.model.codes[items].tolist()
        return [
            {
                "rank": row["rank"],
                "item": row["item"],
                "title": self._title(item),
                "text": row["text"],
                "score": row["score"],
                "certified": row.get("certified"),
                "codes": item_codes,
            }
            for row, item, item_codes in zip(rows, items, codes, strict=True)
        ]

    def trace(self, query: Query, shown: int) -> tuple[list[TracedLevel], list[dict[str, Any]]]:
        """The walk of the search for a query, and its list.

        Raises:
            ConfigError: no walk along one tree makes the lists of the model.
        """
        if not self.has_walk:
            raise ConfigError(
                f"{self.name}: no walk along one tree of codes makes its lists, so there is none "
                "to show."
            )
        levels, rows = trace_search(self.model, query, shown)
        return levels, self._with_codes(rows)

    def add_item(self, text: str, item: str | None) -> dict[str, Any]:
        """Make a new item recommendable.

        Args:
            text: of the item.
            item: its raw id; default a new one.

        Returns:
            ``{"item", "title", "codes"}``.

        Raises:
            ConfigError: the text is empty, the id is taken, or the model cannot take in items by
                their text.
        """
        if not text.strip():
            raise ConfigError("The text of the new item is empty. Describe the item.")
        if item is not None and not item.strip():
            raise ConfigError("The id of the new item is empty. Leave it out for a new one.")
        if not isinstance(self.model, GenRecModel):
            raise ConfigError(
                f"{self.name} cannot take in new items without training. Add them to the dataset "
                "and train again."
            )
        tokens = None if item is None else [item]
        number = self.model.add_items([text], tokens)[0]
        token = self.model.catalogue.items[number]
        title = self._title(number)
        self.titles.extend([token], [title])
        codes = self.model.codes[number].tolist() if self.has_codes else None
        return {"item": token, "title": title, "codes": codes}
