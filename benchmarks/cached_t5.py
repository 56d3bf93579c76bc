"""A beam search of T5 as one writes it by hand for speed: the strongest simple rival of ours.

The encoder runs once a user, and so do the keys and values of cross-attention, which all beams of
the user read. Keys and values of self-attention stand in buffers of fixed size, one row a beam,
which are reordered by index when beams are. A constraint says which codes may follow: a dense table
of children, STATIC's published code, or nothing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Slots(NamedTuple):
    """What may follow B x K prefixes, W slots each.

    Attributes:
        values: log-probabilities, -inf = nothing, ``[B, K, W]``.
        codes: int64 ``[B, K, W]``; None = the slot is the code.
        states: of the constraint after the slot's code, ``[B, K, W]``.
    """

    values: Tensor
    codes: Tensor | None
    states: Tensor


class DenseTable:
    """Children of each prefix in a dense table for each level.

    Args:
        codes: of the items, int64 ``[n, L]``, each row once.
        size: alphabet size of each level.
    """

    def __init__(self, codes: Tensor, size: int):
        self.tables = []
        nodes = torch.zeros(len(codes), dtype=torch.int64)
        for column in codes.unbind(1):
            edges, after = torch.unique(nodes * size + column, return_inverse=True)
            table = torch.full((int(nodes.max()) + 1, size), -1, dtype=torch.int32)
            table.view(-1)[edges] = torch.arange(len(edges), dtype=torch.int32)
            self.tables.append(table)
            nodes = after
        # the item of each path, by the number of its last node
        self.items = torch.empty(len(codes), dtype=torch.int64)
        self.items[nodes] = torch.arange(1, len(codes) + 1)

    def items_of(self, paths: Tensor) -> Tensor:
        """The items of paths ``[..., L]``."""
        nodes = torch.zeros(paths.shape[:-1], dtype=torch.int64)
        for table, codes in zip(self.tables, paths.unbind(-1), strict=True):
            nodes = table[nodes, codes].long()
        return self.items[nodes]

    def root(self, users: int) -> Tensor:
        """States ``[B, 1]`` before the first code."""
        return torch.zeros(users, 1, dtype=torch.int64)

    def follow(self, level: int, states: Tensor, log_probs: Tensor) -> Slots:
        """What may follow prefixes in ``states [B, K]``; ``log_probs [B, K, V]``."""
        rows = self.tables[level].index_select(0, states.flatten()).view(log_probs.shape)
        return Slots(log_probs.masked_fill(rows < 0, -torch.inf), None, rows)


class NoTable(DenseTable):
    """No constraint: every code may follow; lists hold codes of no item."""

    def follow(self, level: int, states: Tensor, log_probs: Tensor) -> Slots:
        """As of :class:`DenseTable`."""
        return Slots(log_probs, None, torch.zeros((), dtype=torch.int32).expand(log_probs.shape))


class Static(DenseTable):
    """The published PyTorch code of STATIC (arXiv 2602.22647), two dense levels as it recommends.

    Its own loop has no place for a decoder with a cache, which must know the parents of beams. So
    the functions of its step are called here in the order of its loop.

    Args:
        codes: of the items, int64 ``[n, L]``, each row once.
        size: alphabet size of each level.
        folder: a copy of its repository.
        beams: its ``tokens_per_beam``; as many as there are beams lose nothing.
        items: whether the lists are read, which needs the tables of :class:`DenseTable`.
    """

    def __init__(self, codes: Tensor, size: int, folder: str, beams: int, items: bool = True):
        if str(Path(folder).resolve()) not in sys.path:
            sys.path.insert(0, str(Path(folder).resolve()))
        build = importlib.import_module("static_decoding.csr_utils").build_static_index
        self.step = importlib.import_module(
            "static_decoding.decoding_pt"
        ).generate_and_apply_logprobs_mask
        self.size, self.beams = size, min(beams, size)
        if items:
            super().__init__(codes, size)
        order = torch.zeros(len(codes), dtype=torch.int64)
        for column in codes.unbind(1):
            order = order * size + column
        rows = codes[order.argsort()].int().numpy()
        packed, pointers, branches, start, dense, states = build(rows, size, 2)
        self.packed, self.pointers = torch.from_numpy(packed), torch.from_numpy(pointers)
        self.branches = [int(count) for count in branches]
        self.start, self.dense = torch.from_numpy(start), torch.from_numpy(dense)
        self.states = torch.from_numpy(states)

    def follow(self, level: int, states: Tensor, log_probs: Tensor) -> Slots:
        """As of :class:`DenseTable`."""
        nothing = torch.tensor(-torch.inf)
        if level == 0:
            values = torch.where(self.start, log_probs, nothing)
            after = torch.arange(1, self.size + 1).expand_as(log_probs)
            return Slots(values, None, after)
        if level == 1:
            parents = (states - 1).long()
            values = torch.where(self.dense[parents], log_probs, nothing)
            values, codes = torch.topk(values, self.beams, dim=-1)
            return Slots(values, codes, self.states[parents.unsqueeze(-1), codes])
        shape = log_probs.shape[:2]
        values, codes, after = self.step(
            log_probs.flatten(0, 1),
            states.flatten(),
            self.packed,
            self.pointers,
            self.branches[level],
            self.size,
            torch.device("cpu"),
        )
        return Slots(values.view(*shape, -1), codes.view(*shape, -1).long(), after.view(*shape, -1))


class CachedT5:
    """The search over the weights of transformers' T5 whose words are the codes.

    Args:
        lm: ``T5ForConditionalGeneration``; word 0 is padding and start.
        levels: number of codes of an item.
        size: alphabet size; code c of level l is word ``1 + l * size + c``.
    """

    def __init__(self, lm: nn.Module, levels: int, size: int):
        self.lm, self.levels, self.size = lm, levels, size
        attention = lm.decoder.block[0].layer[0].SelfAttention
        self.heads, self.width = attention.n_heads, attention.key_value_proj_dim
        bias = attention.compute_bias(levels, levels, device="cpu")
        self.bias = bias.detach()  # [1, heads, L, L]

    @torch.no_grad()
    def search(
        self, words: Tensor, mask: Tensor, beams: int, constraint: DenseTable
    ) -> tuple[Tensor, Tensor]:
        """Paths ``[B, K, L]`` and scores ``[B, K]``, best first.

        Args:
            words: of the histories, ``[B, S]``, right-padded.
            mask: bool ``[B, S]``, False for padding.
            beams: K.
            constraint: which codes may follow.
        """
        users = len(words)
        memory, visible = self._memory(words, mask)
        scores, states = torch.zeros(users, 1), constraint.root(users)
        paths = torch.zeros(users, 1, 0, dtype=torch.int64)
        tokens = torch.zeros(users, 1, dtype=torch.int64)
        cache: list = []
        for level in range(self.levels):
            log_probs = self._step(tokens, memory, visible, cache, level)  # [B, Q, V]
            slots = constraint.follow(level, states, log_probs)
            width = slots.values.shape[-1]
            candidates = (scores.unsqueeze(-1) + slots.values).flatten(1)
            scores, chosen = candidates.topk(min(beams, candidates.shape[1]))
            parents = chosen // width
            codes = chosen % width
            if slots.codes is not None:
                codes = slots.codes.flatten(1).gather(1, chosen)
            states = slots.states.flatten(1).gather(1, chosen)
            paths = paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, level))
            paths = torch.cat([paths, codes.unsqueeze(-1)], -1)
            tokens = 1 + level * self.size + codes
            if level + 1 < self.levels:
                self._reorder(cache, parents, log_probs.shape[1], level + 1)
        return paths, scores

    def _memory(self, words: Tensor, mask: Tensor) -> tuple[list, Tensor]:
        """Cross-attention keys and values ``[B, heads, S, d]``, once a user, and their mask."""
        states = self.lm.encoder(input_ids=words, attention_mask=mask.long()).last_hidden_state
        memory = []
        for block in self.lm.decoder.block:
            weights = block.layer[1].EncDecAttention
            memory.append((self._heads(weights.k(states)), self._heads(weights.v(states))))
        return memory, mask[:, None, None]

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    def _step(
        self, tokens: Tensor, memory: list, visible: Tensor, cache: list, level: int
    ) -> Tensor:
        """Log-probabilities of the level's codes after ``tokens [B, Q]``, ``[B, Q, V]``."""
        users, beams = tokens.shape
        hidden = self.lm.shared(tokens)  # [B, Q, d_model]
        for number, block in enumerate(self.lm.decoder.block):
            layer = block.layer[0]
            weights, normed = layer.SelfAttention, layer.layer_norm(hidden)
            rows = (users * beams, 1, self.heads, self.width)
            query = weights.q(normed).view(rows).transpose(1, 2)  # [B * Q, heads, 1, d]
            if level == 0:
                shape = (users, self.heads, self.levels, self.width)
                cache.append((normed.new_empty(shape), normed.new_empty(shape)))
            keys, values = cache[number]
            keys[:, :, level] = weights.k(normed).view(users * beams, self.heads, self.width)
            values[:, :, level] = weights.v(normed).view(users * beams, self.heads, self.width)
            bias = self.bias[:, :, level : level + 1, : level + 1]
            read = self._read(query, keys[:, :, : level + 1], values[:, :, : level + 1], bias)
            hidden = hidden + weights.o(read.transpose(1, 2).reshape(users, beams, -1))

            layer = block.layer[1]
            weights, normed = layer.EncDecAttention, layer.layer_norm(hidden)
            read = self._read(self._heads(weights.q(normed)), *memory[number], visible)
            hidden = hidden + weights.o(read.transpose(1, 2).flatten(2))
            hidden = block.layer[2](hidden)
        hidden = self.lm.decoder.final_layer_norm(hidden) * hidden.shape[-1] ** -0.5
        with torch.autocast("cpu", enabled=False):
            table = self.lm.shared.weight
            logits = nn.functional.linear(hidden.float(), table)
            return logits.log_softmax(-1).narrow(-1, 1 + level * self.size, self.size)

    @staticmethod
    def _read(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            query, keys, values = query.bfloat16(), keys.bfloat16(), values.bfloat16()
            mask = mask if mask.dtype == torch.bool else mask.bfloat16()
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=1.0)

    def _reorder(self, cache: list, parents: Tensor, before: int, filled: int) -> None:
        """Move the filled places of every buffer to the chosen beams."""
        users = len(parents)
        rows = (parents + torch.arange(users).unsqueeze(1) * before).flatten()  # [B * K]
        for number, pair in enumerate(cache):
            moved = []
            for buffer in pair:
                target = buffer.new_empty(len(rows), *buffer.shape[1:])
                target[:, :, :filled] = buffer[:, :, :filled].index_select(0, rows)
                moved.append(target)
            cache[number] = tuple(moved)
