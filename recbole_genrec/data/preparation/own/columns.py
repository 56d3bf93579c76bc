"""Which column of a user's table means what: as named, or by the names that are common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from recbole_genrec.data.preparation.own.tables import Table
from recbole_genrec.errors import DataError
from recbole_genrec.settings.rules import nearest

USERS = (
    *("user_id", "user", "userid", "uid", "customer_id", "customer", "customerid", "client_id"),
    *("client", "visitor_id", "visitorid", "visitor", "member_id", "member", "account_id"),
    *("account", "buyer_id", "buyer", "reviewer_id", "reviewerid", "session_id", "sessionid"),
)
ITEMS = (
    *("item_id", "item", "itemid", "iid", "sku", "product_id", "product", "productid"),
    *("article_id", "article", "articleid", "asin", "parent_asin", "ean", "isbn", "movie_id"),
    *("movieid", "movie", "track_id", "song_id", "book_id", "video_id", "news_id", "id"),
)
TIMES = (
    *("timestamp", "time", "ts", "datetime", "date_time", "event_time", "created_at", "created"),
    *("date", "order_date", "purchase_date", "bought_at", "unixreviewtime", "unix_time", "t"),
)
RATINGS = ("rating", "ratings", "stars", "overall", "score")
TEXTS = (
    *("title", "name", "product_name", "item_name", "product_title", "movie_title", "brand"),
    *("manufacturer", "artist", "author", "category", "categories", "class", "genre", "genres"),
    *("type", "color", "colour", "size", "price", "release_year", "year", "description", "text"),
)


@dataclass
class Columns:
    """The columns that an import reads.

    Attributes:
        user: of the interactions.
        item: of the interactions.
        time: of the interactions; ``None`` = the order of the rows.
        rating: of the interactions; ``None`` = there is none.
        texts: of the items, in the order of the item text.
        same: groups of names that stand for one column, each file using one of them; the first of
            a group is the one that the other attributes say.
        guesses: sentences about what was not named.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    texts: list[str] | None = None
    same: list[list[str]] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)


def plain_name(name: str) -> str:
    """A column's name in lower case, ``Customer Id`` and ``customer-id`` as ``customer_id``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def guessed(names: Sequence[str], common: Sequence[str]) -> str | None:
    """The column whose name is the first of the common ones that is there."""
    plain = {plain_name(name): name for name in reversed(names)}
    for name in common:
        if name in plain:
            return plain[name]
    return None


def use_first_names(tables: Sequence[Table], groups: Sequence[Sequence[str]]) -> None:
    """Call a column by the first of its names, in every table that uses another one.

    Args:
        tables: of the user; their columns are renamed.
        groups: names that stand for one column.

    Raises:
        DataError: a name is in none of the tables.
    """
    there = dict.fromkeys(name for table in tables for name in table.frame.columns)
    for first, *others in groups:
        for name in (first, *others):
            if name not in there:
                raise DataError(
                    f"No file has a column {name!r}. The columns are {', '.join(there)}."
                )
        for table in tables:
            used = [name for name in others if name in table.frame]
            if used and first not in table.frame:
                table.frame = table.frame.rename(columns={used[0]: first})


def check_named(table: Table, name: str, flag: str) -> None:
    """Refuse a column that the table does not have.

    Raises:
        DataError: names the columns that are there.
    """
    names = list(table.frame.columns)
    if name in names:
        return
    near = nearest(name, names)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{table.path} has no column {name!r}, which --{flag} names; its columns are "
        f"{', '.join(names)}.{hint}"
    )


def is_interactions(table: Table, columns: Columns) -> bool:
    """Whether a table holds interactions: it has a column of users."""
    names = list(table.frame.columns)
    if columns.user is not None:
        return columns.user in names
    return guessed(names, USERS) is not None


def find_interaction_columns(table: Table, columns: Columns) -> None:
    """Fill in what was not named, by the first table of interactions.

    Raises:
        DataError: a column is named that is not there, or one that is needed cannot be guessed.
    """
    names = list(table.frame.columns)
    common_names = {"user": USERS, "item": ITEMS, "time": TIMES, "rating": RATINGS}
    for role, common in common_names.items():
        name = getattr(columns, role)
        if name is not None:
            check_named(table, name, role)
            continue
        taken = {columns.user, columns.item, columns.time}
        guess = guessed([name for name in names if name not in taken], common)
        if guess is not None:
            setattr(columns, role, guess)
            columns.guesses.append(f"{role}: {guess} (guessed; --{role} names another)")
        elif role in ("user", "item"):
            raise DataError(
                f"{table.path}: which column holds the {role}s? Its columns are "
                f"{', '.join(names)}. Say --{role}=COLUMN."
            )
    if columns.time is None:
        columns.guesses.append("time: none, so the rows count in the order of the file")


def item_column(table: Table, columns: Columns) -> str:
    """The column of item ids in a table of items.

    Raises:
        DataError: it cannot be told.
    """
    names = list(table.frame.columns)
    if columns.item in names:
        return str(columns.item)
    guess = guessed(names, ITEMS)
    if guess is None:
        question = f"{table.path}: which column holds the items? Its columns are {', '.join(names)}"
        if columns.item is None:
            raise DataError(f"{question}. Say --item=COLUMN.")
        raise DataError(
            f"{question}; none is called {columns.item!r}, as in the interactions. Say "
            f"--item={columns.item},COLUMN."
        )
    columns.guesses.append(f"items of {table.path.name}: {guess} (guessed)")
    return guess
