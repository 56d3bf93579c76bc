"""The items and users that a model knows, by raw id: people's names for RecBole's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from recbole_genrec.data.files.cell_values import RESERVED
from recbole_genrec.data.given_ids import check_ids, raw_id
from recbole_genrec.errors import ConfigError

NO_UNICODE = "holds half a character (a lone surrogate), which UTF-8 cannot write"


class Catalogue:
    """Raw ids by internal id; entry 0 is the padding item or user.

    Args:
        items: raw ids of the dataset's items.
        users: raw ids of the dataset's users.

    Attributes:
        without_interactions: raw ids of the ``.item`` file that are no items, for messages.
        chosen: raw ids of the items that users of the loaded data chose.
    """

    def __init__(self, items: list[str], users: list[str]):
        self.items = items
        self.users = users
        self.n_dataset_items = len(items)
        self.without_interactions: set[str] = set()
        self.chosen: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._numbers_of_users: dict[str, int] = {}

    @property
    def added(self) -> list[str]:
        """Raw ids of the items that are not in the dataset."""
        return self.items[self.n_dataset_items :]

    def item_ids(self, tokens: Sequence[str], where: str = "") -> list[int]:
        """Internal ids of raw item ids.

        Args:
            tokens: raw item ids.
            where: ends the error message, for example ``" in items.txt"``.

        Raises:
            ConfigError: an unknown id, whose first one the message names, or no list of ids.
        """
        check_ids("items", tokens)
        numbers = self.item_numbers()
        ids = [raw_id(token) for token in tokens]
        unknown = [token for token in ids if token not in numbers]
        if unknown:
            count = f"{len(unknown)} of {len(ids)} ids are unknown"
            raise ConfigError(
                f"There is no item {unknown[0]!r} ({count}){where}. {self._remedy(unknown[0])}"
            )
        return [numbers[token] for token in ids]

    def _remedy(self, item: str) -> str:
        if item in self.without_interactions:
            return (
                "It stands in the .item file but occurs in no interaction, so it is not in the "
                "catalogue. Add it with add_items, or train with --catalogue=item_file."
            )
        return "Give ids of the data."

    def has_item(self, token: str) -> bool:
        """Whether a raw item id is known."""
        return raw_id(token) in self.item_numbers()

    def user_id(self, token: str) -> int:
        """Internal id of a raw user id.

        Raises:
            ConfigError: an unknown id.
        """
        user = raw_id(token)
        if not self.has_user(user):
            raise ConfigError(
                f"There is no user {user!r} in the dataset. Leave the user out for somebody new."
            )
        return self.user_numbers()[user]

    def has_user(self, token: str) -> bool:
        """Whether a raw user id is known."""
        return raw_id(token) in self.user_numbers()

    def item_numbers(self) -> Mapping[str, int]:
        """Internal ids by raw id, without the padding; items are only ever added."""
        for number in range(len(self._numbers) + 1, len(self.items)):
            self._numbers[self.items[number]] = number
        return self._numbers

    def user_numbers(self) -> Mapping[str, int]:
        """Internal ids by raw id, without the padding."""
        if len(self._numbers_of_users) != len(self.users) - 1:
            users = enumerate(self.users[1:], start=1)
            self._numbers_of_users = {user: number for number, user in users}
        return self._numbers_of_users

    def new_items(self, texts: Sequence[str], tokens: Sequence[str] | None = None) -> list[str]:
        """Raw ids of items that are about to be added.

        Args:
            texts: one text an item.
            tokens: their raw ids, texts or whole numbers; default ``new-<internal id>``.

        Raises:
            ConfigError: ``texts`` is no list of texts, an id is taken or missing, or a file could
                not hold an id or a text.
        """
        is_list = isinstance(texts, Collection) and not isinstance(texts, str | Mapping)
        if not is_list or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"texts must be a list with one text an item, got {texts!r:.80}.")
        first = len(self.items)
        if tokens is None:
            names = [f"new-{first + number}" for number in range(len(texts))]
        else:
            check_ids("tokens", tokens)
            names = [raw_id(token) for token in tokens]
        self._check_names(names)
        if len(names) != len(texts):
            raise ConfigError(f"{len(texts)} new items need as many ids, got {len(names)}.")
        taken = [name for name in names if self.has_item(name)]
        if taken:
            raise ConfigError(f"Item {taken[0]!r} exists already. Give new items new ids.")
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ConfigError(f"{repeated[0]!r} is the id of several new items. Give each its own.")
        for name, text in zip(names, texts, strict=True):
            if not _is_unicode(text):
                raise ConfigError(f"The text of the new item {name!r} {NO_UNICODE}. Repair it.")
        return names

    def _check_names(self, names: Sequence[str]) -> None:
        """Refuse ids that a file of interactions could not hold.

        Raises:
            ConfigError: names the first one.
        """
        known = self.item_numbers()
        for name in names:
            reason = None
            if not name.strip() or name in RESERVED:
                reason = "stands for a missing value or for padding in files"
            elif any(mark in name for mark in "\t\n\r"):
                reason = "holds a tab or a line end"
            elif not _is_unicode(name):
                reason = NO_UNICODE
            elif name != name.strip() and name.strip() in known:
                reason = f"differs from {name.strip()!r}, an item, in spaces alone"
            if reason is not None:
                raise ConfigError(f"The id {name!r} of a new item {reason}. Give another id.")


def _is_unicode(text: str) -> bool:
    """Whether a text can be written, to a file or to an answer of the service."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
