"""Trained language models for other programs and other machines: peft adapters, open formats, merged weights."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_genrec.backbone import apply_tuning
from recbole_genrec.backbone.causal.lora import check_base, save_adapter
from recbole_genrec.backbone.causal.merge import merged_lm
from recbole_genrec.errors import ConfigError
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import publish_folder
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint_folder

ADAPTER = "adapter"


class Exporting:
    """Part of methods with a ``backbone`` (``CausalBackbone``), a ``vocabulary`` (``CodeVocabulary``) and a ``text_tokenizer``."""

    def tune_backbone(self) -> None:
        """Make the backbone trainable as ``tuning`` says; the adapter of a checkpoint must belong on it.

        Raises:
            BackboneError: the checkpoint's adapter was trained on another base.
        """
        if self.stored:
            check_base(self.stored.get("base"), self.backbone.origin, self.config["backbone"])
        apply_tuning(self.backbone, self.config)

    def other_parameter(self) -> dict:
        """As the base's, with what the adapter's base must agree in (``lora.base_facts``; ``None`` where all weights are stored)."""
        return {
            **super().other_parameter(),
            "base": self.backbone.origin if self.backbone.has_lora else None,
        }

    def save_pretrained(self, folder: str | os.PathLike, merge: bool = False) -> None:
        """Export to a new folder.

        Without ``merge``: ``adapter/`` in peft's format if there is one, and the rest of the checkpoint as safetensors and JSON.
        :meth:`from_pretrained`, ``load_data_and_model`` and ``recbole-genrec recommend`` read it in place of a checkpoint.

        With ``merge``: a causal language model and a tokenizer for transformers, whose last words are the codes, and ``items.json``
        (raw item id -> its words).

        Raises:
            ConfigError: the folder exists.
            BackboneError: quantised weights with ``merge``.
        """
        if Path(folder).exists():
            raise ConfigError(f"{folder} exists already. Name a new folder for the export.")
        with publish_folder(folder) as inside:
            if merge:
                lm, tokenizer = merged_lm(self.backbone, self.vocabulary, self.text_tokenizer)
                lm.save_pretrained(inside)
                tokenizer.save_pretrained(inside)
                write_json(
                    inside / "items.json",
                    {
                        token: self.code_words(item)
                        for item, token in enumerate(self.item_tokens)
                        if item
                    },
                )
            else:
                save_checkpoint_folder(inside, self.checkpoint(), self._save_adapter(inside))

    def _save_adapter(self, folder: Path) -> dict[str, dict[str, str]]:
        if not self.backbone.has_lora:
            return {}
        names = save_adapter(
            self.backbone.lm,
            folder / ADAPTER,
            self.config["backbone"] if self.backbone.origin else "",
        )
        return {
            f"{ADAPTER}/adapter_model.safetensors": {
                f"backbone.lm.{name}": there for name, there in names.items()
            }
        }

    def code_words(self, item: int) -> str:
        """The codes of an item as one text, ``<a_12><b_7>...``."""
        return "".join(
            self.vocabulary.words[code] for code in self.vocabulary.flat(self.codes[item]).tolist()
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, config, dataset):
        """The model of an unmerged export, with the same scores; nothing is trained.

        Raises:
            ArtefactError: a file is missing or damaged, or the dataset holds other items.
            BackboneError: ``backbone`` is another base than the adapter's.
        """
        return cls.from_checkpoint(config, dataset, load_checkpoint(folder))
