"""The use of a method of ours after training: lists of the best next items."""

from __future__ import annotations

from torch import Tensor

from recbole_genrec.model.answers import ListOptions, Ranked, best_of
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

    def scores(self, history: Tensor, length: Tensor, **user: Tensor) -> Tensor:
        """Scores of all items, float32 ``[B, n_items]``; column 0 is not looked at.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``.
        """
        raise NotImplementedError

    def rows_at_once(self) -> int:
        """Users that are ranked together."""
        raise NotImplementedError

    def ranked_lists(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> list[Ranked]:
        """The best items of each user, by default those of the highest :meth:`scores`."""
        return best_of(self.scores(history, length, **user), k, candidates, excluded)

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
            self.settings.show_progress is not False,
            self._weights_device(),
        )
