"""What SETRec's language model reads: sets without an order inside, and queries side by side.

::

    [instruction] [item 1: Q tokens] .. [item H: Q tokens] [separator]      Q queries

Tokens of one item do not see each other and share one position; so do the queries
(arXiv 2502.10833, sparse attention and simultaneous generation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.protocol import Backbone
from recbole_genrec.backbone.visibility import causal, only_itself, without_siblings


@dataclass
class Layout:
    """Where everything stands in the sources of B users.

    Attributes:
        index: which entry of ``[instruction, items, separator]`` each token is, ``[B, S]``.
        valid: bool ``[B, S]``, False for padding on the right.
        positions: ``[B, S]``.
        item: place in the history of the item that a token belongs to, -1 for words, ``[B, S]``.
    """

    index: Tensor
    valid: Tensor
    positions: Tensor
    item: Tensor

    @classmethod
    def of(
        cls,
        length: Tensor,
        width: int,
        n_tokens: int,
        n_before: int,
        n_after: int,
        slots: int | None = None,
    ) -> Layout:
        """The layout of histories.

        Args:
            length: items of each history, ``[B]``.
            width: T, items of the longest.
            n_tokens: Q, tokens of an item.
            n_before: words of the instruction.
            n_after: words of the separator.
            slots: with a number, positions are the released program's: histories are padded to
                that many items on the left, and the separator's positions count every token
                before it. ``None`` = one position an item, the separator follows.
        """
        place = torch.arange(n_before + width * n_tokens + n_after, device=length.device)  # [S]
        count = length.unsqueeze(1)  # [B, 1]
        end = n_before + count * n_tokens  # [B, 1], place of the separator
        is_item = (place >= n_before) & (place < end)  # [B, S]
        after = place - end  # [B, S], place within the separator

        item = (place - n_before) // n_tokens  # [S]
        first = torch.full_like(count, n_before)  # [B, 1], position of the first item
        closing = first + count  # [B, 1], position of the separator
        if slots is not None:
            first = first + slots - count
            closing = torch.full_like(count, n_before + slots * n_tokens)
        words = torch.where(place < n_before, place, closing + after)  # [B, S]
        index = torch.where(place < end, place, n_before + width * n_tokens + after)  # [B, S]
        return cls(
            index=index.clamp(max=len(place) - 1),
            valid=after < n_after,
            positions=torch.where(is_item, first + item, words),
            item=torch.where(is_item, item, -1),
        )


class SetReader(nn.Module):
    """Histories of item sets -> one state for each token of the next item.

    Args:
        backbone: the language model.
        words: embeddings of the words of the instruction and the separator.
        instruction: their rows in ``words``, ``[a]``.
        separator: their rows in ``words``, ``[r]``.
        n_tokens: Q, tokens of an item and number of queries.
        query_std: spread of the query vectors at the start.
        is_causal: whether the language model is decoder-only.
        official_mask: the released T5's: siblings see each other, and a query's attention score to
            itself is raised by 1, with nothing hidden from it.
        slots: as in :meth:`Layout.of`.
    """

    instruction: Tensor
    separator: Tensor

    def __init__(
        self,
        backbone: Backbone,
        words: nn.Embedding,
        instruction: Tensor,
        separator: Tensor,
        n_tokens: int,
        query_std: float = 0.02,
        is_causal: bool = False,
        official_mask: bool = False,
        slots: int | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.words = words
        self.register_buffer("instruction", instruction, persistent=False)
        self.register_buffer("separator", separator, persistent=False)
        self.queries = nn.Parameter(torch.randn(n_tokens, words.embedding_dim) * query_std)
        self.is_causal = is_causal
        self.official_mask = official_mask
        self.slots = slots

    @property
    def n_tokens(self) -> int:
        """Q, the number of queries."""
        return len(self.queries)

    def forward(self, items: Tensor, length: Tensor) -> Tensor:
        """One state for each query.

        Args:
            items: tokens of the items of each history, ``[B, T, Q, d]``, padding on the right.
            length: ``[B]``, at least 1.

        Returns:
            ``[B, Q, d]``.
        """
        source, layout = self.source(items, length)
        positions = layout.positions
        item = layout.item
        if bool((length == length[0]).all()):  # one layout for all of them
            positions = positions[0]
            item = item[:1]
        sees = self.visible(item)
        if sees is not None and len(sees) == 1:
            sees = sees[0]  # [S, S]
        memory = self.backbone.read(source, layout.valid, positions=positions, sees=sees)

        together = torch.zeros(self.n_tokens, dtype=torch.long, device=length.device)
        return self.backbone.decode(
            self.queries.expand(len(items), -1, -1),
            memory,
            positions=together,
            sees=self.query_mask(),
        )

    def source(self, items: Tensor, length: Tensor) -> tuple[Tensor, Layout]:
        """The embeddings ``[B, S, d]`` that the language model reads, and their layout."""
        rows, width = items.shape[:2]
        before = len(self.instruction)
        after = len(self.separator)
        layout = Layout.of(length, width, self.n_tokens, before, after, self.slots)
        entries = [
            self.words(self.instruction).expand(rows, -1, -1),  # [B, a, d]
            items.flatten(1, 2),  # [B, T * Q, d]
            self.words(self.separator).expand(rows, -1, -1),  # [B, r, d]
        ]
        sequence = torch.cat(entries, dim=1)  # [B, S, d]
        index = layout.index.unsqueeze(2).expand_as(sequence)
        return sequence.gather(1, index), layout

    def visible(self, item: Tensor) -> Tensor | None:
        """Which token sees which, bool ``[B, S, S]``; ``None`` = all.

        Args:
            item: as in :class:`Layout`.
        """
        if self.official_mask:
            return None
        sees = without_siblings(item)
        if self.is_causal:
            sees = sees & causal(item.shape[1], item.device)
        return sees

    def query_mask(self) -> Tensor:
        """Which query sees which, ``[Q, Q]``: itself alone."""
        itself = only_itself(self.n_tokens, self.queries.device)
        if self.official_mask:
            return itself.to(self.queries.dtype)  # added to the attention scores
        return itself
