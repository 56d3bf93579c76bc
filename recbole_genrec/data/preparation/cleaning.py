"""From raw interactions and metadata to what RecBole reads without loss.

K-core, order in time, clean text.
"""

from __future__ import annotations

import ast
import html
import re

import numpy as np
import pandas as pd

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_PRICE = re.compile(r"\$?\d[\d.,]*( - \$?\d[\d.,]*)?")


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Mask ``[n]`` of the largest subset whose users and items have ``k`` interactions each.

    ``users`` and ``items`` are codes 0, 1, ...; the subset is unique, so the order of removal does
    not matter.
    """
    rows = np.arange(len(users))
    while len(rows):
        strong = (np.bincount(users[rows])[users[rows]] >= k) & (
            np.bincount(items[rows])[items[rows]] >= k
        )
        if strong.all():
            break
        rows = rows[strong]
    mask = np.zeros(len(users), dtype=bool)
    mask[rows] = True
    return mask


def in_time_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by user and time, ties in file order, and keep the first of equal pairs."""
    users = pd.factorize(frame["user_id"])[0]
    frame = frame.iloc[np.lexsort((frame["timestamp"].to_numpy(), users))]
    return frame.drop_duplicates(["user_id", "item_id"], keep="first", ignore_index=True)


def keep_core(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """The k-core of ``frame`` (columns ``user_id``, ``item_id``), rows in their order."""
    users, _ = pd.factorize(frame["user_id"])
    items, _ = pd.factorize(frame["item_id"])
    return frame[k_core(users, items, k)].reset_index(drop=True)


def positions(users: pd.Series) -> np.ndarray:
    """1, 2, ... within each user of rows sorted by user, which RecBole's float32 holds."""
    return users.groupby(users, sort=False).cumcount().to_numpy() + 1


def clean_text(value: str) -> str:
    """One line of plain text: no HTML, no control characters, no double quotes."""
    value = html.unescape(html.unescape(value))  # catalogues escape twice: &amp;amp;
    value = _CONTROL.sub(" ", _TAG.sub(" ", value)).replace('"', "")
    return " ".join(value.split())


def clean_price(value: str) -> str:
    """A price or a price range; anything else is empty (style sheets in the 2018 data)."""
    value = clean_text(value)
    return value if _PRICE.fullmatch(value) else ""


def clean_categories(value: str | list) -> str:
    """Categories as RecBole tokens: the words of each joined by ``_``, each once, in order.

    ``value`` is a (nested) list, a printed Python list or set with or without its brackets, or
    plain text, which is only cleaned.
    """
    if isinstance(value, str):
        value = value.strip()
        if not value.startswith(("[", "{", "(", "'", '"')):
            return clean_text(value)
        value = _parse_printed(value)
    names = []
    for name in _flatten(value):
        if "</" in name:  # the 2018 catalogue appends pieces of its page after the path
            break
        names.append("_".join(clean_text(name).split()))
    return " ".join(dict.fromkeys(filter(None, names)))


def _parse_printed(value: str) -> list:
    """Elements of a printed collection in printed order.

    A set is read as a list, because a set has no order.
    """
    inner = value[1:-1] if (value[0], value[-1]) in {("[", "]"), ("{", "}"), ("(", ")")} else value
    try:
        return ast.literal_eval(f"[{inner}]")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return re.split(r"\s*,\s*", re.sub(r"[\[\](){}'\"]", "", value))


def _flatten(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [name for part in value for name in _flatten(part)]
    return [str(value)]
