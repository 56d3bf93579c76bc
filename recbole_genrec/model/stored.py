"""A RecBole model that knows its items and users by raw id.

Here is how it is stored, loaded and exported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.given_ids import raw_id
from recbole_genrec.data.ids import raw_ids, rows_by_token
from recbole_genrec.data.numbering import NumberedData, is_numbered_by
from recbole_genrec.data.vectors.item_vectors import ItemVectors
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.model.frozen_weights import frozen_weights
from recbole_genrec.model.lists.catalogue import Catalogue
from recbole_genrec.model.outside import older_text_use
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import publish_folder
from recbole_genrec.storage.backbone_files import small_files
from recbole_genrec.storage.checkpoints import (
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_checkpoint_folder,
)

if TYPE_CHECKING:
    from typing_extensions import Self

TextUse = Literal["none", "optional", "required"]


class StoredModel(SequentialRecommender):
    """The items, users and checkpoints of :class:`~recbole_genrec.model.base.GenRecModel`.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then nothing is fitted before the training.

    Attributes:
        n_items: number of items that can be recommended, padding and added items included.
        n_dataset_items: the same without added items.
        content: texts and vectors of the items.
        catalogue: raw ids of the items and users.
        settings_class: declares the keys of the method, over those that all methods share.
        places_by_users: whether new items are placed by the users who chose them.
        settings: the typed values of these keys.
        trained_on: digests of the histories that the checkpoint's data had, by raw user id.
        tables: buffers that have a row for each of the ``"items"`` or ``"users"``. A loaded model
            keeps the values that its constructor gave them.
        rows_by_id: weights that have a row for each of the ``"items"`` or ``"users"``. A loaded
            model takes the checkpoint's rows, in the order of its dataset's ids.
        vectors_are_weights: whether the weights hold the content vectors that the model reads.
    """

    tables: ClassVar[dict[str, str]] = {}
    rows_by_id: ClassVar[dict[str, str]] = {}
    vectors_are_weights: ClassVar[bool] = False

    settings_class: ClassVar[type[SharedSettings]] = SharedSettings
    places_by_users: bool = False
    settings: SharedSettings
    n_items: int
    trained_on: dict[str, int] | None = None

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset)
        self.config = config
        self.settings = self.settings_class.of(config)
        self.stored = stored
        self.logger = logging.getLogger()
        ids = raw_ids(dataset)
        self.catalogue = Catalogue(ids["items"], ids["users"])
        self.n_dataset_items = dataset.item_num
        self.content = self._item_content(dataset)
        self.content.interactions = TrainingInteractions(config, self.logger.info)
        content = (stored or {}).get("content") or {}
        self.content.item_vectors = ItemVectors.of(
            config, dataset.iid_field, self.content.cache_dir, content.get("vector_width")
        )
        self.content.users = list(ids["users"])
        if stored:
            added = stored["added"]
            self._extend_catalogue(added["tokens"], added["texts"])
            titles = added.get("titles") or added["texts"]  # earlier versions have none
            self.content.set_titles(range(self.n_dataset_items, self.n_items), titles)
            self.content.add_vectors(added.get("vectors"))

    def _item_content(self, dataset) -> ItemContent:
        """Texts of the dataset's items: those that the checkpoint holds, or those of the file."""
        stored = (self.stored or {}).get("content")
        if stored and stored["tokens"] == self.catalogue.items:
            return ItemContent.from_checkpoint(stored, self.config)
        needed = self.text_use(self.config) == "required"
        if self.stored is not None and self.vectors_are_weights:
            needed = False
        return ItemContent.from_dataset(dataset, self.config, needed=needed)

    @classmethod
    def build(cls, config, dataset, stored: dict | None = None) -> Self:
        """The model of a run: what the constructor makes, and what switches of the settings add.

        Args:
            config: a ``GenRecConfig``.
            dataset: RecBole's training dataset.
            stored: ``other_parameter()`` of a checkpoint; then nothing is fitted.

        Raises:
            ConfigError: the constructor hands over the older argument ``needs_text``.
        """
        try:
            return cls(config, dataset, stored)
        except TypeError as error:
            by_position = "__init__() takes" in str(error) and "positional" in str(error)
            if by_position or "needs_text" in str(error):
                raise older_text_use(cls, "needs_text") from error
            raise

    @classmethod
    def text_use(cls, config) -> TextUse:
        """Whether a training reads item texts, by the model or by its tokenizer.

        Args:
            config: a ``GenRecConfig``.

        Returns:
            ``none``, ``optional`` (where there are some), or ``required``.
        """
        return "none"

    @classmethod
    def reads_vectors(cls, config) -> bool:
        """Whether the model reads content vectors itself, besides what a tokenizer does."""
        return False

    def _say_unread_vectors(self, by_tokenizer: bool = False) -> None:
        """Warn where ``item_vectors`` is set and nothing reads it.

        Args:
            by_tokenizer: whether the tokenizer reads it.
        """
        settings = self.settings
        if settings.item_vectors is None or by_tokenizer or self.reads_vectors(self.config):
            return
        self.logger.warning(
            f"item_vectors does nothing: neither {type(self).__name__} nor its tokenizer reads "
            "vectors of items under these settings."
        )

    # --- items ------------------------------------------------------------------------------------

    def item_ids(self, tokens: Sequence[str], where: str = "") -> list[int]:
        """Internal ids of raw item ids; see :meth:`Catalogue.item_ids`."""
        return self.catalogue.item_ids(tokens, where)

    def append_items(
        self, texts: Sequence[str], tokens: Sequence[str], /, **rows: Tensor
    ) -> list[int]:
        """Take n new items into the catalogue and into every table of items.

        Args:
            texts: one text an item.
            tokens: their raw ids, as :meth:`Catalogue.new_items` gives them.
            **rows: for each buffer that :attr:`tables` or :attr:`rows_by_id` has for items, the
                rows ``[n, ...]`` of the new ones.

        Returns:
            Internal ids of the new items.

        Raises:
            TypeError: rows for other buffers.
        """
        buffers = dict(self.named_buffers(recurse=False))
        rows_of = {**self.tables, **self.rows_by_id}
        expected = {name for name in buffers if rows_of.get(name) == "items"}
        if set(rows) != expected:
            raise TypeError(
                f"append_items needs rows for {sorted(expected)} of {type(self).__name__}, "
                f"got {sorted(rows)}."
            )
        first = self.n_items
        for name, values in rows.items():
            table = self.get_buffer(name)
            setattr(self, name, torch.cat([table, values.to(table)]))
        self._extend_catalogue(tokens, texts)
        return list(range(first, self.n_items))

    def _extend_catalogue(self, tokens: Sequence[str], texts: Sequence[str]) -> None:
        names = [raw_id(token) for token in tokens]
        self.catalogue.items += names
        self.content.extend([str(text) for text in texts], names)
        self.n_items = len(self.catalogue.items)

    @property
    def item_tokens(self) -> list[str]:
        """Raw ids of the items by internal id."""
        return self.catalogue.items

    @property
    def user_tokens(self) -> list[str]:
        """Raw ids of the users by internal id."""
        return self.catalogue.users

    def _weights_device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    # --- checkpoints ------------------------------------------------------------------------------

    def other_parameter(self) -> dict:
        """RecBole's hook for what is no weight; plain values and tensors that a checkpoint holds.

        The constructor of a loaded model gets them as ``stored``.
        """
        return {
            "added": self.added_items(),
            "content": self.content.stored(self.n_dataset_items, self._serves_with_vectors()),
            "backbone_files": self._backbone_files(),
        }

    def _serves_with_vectors(self) -> bool:
        """Whether a loaded model reads content vectors; weights that hold them need none."""
        return self.reads_vectors(self.config) and not self.vectors_are_weights

    def _backbone_files(self) -> dict[str, str]:
        """Settings and text tokenizer of a language model whose weights the checkpoint holds."""
        backbone = self.config.settings.backbone
        if backbone in (None, "scratch") or self.config["tuning"] == "lora":
            return {}
        return small_files(backbone) or (self.stored or {}).get("backbone_files", {})

    def load_other_parameter(self, para) -> None:
        """RecBole's hook; nothing to do, because the constructor reads ``stored``."""

    def added_items(self) -> dict:
        """What ``content`` holds of the items that ``add_items`` made recommendable."""
        return self.content.added(self.n_dataset_items)

    @property
    def frozen_names(self) -> set[str]:
        """Weights that a checkpoint leaves out.

        With ``tuning: lora`` the folder or hub id in ``backbone`` holds the frozen weights, and
        their quantisation goes with them.
        """
        settings = CausalBackboneKeys.of(self.config)
        if settings.backbone in (None, "scratch") or settings.tuning != "lora":
            return set()
        return frozen_weights(self)

    def checkpoint_state(self) -> dict[str, Tensor]:
        """``state_dict()`` without :attr:`frozen_names`."""
        left_out = self.frozen_names
        return {name: tensor for name, tensor in self.state_dict().items() if name not in left_out}

    def checkpoint(self) -> dict:
        """The content of a checkpoint of the model as it is."""
        return {
            "config": self.config.plain(),
            "epoch": -1,
            "state_dict": self.checkpoint_state(),
            "ids": self.raw_ids,
            "histories": self.trained_on,
            "other_parameter": self.other_parameter(),
        }

    @property
    def raw_ids(self) -> dict[str, list[str]]:
        """Raw ids of ``items`` (added ones too) and ``users`` by internal id."""
        return {"items": list(self.item_tokens), "users": list(self.user_tokens)}

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint of the model as it is, for example after ``add_items``.

        ``load_data_and_model`` reads it.
        """
        save_checkpoint(path, self.checkpoint())

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        merge: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Export the model to a new folder, as safetensors and JSON.

        :meth:`from_pretrained`, ``load_data_and_model`` and ``recbole-genrec recommend`` read it in
        place of a checkpoint.

        Args:
            folder: a folder that does not exist yet.
            merge: write a language model for transformers instead; for methods that train a causal
                language model.
            files: further text files by name, such as a model card.

        Raises:
            ConfigError: the folder exists, or ``merge`` is not for this method.
        """
        if Path(folder).exists():
            raise ConfigError(f"{folder} exists already. Name a new folder for the export.")
        with publish_folder(folder) as inside:
            self._export(inside, merge)
            for name, text in (files or {}).items():
                (inside / name).write_text(text, encoding="utf-8")
            if not merge:
                self._describe(inside)

    def _describe(self, folder: Path) -> None:
        """Write the settings, and the codes of each item, for people and other programs."""
        write_json(folder / "config.json", self.config.plain())
        codes = dict(self.named_buffers(recurse=False)).get("codes")
        if codes is not None:
            rows = codes.tolist()[1:]  # without the padding item
            write_json(folder / "codes.json", dict(zip(self.item_tokens[1:], rows, strict=True)))

    def _export(self, folder: Path, merge: bool) -> None:
        """Write the files of :meth:`save_pretrained`."""
        if merge:
            raise ConfigError(
                f"merge makes one causal language model of a method's weights and codes; "
                f"{type(self).__name__} trains none. Export without merge."
            )
        save_checkpoint_folder(folder, self.checkpoint(), {})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, config, dataset) -> Self:
        """The model of an export without ``merge``, with the same scores; nothing is trained.

        Args:
            folder: what :meth:`save_pretrained` wrote.
            config: a ``GenRecConfig``.
            dataset: RecBole's training dataset.

        Raises:
            ArtefactError: a file is missing or damaged, or the dataset holds other items.
            BackboneError: ``backbone`` is another base than the adapter's.
        """
        return cls.from_checkpoint(config, dataset, load_checkpoint(folder))

    @classmethod
    def from_checkpoint(cls, config, dataset, state: dict, begins: bool = False) -> Self:
        """The model of a checkpoint; nothing is fitted or trained.

        Its items are those of the checkpoint. With a dataset that the checkpoint did not number,
        rows of :attr:`tables` and :attr:`rows_by_id` follow the ids of that dataset.

        Args:
            config: a ``GenRecConfig``.
            dataset: RecBole's training dataset; ``None`` = there is none.
            state: the content of the checkpoint.
            begins: whether a new training begins from it (:meth:`starting_weights`).

        Raises:
            ArtefactError: the checkpoint is not one of a finished epoch, or does not fit.
        """
        if not state.get("other_parameter"):
            raise ArtefactError(
                "The checkpoint holds weights alone; give the .pth file that a finished epoch "
                "wrote."
            )
        ids = state["ids"]
        if dataset is None or is_numbered_by(dataset, ids):
            n_added = len(state["other_parameter"]["added"]["tokens"])
            items = ids["items"][: len(ids["items"]) - n_added]
            dataset = NumberedData(config, items, ids["users"], dataset)
        model = cls.build(config, dataset, state["other_parameter"])
        weights = dict(state["state_dict"])
        ids = model.raw_ids
        for name, kind in cls.rows_by_id.items():
            if name in weights:
                weights[name] = rows_by_token(weights[name], state["ids"][kind], ids[kind])
        for name in cls.tables:
            weights[name] = model.get_buffer(name).clone()
        load_state(model, model.starting_weights(weights) if begins else weights)
        model.trained_on = state.get("histories")
        return model

    def starting_weights(self, stored: dict) -> dict:
        """What a new training takes over of an earlier one; all of it by default.

        Args:
            stored: the ``state_dict`` of the earlier training.
        """
        return stored
