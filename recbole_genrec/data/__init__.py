"""Item text, sentence embeddings and dataset preparation."""

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.item_text import ItemTexts, read_item_texts
from recbole_genrec.data.text_encoder import column_scale, encode_texts, encoder_identity

__all__ = [
    "ItemContent",
    "ItemTexts",
    "column_scale",
    "encode_texts",
    "encoder_identity",
    "read_item_texts",
]
