"""What a tokenizer is, the store of finished results, and the two tokenizers that learn nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.files import META, digest, load_artefact, read_json, save_artefact
from recbole_genrec.tokenizer.codes import ItemCodes

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class ItemTokenizer(ABC):
    """Turns item content into codes. Fitted once per data, settings and seed by :func:`fit_or_load`.

    A new tokenizer writes the five methods below; its ``fit`` ends with :meth:`ItemCodes.build`.
    """

    name: str

    @abstractmethod
    def config_key(self) -> dict:
        """Every setting that the codes depend on, JSON-serialisable; part of the key of the stored result."""

    @abstractmethod
    def fit(self, content: ItemContent) -> ItemCodes:
        """Learn from ``content`` and return the codes of its items, rows in the order of ``content.tokens``."""

    @abstractmethod
    def encode(self, content: ItemContent | Sequence[str]) -> Tensor:
        """Learned codes of n new items, int64 ``[n, M]``; nothing is refitted. Place them with :func:`codes_for_new_items`."""

    @abstractmethod
    def save(self, folder: str | os.PathLike) -> None:
        """Store what :meth:`encode` needs, with :func:`save_artefact`."""

    @abstractmethod
    def load(self, folder: str | os.PathLike) -> None:
        """Take over what :meth:`save` stored; :class:`ArtefactError` when it is damaged."""


def fit_or_load(
    tokenizer: ItemTokenizer, content: ItemContent, folder_root: str | os.PathLike, seed: int, log: Callable[[str], None] = print
) -> ItemCodes:
    """Codes of ``content`` by ``tokenizer``: the stored result if there is one, else a fit that is then stored.

    The key is (content fingerprint, tokenizer, its settings, seed). A result appears in ``<folder_root>/<name>-<key>`` complete or not
    at all. Rows follow ``content.tokens``; :class:`ArtefactError` when the stored result is damaged or belongs to other items.
    """
    key = digest(content.fingerprint, tokenizer.name, tokenizer.config_key(), seed)
    folder = Path(folder_root) / f"{tokenizer.name}-{key}"
    if not folder.exists():
        codes = tokenizer.fit(content).aligned(content.tokens)
        _store(tokenizer, codes, folder)
        log(f"Tokenizer {tokenizer.name} fitted, stored in {folder}.")
    else:
        codes = ItemCodes.load(folder / "codes").aligned(content.tokens)
        tokenizer.load(folder / "tokenizer")
        log(f"Tokenizer {tokenizer.name} not fitted again: reused from {folder}.")
    log(codes.report())
    for warning in codes.warnings():
        log(f"WARNING: {warning}")
    return codes


def _store(tokenizer: ItemTokenizer, codes: ItemCodes, folder: Path) -> None:
    """Write beside ``folder`` and rename; when another process was first, its equal result stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        codes.save(temporary / "result" / "codes")
        tokenizer.save(temporary / "result" / "tokenizer")
        try:
            (temporary / "result").rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class RandomTokenizer(ItemTokenizer):
    """Uniform random codes: the control that shows what the content of the codes is worth."""

    name = "random"

    def __init__(self, codebook_sizes: Sequence[int], seed: int, collision: str | Sequence[str] = "extra_token", spare: int = 0) -> None:
        self.sizes, self.seed, self.collision, self.spare = tuple(codebook_sizes), seed, collision, spare

    def config_key(self) -> dict:
        return {"codebook_sizes": self.sizes, "seed": self.seed, "collision": self.collision, "spare": self.spare}

    def fit(self, content: ItemContent) -> ItemCodes:
        learned = self._draw(len(content.tokens) - 1, self.seed)
        return ItemCodes.build(learned, self.sizes, content.tokens, self.collision, spare=self.spare)

    def encode(self, content: ItemContent | Sequence[str]) -> Tensor:
        """Random codes of new items, drawn apart from the fitted ones. The padding row of an ``ItemContent`` gets none."""
        return self._draw(len(content.tokens) - 1 if hasattr(content, "tokens") else len(content), self.seed + 1)

    def _draw(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([torch.randint(size, (n,), generator=generator) for size in self.sizes], dim=1)

    def save(self, folder: str | os.PathLike) -> None:
        save_artefact(folder, {}, self.config_key())

    def load(self, folder: str | os.PathLike) -> None:
        load_artefact(folder)


class StoredCodes(ItemTokenizer):
    """Codes from a folder that :meth:`ItemCodes.save` wrote, or from a folder of :func:`fit_or_load` (``tokenizer: <path>``)."""

    name = "stored"

    def __init__(self, path: str | os.PathLike) -> None:
        found = [folder for folder in (Path(path), Path(path) / "codes") if (folder / META).is_file()]
        if not found:
            raise ConfigError(f"tokenizer: {str(path)!r} is neither the name of a tokenizer nor a folder with stored codes.")
        self.folder = found[0]

    def config_key(self) -> dict:
        header = read_json(self.folder / META)
        return {"sha256": header.get("sha256"), "meta": header.get("meta_digest")}

    def fit(self, content: ItemContent) -> ItemCodes:
        return ItemCodes.load(self.folder).aligned(content.tokens)

    def encode(self, content: ItemContent | Sequence[str]) -> Tensor:
        """Always an error: stored codes hold no rule for new items."""
        raise ConfigError(
            f"The codes stored in {self.folder} cannot encode new items. Name the tokenizer that made them in the key tokenizer."
        )

    def save(self, folder: str | os.PathLike) -> None:
        save_artefact(folder, {}, self.config_key())

    def load(self, folder: str | os.PathLike) -> None:
        load_artefact(folder)
