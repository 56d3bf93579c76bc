"""Codes of users: those of the fit, or those that a history gives."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def codes_of_users(
    user: Tensor | None,
    history: Tensor,
    codes: Tensor,
    known: Tensor,
    infer: Callable[[Tensor], Tensor],
) -> Tensor:
    """Codes of users by id, or by their history where the training has none.

    Args:
        user: RecBole's user ids ``[B]``; ``None`` for users who are new.
        history: item ids ``[B, T]``, right-padded with 0.
        codes: int64 ``[n_users, L]``, row 0 = padding.
        known: bool ``[n_users]``, whether a user has a training interaction.
        infer: histories ``[b, T]`` -> codes ``[b, L]`` of new users.

    Returns:
        int64 ``[B, L]``.
    """
    if user is None:
        user = history.new_zeros(len(history))
    rows = codes[user]
    new = ~known[user]
    if new.any():
        rows[new] = infer(history[new]).to(rows.device)
    return rows
