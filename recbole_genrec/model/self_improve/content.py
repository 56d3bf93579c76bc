"""What a model without a text prompt reads of an item: the vectors that its tokenizer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.data.vectors.scale import standardised
from recbole_genrec.tokenizer.vector_tokenizer import VectorSettings

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving


def content_source(config) -> str:
    """Where the content vectors of the items come from.

    Args:
        config: the settings of the run.

    Returns:
        ``text``, ``cf`` or ``graph``. For a tokenizer of text it is ``cf`` where items have
        neither text nor ``item_vectors``.
    """
    source = VectorSettings.of(config).tokenizer_input
    if source in ("cf", "graph"):
        return source
    if config.settings.item_text_fields or config.settings.item_vectors:
        return "text"
    return "cf"


def content_vectors(model: SelfImproving) -> Tensor:
    """Standardised content vectors of all items.

    Args:
        model: the model that holds the items' content.

    Returns:
        float32 ``[n_items, D]``, row 0 = padding item.
    """
    vectors = model.content.vectors(content_source(model.config))  # [n_items, D]
    return torch.from_numpy(standardised(vectors, model.n_dataset_items))
