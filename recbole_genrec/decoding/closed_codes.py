"""Codes that leave the softmax of a training step, as ``exclude_history_in_training`` says (ours).

A code leaves where every item below it stands in the history: it could only end in an item that no
list may hold. The codes of the target never leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.trie import ItemTrie


def histories_of(history: Tensor, is_target: Tensor) -> Tensor:
    """The items up to each position that has a target.

    Args:
        history: item ids ``[B, T]``, right-padded with 0.
        is_target: bool ``[B, T]``, positions whose next item is learned.

    Returns:
        Item ids ``[P, T]``, 0 = none, one row for each target.
    """
    n_slots = history.shape[1]
    so_far = history.unsqueeze(1).expand(-1, n_slots, -1).tril()  # [B, T, T]
    return so_far[is_target]


def without_targets(history: Tensor, target: Tensor) -> Tensor:
    """Histories in which the target, where it stands there, is replaced by 0.

    Args:
        history: item ids ``[P, H]``, 0 = none.
        target: item ids ``[P]``.
    """
    return history.masked_fill(history == target.unsqueeze(1), 0)


class ClosedCodes:
    """The codes that leave the softmax of each level, given the codes of the target before it.

    Args:
        codes: for each level int64 ``[P, H]``, the codes that leave, -1 = none. Without levels
            all codes compete.
    """

    def __init__(self, codes: Sequence[Tensor] = ()) -> None:
        self.codes = codes

    @classmethod
    def of(cls, trie: ItemTrie, target: Tensor, history: Tensor) -> ClosedCodes:
        """The codes below which all items stand in the history.

        Args:
            trie: the trie of the items.
            target: item ids ``[P]`` with a code tuple.
            history: item ids ``[P, H]`` that do not compete with the target, 0 = none. The target
                itself competes, whether it stands there or not.
        """
        exclusion = Exclusion(trie, without_targets(history, target))
        path = trie.paths(trie.leaf_of_item[target])
        closed = []
        for depth, level in enumerate(trie.levels):
            nodes = exclusion.closed[depth + 1]  # [P, H]; one past the last node = none
            follows_path = level.parent[nodes] == path[depth].unsqueeze(1)
            closed.append(torch.where(follows_path, level.code[nodes].long(), -1))
        return cls(closed)

    def hide(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The logits of each level, -inf at the codes that leave.

        Args:
            blocks: logits ``[P, V_level]`` of the levels in order; further ones stay as they are.

        Yields:
            ``[P, V_level]``.
        """
        for level, block in enumerate(blocks):
            if level < len(self.codes):
                block = block.masked_fill(self.leaving(level, block.shape[-1]), -torch.inf)
            yield block

    def leaving(self, level: int, size: int) -> Tensor:
        """Which codes of a level leave, bool ``[P, size]``."""
        return marked(self.codes[level], size)

    def hide_tokens(self, logits: Tensor, first: Sequence[int]) -> Tensor:
        """Logits over one vocabulary of all levels, -inf at the codes that leave.

        Args:
            logits: ``[P, L', V]``, row l predicts the code of level l; further rows, such as that
                of an end token, stay as they are.
            first: token of code 0 of each level.
        """
        if not self.codes:
            return logits
        n_rows, width = logits.shape[1:]
        return logits.masked_fill(self.tokens(first, n_rows, width), -torch.inf)

    def tokens(self, first: Sequence[int], n_rows: int, width: int) -> Tensor:
        """Which tokens of one vocabulary of all levels leave.

        Args:
            first: token of code 0 of each level.
            n_rows: L', number of rows; none leaves in those behind the levels.
            width: V, number of tokens.

        Returns:
            Bool ``[P, L', V]``.
        """
        rows = []
        for codes, start in zip(self.codes, first, strict=False):
            tokens = torch.where(codes < 0, -1, codes + start)
            rows.append(marked(tokens, width))
        leaves = torch.stack(rows, 1)  # [P, L, V]
        return pad(leaves, (0, 0, 0, n_rows - leaves.shape[1]))


ALL_OPEN = ClosedCodes()
"""All codes compete."""


def marked(columns: Tensor, width: int) -> Tensor:
    """Bool ``[P, width]``, true at ``columns`` int64 ``[P, H]``, of which -1 marks none."""
    mask = columns.new_zeros(len(columns), width + 1, dtype=torch.bool)
    mask.scatter_(1, columns.masked_fill(columns < 0, width), True)
    return mask[:, :width]
