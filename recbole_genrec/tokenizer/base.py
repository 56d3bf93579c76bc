"""What a tokenizer is: content in, codes out, and what later stages and new items ask of it."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor

from recbole_genrec.settings.declaration import active
from recbole_genrec.settings.tokenizer_keys import TokenizerSettings
from recbole_genrec.storage.artefacts import check_finite, load_artefact, save_artefact
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.code_sizes import AUTO, effective_sizes, sizes_asked
from recbole_genrec.tokenizer.codes import FIT_AGAIN, ItemCodes
from recbole_genrec.tokenizer.cold_fit import fit_trained_items, trained_items
from recbole_genrec.tokenizer.collision import (
    Distances,
    check_capacity,
    codes_for_new_items,
    parse_policies,
)
from recbole_genrec.tokenizer.new_items import NewItems
from recbole_genrec.tokenizer.progress import FitProgress
from recbole_genrec.tokenizer.training_loop import TrainingLoop

if TYPE_CHECKING:  # baselines import no language models
    from recbole_genrec.backbone import PretrainedBackbone
    from recbole_genrec.data.content import ItemContent


class Content(Protocol):
    """What is fitted to.

    :class:`~recbole_genrec.data.content.ItemContent` or its like for users.
    """

    @property
    def fingerprint(self) -> str:
        """Digest of everything in it but the interactions."""

    @property
    def interactions_fingerprint(self) -> str:
        """Digest of the training interactions and of all that is learned from them."""


class Codes(Protocol):
    """What a fit returns: :class:`ItemCodes`, or ``EntityCodes`` with users beside the items."""

    def save(self, folder: str | os.PathLike) -> None:
        """Store as an artefact."""

    def report(self) -> str:
        """The statistics as a table for people."""

    def warnings(self) -> list[str]:
        """One message per level that collapsed."""


ContentT = TypeVar("ContentT", bound=Content)
CodesT = TypeVar("CodesT", bound=Codes)


class Tokenizer(ABC, Generic[ContentT, CodesT]):
    """What :func:`~recbole_genrec.tokenizer.fitting.fit_or_load` knows.

    Args:
        config: a ``GenRecConfig``, or values by key.
        seed: of everything random.

    Attributes:
        name: value of the key ``tokenizer``, first part of the stored result's name.
        settings_class: declares the keys. Those that affect ``tokenizer`` decide the codes and are
            part of the key of the stored result.
        settings: the typed values of these keys.
        defaults: values of these keys for a tokenizer from outside this package, which has no
            file in ``properties/tokenizer/``.
        uses_interactions: whether the codes depend on the training interactions too.
        places_by_users: whether new items are placed by the users who chose them.
        made_elsewhere: whether the codes are read and not learned here.
        quality: figures of the fit for the result file.
        curves: losses of the stages of the fit, by stage and loss; empty where they are not known.
        progress: where the fit notes how far it has come.
    """

    name: str
    settings_class: ClassVar[type[TokenizerSettings]] = TokenizerSettings
    settings: TokenizerSettings
    defaults: dict[str, Any] = {}
    uses_interactions = False
    places_by_users = False
    made_elsewhere = False

    def __init__(self, config: Any, seed: int) -> None:
        self.config = config
        self.settings = self.settings_class.of(config)
        self.seed = seed
        self.quality: dict[str, Any] = {}
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.progress = FitProgress()

    # --- the fit ------------------------------------------------------------------------------

    @abstractmethod
    def fit(self, content: ContentT) -> CodesT:
        """Learn from ``content`` and return its codes, rows in the order of ``content.tokens``."""

    def fit_content(self, content: ContentT, log: Callable[[str], None] = print) -> CodesT:
        """Codes of all that is in ``content``, by :meth:`fit`.

        Args:
            content: what is fitted to.
            log: takes one line of text.
        """
        return self.fit(content)

    def loop(self, precision: str | None = None) -> TrainingLoop:
        """The loop through which everything that is trained goes, so that a killed fit continues.

        Args:
            precision: ``bf16`` or ``fp16`` for autocast; ``None`` and ``fp32`` are float32.
        """
        settings = self.settings
        return TrainingLoop(
            self.progress, settings.chosen_device, precision, settings.shows_progress
        )

    # --- the store ----------------------------------------------------------------------------

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """Every setting that the codes depend on, JSON-serialisable.

        A setting with the value that acts as if the key did not exist is left out.

        Args:
            switches: whether settings are left out whose switch is off; earlier versions kept them.
        """
        values, names = vars(self.settings), self.cache_key_names()
        declared = self.settings_class.declared()
        if switches:
            names = active(declared, values, names)
        key = {name: values[name] for name in names if values[name] != declared[name].neutral}
        if self.revision:
            key["revision"] = self.revision
        return key

    @property
    def revision(self) -> int:
        """Part of the key: grows when the same settings give other codes than they did."""
        return 0

    @classmethod
    def cache_key_names(cls) -> list[str]:
        """The keys that the codes depend on."""
        keys = cls.settings_class.declared().items()
        return [name for name, declared in keys if "tokenizer" in declared.affects]

    def interactions_key(self, content: ContentT) -> object:
        """What the codes depend on in the training interactions, JSON-serialisable."""
        return content.interactions_fingerprint if self.uses_interactions else None

    @abstractmethod
    def describe(self, content: ContentT) -> str:
        """What is fitted to, for people: "40 items"."""

    @abstractmethod
    def aligned(self, codes: CodesT, content: ContentT) -> CodesT:
        """``codes`` with rows in the order of ``content``.

        Raises:
            ArtefactError: they belong to something else.
        """

    @abstractmethod
    def load_codes(self, folder: str | os.PathLike) -> CodesT:
        """Read what ``save`` of the codes wrote; :class:`ArtefactError` when it is damaged."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is needed after a restart: tensors, and JSON-like values."""
        return {}, {"quality": self.quality}

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.quality = meta["quality"]

    def save(self, folder: str | os.PathLike) -> None:
        """Store :meth:`state` as an artefact."""
        save_artefact(folder, *self.state())

    def load(self, folder: str | os.PathLike) -> None:
        """Take over what :meth:`save` stored; :class:`ArtefactError` when it is damaged."""
        tensors, meta = load_artefact(folder, FIT_AGAIN)
        check_finite(folder, tensors, FIT_AGAIN)
        self.set_state(tensors, meta)


class ItemTokenizer(Tokenizer["ItemContent", ItemCodes]):
    """Turns item content into codes. Fitted once per data, settings and seed.

    A new tokenizer writes :meth:`fit`, which ends with :meth:`ItemCodes.build`, and :meth:`encode`;
    with :meth:`state` and :meth:`set_state` if it learns something that ``encode`` needs. Its keys
    stand in ``properties/tokenizer/<name>.yaml``. What it trains goes through :meth:`loop`.

    Attributes:
        uses_text: whether it needs item texts.
        uses_item_vectors: whether it reads the vectors of the key ``item_vectors``.
        caps_sizes: whether small catalogues get fewer codes than ``codebook_sizes`` asks for, as
            :func:`~recbole_genrec.tokenizer.code_sizes.effective_sizes` says.
        codes_are_path: whether the codes of an item are a path, each given those before it. False:
            they stand side by side, for ``generator: parallel`` alone.
    """

    uses_text = True
    uses_item_vectors = False
    caps_sizes = False
    codes_are_path = True

    @classmethod
    def sizes_asked(cls, sizes: Sequence[int] | str, *counts: int) -> list[int]:
        """The sizes of the levels that a value of ``codebook_sizes`` asks for.

        Args:
            sizes: value of the key.
            *counts: number of items, and of what else gets codes, such as users.
        """
        return cls.auto_sizes(*counts) if sizes == AUTO else sizes_asked(sizes)

    @classmethod
    def auto_sizes(cls, *counts: int) -> list[int]:
        """What ``codebook_sizes: auto`` asks for; counts as of :meth:`sizes_asked`."""
        return sizes_asked(AUTO, *counts)

    def fitted_sizes(self, n_items: int) -> tuple[int, ...]:
        """Codes of each level that a fit gets with ``caps_sizes``, checked before it begins.

        Args:
            n_items: number of items that are fitted to.

        Raises:
            ConfigError: ``collision`` asks for an id of its own for each item, and there are fewer.
        """
        sizes = effective_sizes(
            n_items,
            self.sizes_asked(self.settings.codebook_sizes, n_items),  # type: ignore[attr-defined]
        )
        check_capacity(n_items, sizes, self.settings.collision)  # type: ignore[attr-defined]
        return sizes

    @abstractmethod
    def encode(self, new: NewItems) -> Tensor:
        """Learned codes of n new items, int64 ``[n, M]``; nothing is refitted."""

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """Codes of new items beside those that are there, of which none changes.

        Args:
            new: n items.
            existing: codes ``[n_items, L]``.
            sizes: alphabet size of each level.

        Returns:
            Codes ``[n, L]``, and how many items had to leave their own codes.
        """
        return self._place(self.encode(new), existing, sizes)

    def hand_over(self) -> PretrainedBackbone | None:
        """The language model that the fit has trained, if it has trained one."""
        return None

    def _place(
        self,
        learned: Tensor,
        existing: Tensor,
        sizes: Sequence[int],
        distances: Distances | None = None,
    ) -> tuple[Tensor, int]:
        if learned.shape[1] == len(sizes):
            # a tokenizer from outside need not declare the key
            last = parse_policies(getattr(self.settings, "collision", "none"))[-1]
            # An item that finds no room stays a duplicate.
            room = math.prod(sizes) >= len(existing) + len(learned)
            movable = distances is not None and room
            if last == "none" or (last == "sinkhorn" and not movable):
                return learned, 0
        return codes_for_new_items(existing, sizes, learned, distances)

    @property
    def fits_trained_items(self) -> bool:
        """``tokenizer_fit_items: train_only``; a tokenizer from outside need not have the key."""
        return getattr(self.settings, "tokenizer_fit_items", "all") == "train_only"

    def fit_content(self, content: ItemContent, log: Callable[[str], None] = print) -> ItemCodes:
        """As the base says; ``tokenizer_fit_items`` may leave out items for :meth:`place`."""
        if self.fits_trained_items:
            return fit_trained_items(self, content, log)
        return self.fit(content)

    def interactions_key(self, content: ItemContent) -> object:
        """As the base says, with the items that are fitted to where these are not all."""
        interactions = super().interactions_key(content)
        if not self.fits_trained_items:
            return interactions
        return [interactions, digest(sorted(trained_items(content)))]

    def describe(self, content: ItemContent) -> str:
        """The number of items."""
        return f"{len(content.tokens) - 1:,} items"

    def aligned(self, codes: ItemCodes, content: ItemContent) -> ItemCodes:
        """As the base says."""
        return codes.aligned(content.tokens)

    def load_codes(self, folder: str | os.PathLike) -> ItemCodes:
        """As the base says."""
        return ItemCodes.load(folder)

    # --- the checkpoint of a model ------------------------------------------------------------

    def checkpoint(self, codes: ItemCodes) -> dict[str, Any]:
        """Codes and :meth:`state` as plain values and tensors.

        Args:
            codes: the present ones of the model.
        """
        tensors, meta = self.state()
        return {"item_codes": codes.plain(), "tokenizer": {"tensors": tensors, "meta": meta}}

    def restore(self, checkpoint: dict[str, Any], tokens: Sequence[str]) -> ItemCodes:
        """Undo :meth:`checkpoint`.

        Args:
            checkpoint: with what :meth:`checkpoint` gave.
            tokens: raw item ids in the order of the rows, "[PAD]" first.

        Raises:
            ArtefactError: the codes belong to other items.
        """
        state = checkpoint["tokenizer"]
        self.set_state(state["tensors"], state["meta"])
        return ItemCodes.of_plain(checkpoint["item_codes"]).aligned(tokens)
