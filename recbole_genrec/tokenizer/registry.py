"""Names of tokenizers: our table, classes from outside, folders with stored codes, index files."""

from __future__ import annotations

import os
import pkgutil
from typing import Any

from recbole_genrec.data.files.index_files import INDEX_ENDING
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.runtime.outside_classes import LOCATION, OutsideClasses
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.settings.shared_keys import ContentKeys
from recbole_genrec.tokenizer.base import ItemTokenizer

TOKENIZERS = {
    "store": "recbole_genrec.tokenizer.store:STORETokenizer",
    "rkmeans": "recbole_genrec.tokenizer.rkmeans_tokenizer:RKMeansTokenizer",
    "clusters": "recbole_genrec.tokenizer.clusters:ClustersTokenizer",
    "rqvae": "recbole_genrec.tokenizer.rqvae_tokenizer:RQVAETokenizer",
    "letter": "recbole_genrec.tokenizer.letter_tokenizer:LETTERTokenizer",
    "opq": "recbole_genrec.tokenizer.opq_tokenizer:OPQTokenizer",
    "mq": "recbole_genrec.tokenizer.mq_tokenizer:MQTokenizer",
    "lmindexer": "recbole_genrec.tokenizer.lmindexer.tokenizer:LMIndexerTokenizer",
    "text-hierarchical": "recbole_genrec.tokenizer.hierarchical:TextHierarchicalTokenizer",
    "cid": "recbole_genrec.tokenizer.hierarchical:CIDTokenizer",
    "metapath": "recbole_genrec.tokenizer.metapath:MetaPathTokenizer",
    "random": "recbole_genrec.tokenizer.random_tokenizer:RandomTokenizer",
}
STORED = "recbole_genrec.tokenizer.stored_codes:StoredCodes"
INDEX = "recbole_genrec.tokenizer.index_file:IndexFile"
ENTRY_POINTS = "recbole_genrec.tokenizers"

_outside = OutsideClasses("tokenizer", ENTRY_POINTS, ItemTokenizer)


def register_tokenizer(new_class: type[ItemTokenizer]) -> type[ItemTokenizer]:
    """Make a tokenizer known by its ``name``, for ``--tokenizer=name`` and for checkpoints.

    May stand above the class as a decorator.

    Args:
        new_class: an :class:`ItemTokenizer`.

    Returns:
        The class.

    Raises:
        ConfigError: this is no tokenizer, or its name is one of ours.
    """
    name = getattr(new_class, "name", None)
    if not isinstance(name, str) or name in TOKENIZERS or os.sep in name:
        raise ConfigError(
            f"The tokenizer {new_class!r} has the name {name!r}. It needs a name of its own, a "
            f"word that is none of {', '.join(TOKENIZERS)}."
        )
    _outside.register(name, new_class)
    return new_class


def tokenizer_names() -> list[str]:
    """Every name that ``--tokenizer`` takes beside ``package.module:Class`` and folders."""
    return [*TOKENIZERS, *(name for name in _outside.names if not LOCATION.fullmatch(name))]


def is_path(name: str) -> bool:
    """Whether ``tokenizer: name`` stands for a folder with stored codes, or for an index file."""
    if name in TOKENIZERS or _outside.is_known(name):
        return False
    return os.sep in name or os.path.isdir(name) or name.endswith(INDEX_ENDING)


def tokenizer_class(name: str) -> type[ItemTokenizer]:
    """The class for ``tokenizer: name``.

    Args:
        name: one of ours, a registered one or an entry point of the group
            ``recbole_genrec.tokenizers``, ``package.module:Class``, a folder, or an index file.

    Raises:
        ConfigError: the name is none of these.
    """
    name = str(name)
    if is_path(name):
        kind = INDEX if name.endswith(INDEX_ENDING) else STORED
        return pkgutil.resolve_name(kind)
    if name in TOKENIZERS:
        return pkgutil.resolve_name(TOKENIZERS[name])
    outside = _outside.find(name)
    if outside is not None:
        return outside
    known = tokenizer_names()
    hint = did_you_mean(name, known)
    raise ConfigError(
        f"tokenizer is {name!r}; known are {', '.join(known)}, package.module:Class, a folder "
        f"with stored codes, or an index file (.json).{hint}"
    )


def check_stored_name(name: str) -> None:
    """Refuse to run code that only a checkpoint names.

    Args:
        name: the key ``tokenizer`` of a checkpoint's settings.

    Raises:
        ArtefactError: it is ``package.module:Class``, which this program has not named itself.
    """
    if LOCATION.fullmatch(name) and not is_path(name) and not _outside.is_known(name):
        raise ArtefactError(
            f"The tokenizer of this checkpoint is {name}, which is not part of this package. "
            "Loading it runs the code of that module, so name it yourself first: "
            f"recbole_genrec.tokenizer.tokenizer_class({name!r}) in a program."
        )


def make_tokenizer(config: Any, seed: int) -> ItemTokenizer:
    """The tokenizer that the key ``tokenizer`` names."""
    return tokenizer_class(ContentKeys.of(config).tokenizer)(config, seed)
