"""Content to codes: a file per tokenizer, the quantisers, collision policies, the store of results.

Start with :mod:`~recbole_genrec.tokenizer.base` (what a tokenizer is) and
:mod:`~recbole_genrec.tokenizer.codes` (what it returns).
"""

from __future__ import annotations

from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.fitting import fit_or_load
from recbole_genrec.tokenizer.registry import (
    TOKENIZERS,
    make_tokenizer,
    register_tokenizer,
    tokenizer_class,
    tokenizer_names,
)

__all__ = [
    "TOKENIZERS",
    "ItemCodes",
    "ItemTokenizer",
    "NewItems",
    "fit_or_load",
    "make_tokenizer",
    "register_tokenizer",
    "tokenizer_class",
    "tokenizer_names",
]
