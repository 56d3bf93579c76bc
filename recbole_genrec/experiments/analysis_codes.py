"""The codes of a trained model: how they are used, their tree, and a map of the items."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from recbole_genrec.data.rows.loader_dataset import drawn_rows
from recbole_genrec.experiments.analysis_items import ShownItems, item_vectors
from recbole_genrec.report.contents import CodeAnalysis, CodeNode, ItemMap, Level, Reason
from recbole_genrec.tokenizer.codes import code_entropy

MAPPED_ITEMS = 5000
"""Items on the map; of a larger catalogue so many are drawn (our choice)."""
LABELLED_FROM = 3
"""Nodes with fewer items get no words (our choice)."""
WORDS = 3
"""Words of a node (our choice)."""
COMMON = 0.25
"""Share of a node's texts that a word of it must stand in (our choice)."""
LIFT = 1.5
"""So many times as often as elsewhere a word of a node stands in its texts (our choice)."""


def analyse_codes(model: Any, table: ShownItems, seed: int) -> CodeAnalysis | Reason:
    """What depends on the codes and the vectors of the items alone.

    Args:
        model: a trained model.
        table: its items.
        seed: of the items on the map.
    """
    if table.codes is None:
        return "The items of this model have no codes."
    vectors = item_vectors(model)
    in_the_plane: ItemMap | Reason = "The items of this run have no texts and no vectors to map."
    if vectors is not None:
        in_the_plane = item_map(*vectors, table, seed)
    return CodeAnalysis(levels(table.codes[1:], table.sizes), code_tree(table), in_the_plane)


def levels(codes: Tensor, sizes: tuple[int, ...]) -> list[Level]:
    """How each level is used.

    Args:
        codes: int64 ``[items, L]``, without the padding row.
        sizes: alphabet size of each level.
    """
    rows = []
    for level, size in enumerate(sizes):
        column = codes[:, level]
        used = len(column.unique())
        perplexity = math.exp(code_entropy(column))
        prefixes = codes[:, : level + 1].unique(dim=0, return_counts=True)[1]
        sharing = int(prefixes[prefixes > 1].sum())
        rows.append(Level(size, used, perplexity, len(prefixes), sharing))
    return rows


def code_tree(table: ShownItems) -> CodeNode:
    """The tree of the codes; a node with one item is not divided further."""
    assert table.codes is not None
    words = [set(re.findall(r"[^\W\d_]{4,}", text.lower())) for text in table.texts]
    words[0] = set()
    overall = Counter(word for item_words in words for word in item_words)
    order = np.lexsort(table.codes.numpy().T[::-1])
    numbers = order[order > 0]
    return _Tree(table, words, overall).node((), numbers)


class _Tree:
    """Builds the nodes of a code tree.

    Args:
        table: the items.
        words: the words of each item's text.
        overall: in how many texts each word stands.
    """

    def __init__(self, table: ShownItems, words: list[set[str]], overall: Counter[str]) -> None:
        assert table.codes is not None
        self.table = table
        self.codes = table.codes.numpy()
        self.words = words
        self.overall = overall

    def node(self, prefix: tuple[int, ...], numbers: np.ndarray) -> CodeNode:
        """The node of a prefix and of the items ``numbers`` that begin with it, sorted by code."""
        node = CodeNode(prefix, len(numbers), self._label(numbers))
        depth = len(prefix)
        if len(numbers) == 1 or depth == self.codes.shape[1]:
            node.items = [self.table.item(int(number)) for number in numbers]
            return node
        column = self.codes[numbers, depth]
        borders = np.flatnonzero(np.diff(column)) + 1
        for part in np.split(numbers, borders):
            code = int(self.codes[part[0], depth])
            node.children.append(self.node((*prefix, code), part))
        return node

    def _label(self, numbers: np.ndarray) -> tuple[str, ...]:
        """Words that are frequent here and rare elsewhere."""
        if len(numbers) < LABELLED_FROM or len(numbers) == len(self.table) - 1:
            return ()
        here = Counter(word for number in numbers for word in self.words[number])
        scores = {}
        for word, count in here.items():
            if count < max(2, COMMON * len(numbers)):
                continue
            expected = self.overall[word] * len(numbers) / (len(self.table) - 1)
            if count >= LIFT * expected:
                scores[word] = count * math.log(count / expected)
        best = sorted(scores, key=lambda word: (-scores[word], word))
        return tuple(best[:WORDS])


def item_map(vectors: np.ndarray, source: str, table: ShownItems, seed: int) -> ItemMap:
    """The two principal components of item vectors.

    Args:
        vectors: ``[n_items, D]``, row 0 = padding.
        source: what they are.
        table: the items.
        seed: of the items that are drawn from a large catalogue.
    """
    n_items = len(table) - 1
    components = PCA(2, random_state=seed).fit(vectors[1:])
    numbers = np.arange(1, n_items + 1)
    if n_items > MAPPED_ITEMS:
        numbers = 1 + drawn_rows(n_items, MAPPED_ITEMS, seed).numpy()
    points = components.transform(vectors[numbers])
    items = [table.item(int(number)) for number in numbers]
    explained = float(components.explained_variance_ratio_.sum())
    return ItemMap(points, items, n_items, explained, source)


def first_codes(codes: Tensor, count: int) -> Tensor:
    """Number of each item's first ``count`` codes: the same number, the same codes.

    Args:
        codes: int64 ``[n_items, L]``.
        count: number of codes, at least 1.

    Returns:
        int64 ``[n_items]``.
    """
    return torch.unique(codes[:, :count], dim=0, return_inverse=True)[1]
