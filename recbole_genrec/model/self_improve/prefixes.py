"""How a model without a text prompt of its own reads the content of an item (``si_embed_text``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone import SoftPrefix, load_text_tokenizer, text_vocabulary
from recbole_genrec.backbone.word_prefix import WordPrefix

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving
    from recbole_genrec.settings.shared_keys import SharedSettings

WORDS = 4000
"""Largest vocabulary of words for a backbone from scratch (our choice)."""


def make_prefix(model: SelfImproving, settings: SharedSettings) -> SoftPrefix | WordPrefix | None:
    """What the model reads of an item.

    Args:
        model: the model to improve; its constructor has finished.
        settings: of the run.

    Returns:
        The projected content vector or the words; ``None`` for a method with a text prompt.
    """
    width = model.prefix_width
    if width is None:
        return None
    stored = model.stored or {}
    if settings.si_embed_text != "text":
        return SoftPrefix(model.content_vectors, width, stored.get("content_width"))
    tokenizer, rows = _vocabulary(model, stored.get("words"))
    return WordPrefix(tokenizer, model.content.text, settings.si_text_len, width, rows)


def _vocabulary(
    model: SelfImproving, stored: str | None
) -> tuple[PreTrainedTokenizerBase, Tensor | None]:
    """The tokenizer of the words, and the rows that they start from.

    Args:
        model: the model to improve.
        stored: vocabulary of a checkpoint (JSON).
    """
    backbone = getattr(model.settings, "backbone", "scratch")
    if backbone != "scratch":
        text_table = model.backbone.text_table
        return load_text_tokenizer(backbone, text_table), text_table.weight
    return text_vocabulary(model.content.text[1:], WORDS, stored), None
