"""The keys of ``tokenizer: lmindexer``."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import CodeKeys, PrecisionKeys, TokenizerSettings

FROM_SCRATCH = ("indexer_backbone", "scratch")


class LMIndexerTokenizerSettings(PrecisionKeys, CodeKeys, TokenizerSettings):
    """The language model has keys of its own, so that any generator can take these codes."""

    codebook_sizes: list[int] | Literal["auto"] = key(  # type: ignore[assignment]
        "one alphabet size per learned level; auto = 2 of 128, of 512 above 20,000 items",
        ge=1,
        affects="tokenizer",
    )
    indexer_backbone: str = key(
        "language model that learns the codes: 'scratch', or folder or hub id of a T5",
        affects="tokenizer",
    )
    indexer_config: dict = key(
        "settings of that language model from scratch; without model_type they change single "
        "values of the default",
        affects="tokenizer",
        only_if=FROM_SCRATCH,
    )
    indexer_vocab_size: int = key(
        "tokens of its text vocabulary", ge=300, affects="tokenizer", only_if=FROM_SCRATCH
    )
    recon_layers: int = key("layers of the reconstructor", ge=1, affects="tokenizer")
    tau: float = key("temperature of the quantiser", ge=1e-6, affects="tokenizer")
    mask_rate: list[float] = key(
        "share of the text that the reconstructor does not see, at position 1 and later",
        ge=0,
        le=1,
        affects="tokenizer",
    )
    hard_negatives: int = key(
        "items with the same prefix in the contrast of an item", ge=1, affects="tokenizer"
    )
    w_recon: float = key("weight of the reconstruction", ge=0, affects="tokenizer")
    w_contrast: float = key("weight of the contrast", ge=0, affects="tokenizer")
    w_commit: float = key("weight of the commitment to earlier codes", ge=0, affects="tokenizer")
    stage_epochs: list[int] = key(
        "epochs of warm-up, no-code and joint stage", ge=0, affects="tokenizer"
    )
    stage_lr: float = key("learning rate of every stage", ge=0, affects="tokenizer")
    stage_batch: list[int] = key(
        "items per batch at position 1 and later", ge=1, affects="tokenizer"
    )
    tok_max_len: list[int] = key(
        "text tokens of an item in the warm-up and later", ge=1, affects="tokenizer"
    )
    kmeans_restarts: int = key("restarts of k-means", ge=1, affects="tokenizer")
    kmeans_iterations: int = key("most iterations of k-means", ge=1, affects="tokenizer")
    revive_dead: bool = key(
        "after each joint epoch unused codes move to items that are restored badly",
        affects="tokenizer",
    )
