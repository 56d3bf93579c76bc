"""Keys of tokenizers that several of them share, and of the collaborative vectors."""

from __future__ import annotations

from typing import Any, Literal

from recbole_genrec.settings.declaration import GIVEN, Settings, key
from recbole_genrec.settings.machine_keys import MachineKeys

Policy = Literal[
    "sinkhorn", "nearest_free", "extra_token", "none", "dedup_token", "reassign", "both"
]
Schedule = Literal[
    "constant",
    "linear",
    "cosine",
    "inverse_sqrt",
    "constant_with_warmup",
    "constant_inverse_sqrt",
]
"""Schedules of a learning rate, of recommenders and of tokenizers."""
REPAIR_EPSILON = 0.003
"""Sinkhorn's regularisation in LC-Rec and LETTER."""
POLICIES = ("sinkhorn", "nearest_free", "extra_token", "none")
ALIASES = {
    "dedup_token": ["extra_token"],
    "reassign": ["nearest_free"],
    "both": ["sinkhorn", "extra_token"],
}


class ItemVectorKeys(Settings):
    """Content vectors of items that the user has made."""

    item_vectors: str | None = key(
        "file of content vectors of the items made elsewhere: .npy with ids, .parquet, .csv, .tsv",
        affects="data",
        default=None,
        neutral=None,
    )
    item_vectors_use: Literal["instead", "beside"] = key(
        "whether these vectors replace the sentence embeddings or stand beside them",
        affects="data",
        default="instead",
        neutral="instead",
        only_if=("item_vectors", GIVEN),
    )


class TextVectorKeys(Settings):
    """How the texts of items become vectors."""

    item_text_fields: list[str] | None = key(
        "columns of the .item file that make the item text, in order",
        affects="data",
        default=None,
    )
    text_encoder: str = key("sentence encoder: 'default', a folder, or a hub id", affects="data")
    text_encoder_precision: Literal["fp32", "bf16", "fp16"] = key(
        "number format of the encoder's weights; the mean over tokens is taken in float32",
        affects="data",
        default="fp32",
        neutral="fp32",
    )
    text_encoder_batch_size: int = key(
        "texts that the encoder reads at once; fewer for large models and long texts",
        ge=1,
        affects="display",
        default=64,
        evaluate=True,
    )
    text_pooling: Literal["joined", "fields"] = key(
        "one vector of the whole text, or the mean of one vector for each of item_text_fields",
        affects="data",
        default="joined",
        neutral="joined",
    )


class TokenizerSettings(ItemVectorKeys, TextVectorKeys, MachineKeys):
    """The keys that every tokenizer reads; a tokenizer declares its own in a subclass.

    Those that affect ``tokenizer`` make its cache key.
    """


class CodeKeys(Settings):
    """The shape of the codes."""

    codebook_sizes: list[int] = key(
        "one alphabet size per learned level", ge=1, affects="tokenizer"
    )
    collision: list[str] | Policy = key(
        "policies applied in order: sinkhorn, nearest_free, extra_token, none", affects="tokenizer"
    )
    dedup_spare: int = key(
        "free values of the extra token, for new items", ge=0, affects="tokenizer"
    )
    extra_token_size: int | None = key(
        "alphabet of the extra token; ~ = the largest group of items with equal codes, and "
        "dedup_spare",
        ge=1,
        affects="tokenizer",
        default=None,
        neutral=None,
    )

    @property
    def collision_options(self) -> dict[str, Any]:
        """What :meth:`~recbole_genrec.tokenizer.codes.ItemCodes.build` takes of the keys."""
        return {
            "policies": self.collision,
            "spare": self.dedup_spare,
            "size": self.extra_token_size,
        }


class FitItemKeys(Settings):
    """Which items a tokenizer is fitted to."""

    tokenizer_fit_items: Literal["all", "train_only"] = key(
        "items that the tokenizer is fitted to: all, or those with a training interaction; the "
        "others are then placed as new items are",
        affects="tokenizer",
        default="all",
        neutral="all",
    )


class RepairKeys(CodeKeys):
    """The shape of the codes, and the repair of collisions: ``collision: sinkhorn``."""

    sinkhorn_epsilon: float = key(
        "regularisation of Sinkhorn in the repair of collisions",
        ge=1e-6,
        affects="tokenizer",
        default=REPAIR_EPSILON,
        neutral=REPAIR_EPSILON,
    )
    sinkhorn_iterations: int = key(
        "iterations of Sinkhorn", ge=1, affects="tokenizer", default=50, neutral=50
    )
    sinkhorn_rounds: int = key(
        "rounds of the repair of collisions by Sinkhorn, at most",
        ge=1,
        affects="tokenizer",
        default=20,
        neutral=20,
    )

    @property
    def collision_options(self) -> dict[str, Any]:
        """As of :class:`CodeKeys`, and how Sinkhorn repairs collisions."""
        return {
            **super().collision_options,
            "epsilon": self.sinkhorn_epsilon or REPAIR_EPSILON,
            "iterations": self.sinkhorn_iterations,
            "max_rounds": self.sinkhorn_rounds,
        }


class FitKeys(Settings):
    """The training of a tokenizer that learns by gradients."""

    tokenizer_epochs: int = key("epochs of the tokenizer's training", ge=0, affects="tokenizer")
    tokenizer_lr: float = key("learning rate of the tokenizer", ge=0, affects="tokenizer")
    tokenizer_batch_size: int = key(
        "items per batch of the tokenizer's training", ge=1, affects="tokenizer"
    )


class RateKeys(FitKeys):
    """How the learning rate of a tokenizer runs."""

    tokenizer_lr_scheduler: Schedule = key(
        "learning-rate schedule of the tokenizer, over tokenizer_epochs",
        affects="tokenizer",
        default="constant",
        neutral="constant",
    )
    tokenizer_warmup_ratio: float = key(
        "share of the tokenizer's steps with a rising learning rate; of constant_inverse_sqrt with "
        "the full one, before it falls",
        ge=0,
        le=1,
        affects="tokenizer",
        default=0.0,
        neutral=0.0,
    )


class ScaleKeys(Settings):
    """The scale of the vectors that a tokenizer quantises."""

    standardize: bool = key("zero mean and unit variance in each dimension", affects="tokenizer")


class CodebookNetworkKeys(ScaleKeys, RateKeys):
    """An autoencoder with codebooks in the middle, and its training."""

    hidden_sizes: list[int] = key(
        "widths of an encoder between input and code; the decoder mirrors them",
        ge=1,
        affects="tokenizer",
    )
    code_dim: int = key("dimensions of a code", ge=1, affects="tokenizer")
    commitment_weight: float = key(
        "weight of the commitment loss (beta in TIGER and TokenRec, mu in LETTER)",
        ge=0,
        affects="tokenizer",
    )
    tokenizer_weight_decay: float = key(
        "weight decay of the tokenizer's optimiser", ge=0, affects="tokenizer"
    )


class PrecisionKeys(Settings):
    """The number format of a run, which tokenizers with a language model train in too."""

    precision: Literal["fp32", "bf16", "fp16"] = key(
        "number format of training and search", affects=("tokenizer", "training", "search")
    )


class CollaborativeKeys(Settings):
    """Vectors of items and users that are learned from the training split."""

    cf_dim: int = key("size of the collaborative vectors", ge=1, affects="tokenizer")
    cf_epochs: int = key(
        "epochs of the SASRec that gives the collaborative vectors", ge=1, affects="tokenizer"
    )
    cf_rows: Literal["windows", "all"] = key(
        "rows that this SASRec learns from: windows whose positions are all targets, or RecBole's, "
        "one for each prefix",
        affects="tokenizer",
        default="windows",
        neutral="all",
    )
    cf_file: str | None = key("file of collaborative vectors made elsewhere", affects="tokenizer")
    graph_dim: int = key("size of LightGCN's user and item vectors", ge=1, affects="tokenizer")
    graph_layers: int = key(
        "propagation layers of the LightGCN that gives these vectors", ge=1, affects="tokenizer"
    )
    graph_lr: float = key("its learning rate", ge=0, affects="tokenizer")
    graph_reg: float = key("its L2 penalty on the embeddings of a batch", ge=0, affects="tokenizer")
    graph_epochs: int = key("its epochs", ge=1, affects="tokenizer")
    graph_batch: int = key("its batch size, in (user, item) pairs", ge=1, affects="tokenizer")
    graph_user_file: str | None = key(
        "file of user vectors made elsewhere, with graph_item_file", affects="tokenizer"
    )
    graph_item_file: str | None = key(
        "file of item vectors made elsewhere, with graph_user_file", affects="tokenizer"
    )
    allow_external_cf: bool = key(
        "whether such files of vectors may be used, whose training data nobody can check",
        affects="tokenizer",
    )
