"""What a tokenizer is, and the store of finished results."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from recbole_genrec.settings.rules import Rule
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import Distances, codes_for_new_items, parse_policies
from recbole_genrec.tokenizer.progress import FitProgress

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class ItemTokenizer(ABC):
    """Turns item content into codes. Fitted once per data, settings and seed by :func:`fit_or_load`.

    A new tokenizer writes ``fit``, which ends with :meth:`ItemCodes.build`, and ``encode``; with ``state`` and ``set_state`` if it learns
    something that ``encode`` needs. Its keys stand in ``properties/tokenizer/<name>.yaml``.

    Args:
        config: settings by key; only those in ``settings`` may decide the codes.
        seed: of everything random.

    Attributes:
        name: value of the key ``tokenizer``.
        settings: the keys that the codes depend on; part of the key of the stored result.
        config_rules: what these keys may hold.
        uses_text: whether it needs item texts.
        uses_interactions: whether the codes depend on the training interactions too.
        quality: figures of the fit for the result file.
        progress: a long fit runs its epochs through :meth:`FitProgress.epochs`, so that it survives a kill.
    """

    name: str
    settings: tuple[str, ...] = ()
    config_rules: dict[str, Rule] = {}
    uses_text = True
    uses_interactions = False
    progress = FitProgress()

    def __init__(self, config, seed: int) -> None:
        self.config, self.seed = config, seed
        self.quality: dict = {}

    def config_key(self) -> dict:
        """Every setting that the codes depend on, JSON-serialisable."""
        return {key: self.config[key] for key in self.settings}

    def interactions_key(self, content: ItemContent) -> object:
        """What the codes depend on in the training interactions, JSON-serialisable."""
        return content.interactions_fingerprint if self.uses_interactions else None

    @abstractmethod
    def fit(self, content: ItemContent) -> ItemCodes:
        """Learn from ``content`` and return the codes of its items, rows in the order of ``content.tokens``."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Learned codes of n new items, int64 ``[n, M]``; nothing is refitted."""

    def place(
        self, texts: Sequence[str], existing: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, int]:
        """Codes ``[n, L]`` of new items beside ``existing [n_items, L]`` (no row changes), and how many had to leave their own codes."""
        return self._place(self.encode(texts), existing, sizes)

    def _place(
        self,
        learned: Tensor,
        existing: Tensor,
        sizes: Sequence[int],
        distances: Distances | None = None,
    ) -> tuple[Tensor, int]:
        if learned.shape[1] == len(sizes):
            last = parse_policies(self.config["collision"])[-1]
            room = math.prod(sizes) >= len(existing) + len(
                learned
            )  # what finds none stays a duplicate
            if last == "none" or last == "sinkhorn" and (distances is None or not room):
                return learned, 0
        return codes_for_new_items(existing, sizes, learned, distances)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """What :meth:`encode` needs after a restart: tensors, and JSON-like values."""
        return {}, {"quality": self.quality}

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        self.quality = meta["quality"]

    def save(self, folder: str | os.PathLike) -> None:
        """Store :meth:`state` as an artefact."""
        save_artefact(folder, *self.state())

    def load(self, folder: str | os.PathLike) -> None:
        """Take over what :meth:`save` stored; :class:`ArtefactError` when it is damaged."""
        self.set_state(*load_artefact(folder))
