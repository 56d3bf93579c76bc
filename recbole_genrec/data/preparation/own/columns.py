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

ROLES = {"user": USERS, "item": ITEMS, "time": TIMES, "rating": RATINGS}
"""Columns of the interactions, and common names of each."""


@dataclass
class Columns:
    """The columns that an import reads.

    A name with commas is several names of one column, each file using one of them.

    Attributes:
        user: of the interactions.
        item: of the interactions.
        time: of the interactions; ``None`` = the order of the rows.
        rating: of the interactions; ``None`` = there is none.
        texts: of the items, in the order of the item text.
        guesses: sentences about what was not named.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    texts: list[str] | None = None
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


def use_one_name(tables: Sequence[Table], columns: Columns) -> None:
    """Where files name a column differently, let all call it by the first of its names.

    Args:
        tables: of the user; they get the column under its first name, too.
        columns: those with several names have the first one afterwards.

    Raises:
        DataError: a name is in none of the tables.
    """
    there = dict.fromkeys(name for table in tables for name in table.frame.columns)
    for role in ROLES:
        names = getattr(columns, role)
        if names is None or names in there or "," not in names:
            continue
        first, *others = (name.strip() for name in names.split(","))
        for name in (first, *others):
            if name not in there:
                raise DataError(
                    f"No file has a column {name!r}, which --{role} names. The columns are "
                    f"{', '.join(there)}."
                )
        setattr(columns, role, first)
        for table in tables:
            _rename(table, first, others, columns.texts or ())


def _rename(table: Table, first: str, others: Sequence[str], texts: Sequence[str]) -> None:
    """Give a column its first name in a table that has another one; texts keep theirs beside it."""
    used = [name for name in others if name in table.frame]
    if not used or first in table.frame:
        return
    if used[0] in texts:
        table.frame[first] = table.frame[used[0]]
    else:
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
    for role, common in ROLES.items():
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
