"""Random codes: the control for every other tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.settings.tokenizer_keys import CodeKeys, TokenizerSettings
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.free_codes import FreeCodes

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class RandomSettings(CodeKeys, TokenizerSettings):
    """Keys of ``tokenizer: random``."""


class RandomTokenizer(ItemTokenizer):
    """Uniform random codes: the control that shows what the content of the codes is worth.

    Args:
        config: a ``GenRecConfig``, or values by key.
        seed: of the codes; each new item draws with a seed of its own, from this and its number.

    Attributes:
        sizes: codes of each level.
    """

    name = "random"
    uses_text = False
    caps_sizes = True
    settings_class = RandomSettings
    settings: RandomSettings

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.sizes = tuple(self.settings.codebook_sizes)

    def fit(self, content: ItemContent) -> ItemCodes:
        """Draw the codes of all items with the seed, in the order of their raw ids."""
        tokens = [content.tokens[row] for row in rows_in_order_of_ids(content.tokens)]
        self.sizes = self.fitted_sizes(len(tokens) - 1)
        generator = torch.Generator().manual_seed(self.seed)
        columns = [
            torch.randint(size, (len(tokens) - 1,), generator=generator) for size in self.sizes
        ]
        learned = torch.stack(columns, dim=1)
        return ItemCodes.build(learned, self.sizes, tokens, **self.settings.collision_options)

    def encode(self, new: NewItems) -> Tensor:
        """Random codes of new items, drawn apart from the fitted ones."""
        codes = [self._draw(self._generator(row)) for row in range(len(new))]
        return torch.tensor(codes, dtype=torch.long).reshape(-1, len(self.sizes))

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """As the base says; an item draws again where its codes are full.

        Its number in the catalogue seeds the draws, so items added together get the codes that
        they would get one by one.
        """
        table = FreeCodes(existing, sizes)
        placed = []
        for number in range(len(existing), len(existing) + len(new)):
            generator = self._generator(number)
            codes = self._draw(generator)
            if len(sizes) > len(self.sizes):
                codes, _ = table.take(codes, partial(_ranked, sizes, generator))
            placed.append(codes)
        return torch.tensor(placed, dtype=torch.long).reshape(-1, len(sizes)), 0

    def _draw(self, generator: torch.Generator) -> tuple[int, ...]:
        return tuple(int(torch.randint(size, (), generator=generator)) for size in self.sizes)

    def _generator(self, number: int) -> torch.Generator:
        """The random numbers of a new item, by its number in the catalogue."""
        return torch.Generator().manual_seed(int(digest(self.seed, number), 16) % 2**63)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The sizes of the levels."""
        tensors, meta = super().state()
        return tensors, {**meta, "sizes": list(self.sizes)}

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`; earlier versions always took the sizes that were asked for."""
        super().set_state(tensors, meta)
        self.sizes = tuple(meta.get("sizes", self.settings.codebook_sizes))


def _ranked(
    sizes: Sequence[int], generator: torch.Generator, prefix: tuple[int, ...]
) -> Sequence[int]:
    """The codes after ``prefix`` in the order in which a new item tries them."""
    level = len(prefix)
    if level == len(sizes) - 1:  # the extra token counts the items with the same codes
        return range(sizes[level])
    return torch.randperm(sizes[level], generator=generator).tolist()
