"""Texts about users that were written outside the package, from training interactions only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from recbole_genrec.errors import DataError

KINDS = ("preference", "query")


def read_user_texts(path: str | Path, users: Sequence[str]) -> dict[int, dict[str, str]]:
    """Texts by RecBole user id, users of the dataset only.

    Args:
        path: JSON ``{user token: {"preference": what the user likes, "query": what the user was
            looking for last in training}}``.
        users: raw user ids by RecBole user id; entry 0 is the padding user.

    Raises:
        DataError: the file cannot be read, an entry lacks a text, or it names no user of the
            dataset.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"The user texts {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            f"The user texts {path} must hold one object: user id -> {{preference, query}}."
        )
    number = {str(token): user for user, token in enumerate(users) if user}
    texts_of_user = {}
    for token, texts in content.items():
        if not isinstance(texts, dict) or not all(
            isinstance(texts.get(kind), str) and texts[kind].strip() for kind in KINDS
        ):
            raise DataError(
                f"{path}: user {token!r} needs the texts 'preference' and 'query', got {texts!r}."
            )
        if token in number:
            texts_of_user[number[token]] = {kind: " ".join(texts[kind].split()) for kind in KINDS}
    if not texts_of_user:
        raise DataError(
            f"{path} names no user of the dataset; its users look like "
            f"{', '.join(map(repr, list(content)[:3]))}."
        )
    return texts_of_user
