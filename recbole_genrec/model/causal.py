"""What generative methods share whose backbone is a causal language model.

Its tuning, adapters in peft's format, and merged weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from recbole_genrec.backbone import CausalDecoder, CodeVocabulary, TextAndCodes, apply_tuning
from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.causal.lora import check_base, save_adapter
from recbole_genrec.backbone.causal.merge import merged_lm
from recbole_genrec.backbone.protocol import LogProbs
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.checkpoints import save_checkpoint_folder

ADAPTER = "adapter"


class CausalRecommender(GenerativeRecommender):
    """A method that generates codes with a causal language model.

    Its constructor sets the attributes below and then calls :meth:`tune_backbone`.

    Attributes:
        backbone: the language model.
        vocabulary: the codes as words of the language model.
        text_and_codes: the words of its texts and the codes, as one vocabulary.
        text_tokenizer: the transformers tokenizer of its texts.
    """

    backbone: CausalBackbone
    vocabulary: CodeVocabulary
    text_and_codes: TextAndCodes
    text_tokenizer: Any

    def tune_backbone(self) -> None:
        """Make the backbone trainable as ``tuning`` says; a checkpoint's adapter must belong on it.

        Raises:
            BackboneError: the checkpoint's adapter was trained on another base.
        """
        if self.stored:
            check_base(self.stored.get("base"), self.backbone.origin, self.settings.backbone)
        apply_tuning(self.backbone, self.config)

    def prompt_decoder(self, ids: Tensor, lengths: Tensor, log_probs: LogProbs) -> CausalDecoder:
        """What the search steps through after a prompt.

        Args:
            ids: token ids of the prompts ``[B, S]``, right-padded.
            lengths: ``[B]``.
            log_probs: log-probabilities of one level's codes, ``(states, level)``.
        """
        embedded = self.text_and_codes.embed(ids)
        return CausalDecoder(
            self.backbone, embedded, lengths, self.vocabulary.embed_code, log_probs
        )

    def other_parameter(self) -> dict:
        """As the base's, with what the adapter's base must agree in (``lora.base_facts``).

        That is ``None`` where the checkpoint holds all weights.
        """
        base = None
        if self.backbone.has_lora:
            base = self.backbone.origin
        return {**super().other_parameter(), "base": base}

    def code_words(self, item: int) -> str:
        """The codes of an item as one text, ``<a_12><b_7>...``."""
        codes = self.vocabulary.tokens(self.codes[item]).tolist()
        return "".join(self.vocabulary.words[code] for code in codes)

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the language model."""
        settings = CausalBackboneKeys.of(config)
        return {**super().describe(config), "backbone": settings.language_model}

    # --- export -----------------------------------------------------------------------------------

    def _export(self, folder: Path, merge: bool) -> None:
        """Write the files of ``save_pretrained``.

        Without ``merge``: ``adapter/`` in peft's format if there is one, and the rest of the
        checkpoint as safetensors and JSON.

        With ``merge``: a causal language model and a tokenizer for transformers, whose last words
        are the codes, and ``items.json`` (raw item id -> its words).

        Raises:
            BackboneError: quantised weights with ``merge``.
        """
        if not merge:
            save_checkpoint_folder(folder, self.checkpoint(), self._save_adapter(folder))
            return
        lm, tokenizer = merged_lm(self.backbone, self.vocabulary, self.text_tokenizer)
        lm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        words = {
            token: self.code_words(item)
            for item, token in enumerate(self.item_tokens)
            if item > 0  # the padding item
        }
        write_json(folder / "items.json", words)

    def _save_adapter(self, folder: Path) -> dict[str, dict[str, str]]:
        """Write the adapter, if there is one; its file and the names of our weights there."""
        if not self.backbone.has_lora:
            return {}
        base = ""
        if self.backbone.origin:
            base = self.settings.backbone
        names = save_adapter(self.backbone.lm, folder / ADAPTER, base)
        weights = {f"backbone.lm.{name}": there for name, there in names.items()}
        return {f"{ADAPTER}/adapter_model.safetensors": weights}
