"""Item vectors as a sum of parts: a table of ids, a map of sentence embeddings, code embeddings."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_genrec.model.timeline.distinct_rows import rows_of_items

TEXT_LIMIT = 5.0
"""Standardised sentence embeddings are clipped here, so that outliers do not rule."""

TEXT_START = 0.2
"""Factor on the start weights of the text map, which else dwarfs the ids."""


class PartWeights(NamedTuple):
    """What item vectors are made of; ``None`` = that is no part of them.

    Attributes:
        ids: ``[n_items, d]``.
        codes: embeddings of the codes of all levels ``[C, d]``.
        text_map: from sentence embeddings to item vectors.
    """

    ids: Tensor | None
    codes: Tensor | None
    text_map: nn.Module | None


class PartTables(nn.Module):
    """The tables of the output side where it has its own (``tie_output: False``).

    Args:
        item_parts: those among ``id``, ``text`` and ``code``.
        n_items: rows of the id table.
        n_codes: rows of the code table, all levels together.
        text_map: from sentence embeddings to item vectors, where ``text`` is a part.
        d: width.
    """

    def __init__(
        self,
        item_parts: tuple[str, ...],
        n_items: int,
        n_codes: int,
        text_map: nn.Module | None,
        d: int,
    ):
        super().__init__()
        self.id_table = None
        if "id" in item_parts:
            self.id_table = nn.Parameter(torch.randn(n_items, d) * 0.02)
        self.code_table = None
        if "code" in item_parts:
            self.code_table = nn.Parameter(torch.randn(n_codes, d) * 0.02)
        self.text_projection = text_map

    @property
    def weights(self) -> PartWeights:
        """The tables and the map."""
        return PartWeights(self.id_table, self.code_table, self.text_projection)


def make_text_map(n_in: int, hidden: int, d: int) -> nn.Module:
    """The map from sentence embeddings to item vectors.

    Args:
        n_in: width of the embeddings.
        hidden: hidden width of an MLP; 0 = a linear map.
        d: width of the item vectors.
    """
    text_map: nn.Module
    if hidden:
        text_map = nn.Sequential(nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, d))
    else:
        text_map = nn.Linear(n_in, d)
    with torch.no_grad():
        for layer in text_map.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(TEXT_START)
    return text_map


def mapped_texts(text_map: nn.Module, texts: Tensor) -> Tensor:
    """Item vectors of sentence embeddings.

    Args:
        text_map: see :func:`make_text_map`.
        texts: ``[..., D]``; in bfloat16 they are multiplied in it.

    Returns:
        float32 ``[..., d]``.
    """
    if texts.dtype != torch.bfloat16:
        return text_map(texts).float()  # of autocast's bfloat16
    with torch.autocast(texts.device.type, torch.bfloat16):
        return text_map(texts).float()


def summed_parts(
    items: Tensor | None,
    codes: tuple[Tensor, Tensor] | None,
    id_table: Tensor | None,
    text: tuple[nn.Module, Tensor] | None,
    sparse: bool = False,
) -> Tensor:
    """Item vectors.

    Args:
        items: item ids ``[...]``; ``None`` = all.
        codes: flat codes of all items ``[n_items, L]`` and their embeddings ``[C, d]``.
        id_table: ``[n_items, d]``.
        text: the map, and sentence embeddings of all items ``[n_items, D]``.
        sparse: whether the gradient of the id table holds the rows of ``items`` alone.

    Returns:
        ``[..., d]``, or ``[n_items, d]`` for all.
    """
    vectors = []
    if codes is not None:
        flat, table = codes
        if items is not None:
            flat = flat[items]
        vectors.append(embedding(flat, table).sum(-2))  # flat [..., L]
    if id_table is not None:
        ids = id_table
        if items is not None:
            ids = rows_of_items(id_table, items) if sparse else embedding(items, id_table)
        vectors.append(ids)
    if text is not None:
        text_map, embeddings = text
        if items is not None:
            embeddings = embeddings[items]
        vectors.append(mapped_texts(text_map, embeddings))
    return reduce(add, vectors)
