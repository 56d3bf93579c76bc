"""The use of a method of ours after training: lists of the best next items."""

from __future__ import annotations

from recbole_genrec.model.answers import ListOptions, Ranked
from recbole_genrec.model.lists import UserLists
from recbole_genrec.model.stored import StoredModel

__all__ = ["Ranked", "Recommending"]


class Recommending(UserLists, StoredModel):
    """Lists of the best next items; a part of :class:`~recbole_genrec.model.base.GenRecModel`.

    Attributes:
        uses_users: whether ``loss``, ``scores`` and ``ranked_lists`` take ``user``, RecBole's user
            ids ``[B]``.
    """

    uses_users: bool = False

    def rows_at_once(self) -> int:
        """Users that are ranked together."""
        raise NotImplementedError

    def list_texts(self) -> list[str]:
        """The text of each item by its id."""
        return self.content.text

    def list_titles(self) -> list[str]:
        """Titles by item id: the first text field, or the whole text."""
        return self.content.titles or self.content.text

    def list_options(self) -> ListOptions:
        """What the settings say about lists."""
        return ListOptions(
            self.settings.exclude_history,
            self.rows_at_once(),
            self.settings.shows_progress,
            self._weights_device(),
        )

    def leave_training_mode(self) -> None:
        """As torch's ``eval``, where the model is not in that mode already."""
        if self.training:  # walking through all modules would cost a single query dearly
            self.eval()
