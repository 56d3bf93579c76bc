"""What fills the slots of LC-Rec's prompts: items, histories, texts of users."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

AnyCase = TypeVar("AnyCase", bound="Case")


@dataclass(frozen=True)
class Case:
    """What fills the slots of n prompts of one task.

    Attributes:
        item: the item that is described or comes next ``[n]``.
        person: row of the user texts ``[n]``.
        user: RecBole's user ids ``[n]``, for messages.
    """

    item: Tensor
    person: Tensor | None = field(default=None, kw_only=True)
    user: Tensor | None = field(default=None, kw_only=True)

    def pick(self: AnyCase, rows: Tensor, device: torch.device) -> AnyCase:
        """Some of the prompts.

        Args:
            rows: rows of the prompts ``[m]``.
            device: where the result is used.
        """
        values = {
            name: value[rows].to(device) for name, value in vars(self).items() if value is not None
        }
        return replace(self, **values)


@dataclass(frozen=True)
class HistoryCase(Case):
    """Prompts about users.

    Attributes:
        history: items before the next one ``[n, T]``, right-padded with 0.
        length: number of items in each history ``[n]``.
    """

    history: Tensor
    length: Tensor


@dataclass(frozen=True)
class TargetsCase(HistoryCase):
    """Recommendations with several targets each.

    Attributes:
        following: the item after each position of the history ``[n, T]``.
        is_target: which of these are targets, bool ``[n, T]``.
    """

    following: Tensor
    is_target: Tensor
