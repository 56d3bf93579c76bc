"""Item content to codes: one file per tokenizer, the quantisers, the collision policies and the store of finished results.

Start with :mod:`~recbole_genrec.tokenizer.base` (what a tokenizer is) and :mod:`~recbole_genrec.tokenizer.codes` (what it returns).
"""

from __future__ import annotations

import importlib
import os

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.rules import nearest
from recbole_genrec.tokenizer.base import ItemTokenizer
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import repair_collisions
from recbole_genrec.tokenizer.fitting import fit_or_load
from recbole_genrec.tokenizer.quantiser.letter_loss import LETTERLoss
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes

TOKENIZERS = {
    "store": "recbole_genrec.tokenizer.store:STORETokenizer",
    "rkmeans": "recbole_genrec.tokenizer.vectors:RKMeansTokenizer",
    "rqvae": "recbole_genrec.tokenizer.rqvae_tokenizer:RQVAETokenizer",
    "letter": "recbole_genrec.tokenizer.rqvae_tokenizer:LETTERTokenizer",
    "mq": "recbole_genrec.tokenizer.mq_tokenizer:MQTokenizer",
    "text-hierarchical": "recbole_genrec.tokenizer.hierarchical:TextHierarchicalTokenizer",
    "cid": "recbole_genrec.tokenizer.hierarchical:CIDTokenizer",
    "random": "recbole_genrec.tokenizer.simple:RandomTokenizer",
}
STORED = "recbole_genrec.tokenizer.simple:StoredCodes"

__all__ = [
    "TOKENIZERS",
    "LETTERLoss",
    "RQVAE",
    "ItemCodes",
    "ItemTokenizer",
    "fit_or_load",
    "make_tokenizer",
    "repair_collisions",
    "sinkhorn_codes",
    "tokenizer_class",
]


def tokenizer_class(name: str) -> type[ItemTokenizer]:
    """The class for ``tokenizer: name``; whatever looks like a path stands for stored codes.

    Raises:
        ConfigError: neither a known name nor a folder.
    """
    if name not in TOKENIZERS and os.sep not in str(name) and not os.path.isdir(str(name)):
        near = nearest(name, TOKENIZERS)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"tokenizer is {name!r}; known are {', '.join(TOKENIZERS)}, or a folder with stored codes.{hint}"
        )
    module, _, attribute = TOKENIZERS.get(name, STORED).partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_tokenizer(config, seed: int) -> ItemTokenizer:
    """The tokenizer that the key ``tokenizer`` names."""
    return tokenizer_class(config["tokenizer"])(config, seed)
