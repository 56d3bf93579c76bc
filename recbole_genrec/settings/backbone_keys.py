"""Keys of the language model that a method or a tokenizer builds on."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import Effect, Settings, key

FROM_SCRATCH = ("backbone", "scratch")
WITH_ADAPTER = ("tuning", "lora")
WEIGHTS: tuple[Effect, ...] = ("tokenizer", "training")


class BackboneSourceKeys(Settings):
    """Where a language model comes from."""

    backbone: str = key("'scratch', a folder, or a hub id", affects=WEIGHTS)


class BackboneKeys(BackboneSourceKeys):
    """Which language model."""

    backbone_config: dict = key(
        "settings of a backbone from scratch; without model_type they change single values of the "
        "default",
        affects=WEIGHTS,
        only_if=FROM_SCRATCH,
    )

    @property
    def language_model(self) -> str:
        """Which language model, for the summary of a run."""
        if self.backbone != "scratch":
            return self.backbone
        return f"scratch, {self.backbone_config}"


class CausalBackboneKeys(BackboneKeys):
    """A causal language model, and which of its weights train."""

    text_vocab_size: int = key(
        "tokens of the text vocabulary", ge=300, affects=WEIGHTS, only_if=FROM_SCRATCH
    )
    tuning: Literal["full", "lora"] = key("which weights train", affects=WEIGHTS)
    lora_rank: int = key("rank of the adapter", ge=1, affects=WEIGHTS, only_if=WITH_ADAPTER)
    lora_alpha: float = key("scale of the adapter", ge=0, affects=WEIGHTS, only_if=WITH_ADAPTER)
    lora_dropout: float = key(
        "dropout of the adapter", ge=0, le=1, affects=WEIGHTS, only_if=WITH_ADAPTER
    )
    lora_targets: list[str] | None = key(
        "modules that get an adapter", affects=WEIGHTS, only_if=WITH_ADAPTER
    )
    gradient_checkpointing: bool = key(
        "recompute activations in the backward pass instead of keeping them"
    )
    quantisation: Literal["8bit", "4bit"] | None = key(
        "number format of the frozen weights",
        affects=WEIGHTS,
        default=None,
        only_if=WITH_ADAPTER,
    )

    @property
    def language_model(self) -> str:
        """As the base's, and which of its weights train."""
        return f"{super().language_model}, tuning {self.tuning}"
