"""Encoder input of META ID: the pairs of a user and of the history's items, put together from ids.

``prompt_style: ids`` announces them with structural tokens::

    [sequential] [user] u_1 u_2 { [sep] [item] i_1 i_2 } per item [end]
    [direct]     [user] u_1 u_2 [end]

``prompt_style: text`` has the words of ``properties/prompts/metaid.yaml`` in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_genrec.backbone import length_mask

TASKS = ("sequential", "direct")
STRUCTURE = {
    "sequential": ["<sequential>", "<user>"],
    "direct": ["<direct>", "<user>"],
    "item": ["<sep>", "<item>"],
}
"""Structural tokens before the user of each task and before each item."""


class Prompts(nn.Module):
    """The words around users and items, numbered from 0.

    Args:
        texts: text before the user of each task (``sequential``, ``direct``) and before each
            ``item``; ``None`` for structural tokens.
        tokenise: text -> tokens of the backbone's text vocabulary.

    Attributes:
        words: the tokens in use, by number.
    """

    def __init__(
        self,
        texts: Mapping[str, str] | None = None,
        tokenise: Callable[[str], Sequence[Hashable]] = str.split,
    ) -> None:
        super().__init__()
        numbers: dict[Hashable, int] = {}
        for name, structure in STRUCTURE.items():
            tokens: Sequence[Hashable] = structure
            if texts is not None:
                tokens = tokenise(texts[name])
            row = [numbers.setdefault(token, len(numbers)) for token in tokens]
            self.register_buffer(name, torch.tensor(row, dtype=torch.long), persistent=False)
        self.words = list(numbers)

    def source(
        self,
        task: str,
        first_word: int,
        end: int,
        user: Tensor,
        items: Tensor,
        length: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encoder input of one task.

        Args:
            task: one of :data:`TASKS`; ``direct`` shows no items.
            first_word: token of word 0.
            end: token that ends the input.
            user: tokens of the users' pairs ``[B, 2]``.
            items: tokens of the histories' pairs ``[B, T, 2]``.
            length: items in each history ``[B]``.

        Returns:
            Tokens and mask ``[B, S]``, right-padded.
        """
        count = len(user)
        opening = (self.get_buffer(task) + first_word).expand(count, -1)  # [B, O]
        row = torch.cat([opening, user], dim=1)  # [B, O + 2]
        ends = torch.full_like(length, row.shape[1])  # [B]
        if task == "sequential":
            before = (self.get_buffer("item") + first_word).expand(*items.shape[:2], -1)
            entries = torch.cat([before, items], dim=2)  # [B, T, I + 2]
            row = torch.cat([row, entries.flatten(1)], dim=1)  # [B, O + 2 + T * (I + 2)]
            ends = ends + length * entries.shape[2]

        row = pad(row, (0, 1)).scatter(1, ends.unsqueeze(1), end)  # [B, S]
        return row, length_mask(ends + 1, row.shape[1])
