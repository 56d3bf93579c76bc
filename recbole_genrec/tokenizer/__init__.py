"""Item content to codes: one file per tokenizer, the quantisers, the collision policies and the store of finished results.

Start with :mod:`~recbole_genrec.tokenizer.base` (what a tokenizer is) and :mod:`~recbole_genrec.tokenizer.codes` (what it returns).
"""

from __future__ import annotations

import difflib
import importlib

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.base import ItemTokenizer, fit_or_load
from recbole_genrec.tokenizer.codes import ItemCodes

TOKENIZERS = {"store": "recbole_genrec.tokenizer.store:STORETokenizer"}

__all__ = ["TOKENIZERS", "ItemCodes", "ItemTokenizer", "fit_or_load", "make_tokenizer"]


def make_tokenizer(config, seed: int) -> ItemTokenizer:
    """The tokenizer that the key ``tokenizer`` names."""
    name = config["tokenizer"]
    if name not in TOKENIZERS:
        near = difflib.get_close_matches(str(name), TOKENIZERS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"tokenizer is {name!r}; known are {', '.join(TOKENIZERS)}.{hint}")
    module, _, attribute = TOKENIZERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(config, seed)
