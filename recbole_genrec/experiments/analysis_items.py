"""Items of a trained model as people see them: raw id, title, codes; and their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recbole_genrec.data.items.item_text import PLACEHOLDER, texts_of
from recbole_genrec.errors import GenRecError
from recbole_genrec.model.registry import is_generative, reads_codes
from recbole_genrec.report.contents import Item

TITLE_LENGTH = 90


class ShownItems:
    """Ids, titles and codes by internal id.

    Args:
        config: a ``GenRecConfig``.
        model: a trained model of ours or of RecBole.
        dataset: RecBole's dataset.

    Attributes:
        tokens: raw item ids.
        texts: whole item texts, empty where an item has none.
        titles: the first field of the texts, shortened; the raw id where an item has none.
        codes: int64 ``[n_items, L]``, or None for a model without codes.
        sizes: alphabet size of each level.
    """

    def __init__(self, config: Any, model: Any, dataset: Any) -> None:
        fields = list(config.settings.item_text_fields or [])
        if is_generative(type(model)):
            self.tokens = list(model.item_tokens)
            self.texts = list(model.content.text)
        else:
            self.tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
            self.texts = ["", *texts_of(config, self.tokens[1:])[0]]
        self.titles = []
        for text, token in zip(self.texts, self.tokens, strict=True):
            self.titles.append(_title(text, token, fields))
        self.codes: torch.Tensor | None = None
        self.sizes: tuple[int, ...] = ()
        if reads_codes(config):
            self.codes = model.codes.cpu()
            self.sizes = tuple(model.level_sizes)

    def item(self, number: int) -> Item:
        """The item with an internal id."""
        codes: tuple[int, ...] = ()
        if self.codes is not None:
            codes = tuple(self.codes[number].tolist())
        return Item(self.tokens[number], self.titles[number], codes)

    def __len__(self) -> int:
        return len(self.tokens)


def _title(text: str, token: str, fields: list[str]) -> str:
    """The first field of an item text of the form ``title: ..., brand: ...``."""
    if not text.strip() or text == PLACEHOLDER:
        return token
    if fields:
        text = text.removeprefix(f"{fields[0]}: ")
    for field in fields[1:]:
        text = text.partition(f", {field}: ")[0]
    if len(text) > TITLE_LENGTH:
        return text[: TITLE_LENGTH - 1] + "…"
    return text or token


@torch.no_grad()
def item_vectors(model: Any) -> tuple[np.ndarray, str] | None:
    """Vectors ``[n_items, D]`` of the items and what they are; None where a model has none."""
    if not is_generative(type(model)):
        return None
    if hasattr(model, "item_vectors"):
        return model.item_vectors().float().cpu().numpy(), "the vectors that the model ranks by"
    if not model.content.is_described:
        return None
    try:
        return np.asarray(model.content.embeddings(), dtype=np.float32), "the item texts"
    except GenRecError:
        return None
