"""The dense tokenizer of STORE (arXiv 2409.07276 v1), stages 1 and 2.

A causal language model compresses an item text into M vectors, which PCA and k-means turn into M
codes.

==================================  ==========================================================
paper                               here
==================================  ==========================================================
text-to-token                       ``quantiser/dense.py``: ``DenseTokenizer.dense``
token-to-text, L_t2t                ``quantiser/dense.py``: ``DenseTokenizer.reconstruction_loss``
training of stage 1                 ``reconstruction.py``
PCA + k-means per position          :meth:`STORETokenizer.quantise`
weight hand-over to stage 3         :meth:`STORETokenizer.hand_over`
==================================  ==========================================================

The paper does not settle how the placeholder block is filled. Two-pass injection is our choice
(unpublished): in one pass the task block reads keys of the layer below, and the vectors that
k-means clusters get no gradient (``placeholder: one_pass``, an ablation).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from recbole_genrec.backbone import (
    CausalBackbone,
    PretrainedBackbone,
    apply_tuning,
    backbone_identity,
    build_backbone,
    is_identity_of,
    serialised,
    token_ids,
    tokenise_texts,
)
from recbole_genrec.errors import ArtefactError
from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import (
    FitItemKeys,
    PrecisionKeys,
    RateKeys,
    RepairKeys,
    TokenizerSettings,
)
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.quantiser.dense import DenseTokenizer
from recbole_genrec.tokenizer.quantiser.pca_kmeans import PCAKMeans
from recbole_genrec.tokenizer.reconstruction import (
    ReconstructionStage,
    dense_tokens,
    reconstruction_quality,
)
from recbole_genrec.tokenizer.tensor_names import with_prefix, without_prefix

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent

FEWEST_VALUES = 0.05
"""A level with fewer codes in use than this share of its size is reported (our choice)."""


class STORETokenizerSettings(
    CausalBackboneKeys, PrecisionKeys, RateKeys, FitItemKeys, RepairKeys, TokenizerSettings
):
    """Keys of ``tokenizer: store``."""

    text_max_len: int = key("text tokens per item in stage 1", ge=1, affects="tokenizer")
    tokenizer_text_len: int | None = key(
        "text tokens per item in stage 1, where text_max_len says something else of the generator "
        "(LCRec: of a title); ~ = text_max_len",
        ge=1,
        affects="tokenizer",
        default=None,
        neutral=None,
    )
    pca_dim: int = key("dimensions that k-means sees", ge=1, affects="tokenizer")
    pca_l2: bool = key("normalise before k-means", affects="tokenizer")
    task_token_dropout: float = key(
        "share of masked input tokens in the reconstruction", ge=0, le=1, affects="tokenizer"
    )
    placeholder: Literal["two_pass", "one_pass"] = key(
        "whether the text is restored in a second pass from the dense tokens, or in the first one, "
        "an ablation in which they get no gradient",
        affects="tokenizer",
        default="two_pass",
        neutral="two_pass",
    )
    prompts: dict = key("sentences of the prompts", affects=("tokenizer", "training"))

    @property
    def text_length(self) -> int:
        """Text tokens per item in stage 1."""
        return self.tokenizer_text_len or self.text_max_len


class STORETokenizer(ItemTokenizer):
    """STORE's item tokenizer.

    Args:
        config: a ``GenRecConfig``, or values by key.
        seed: of everything random in stages 1 and 2.
    """

    name = "store"
    caps_sizes = True
    settings_class = STORETokenizerSettings
    settings: STORETokenizerSettings

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.n_dense = len(self.settings.codebook_sizes)
        self.vocabulary: str | None = None
        self.weights: dict[str, Tensor] = {}
        self.quantisers: list[PCAKMeans] = []

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """The settings that stages 1 and 2 depend on, and what the backbone's folder holds."""
        identity = backbone_identity(self.settings.backbone)
        key = {**super().config_key(switches), "backbone": identity}
        if self.settings.tokenizer_text_len is not None:
            del key["text_max_len"]
        return key

    # --- stage 1 ------------------------------------------------------------------------------

    def fit(self, content: ItemContent) -> ItemCodes:
        """Train the language model on the texts, cluster its dense tokens, repair collisions.

        All in the order of the raw item ids: the numbering of the items changes no item's codes.
        """
        ordered = content.by_raw_id()
        texts = ordered.text[1:]
        self.fitted_sizes(len(texts))
        network, ids, valid = self._network(texts, [*texts, *self.settings.prompts.values()])
        self._train(network, ids, valid)
        dense = dense_tokens(network, ids, valid, self.settings.chosen_device)
        self.quality = reconstruction_quality(network, dense, ids, valid, self.settings, self.seed)
        return self.quantise(dense, ordered.tokens).aligned(content.tokens)

    def describe(self, content: ItemContent) -> str:
        """The number of items, and how much of their texts stage 1 reads."""
        return f"{super().describe(content)}, {self.settings.text_length} text tokens of each"

    def _network(
        self, texts: Sequence[str], vocabulary_texts: Sequence[str] = ()
    ) -> tuple[DenseTokenizer, Tensor, Tensor]:
        """Build stage 1, with the stored weights if there are any, and encode ``texts``.

        Returns:
            The network, text tokens int64 ``[N, T]``, and which of them are no padding ``[N, T]``.
        """
        with seeded(self.seed):
            backbone, text_tokenizer = build_backbone(
                self.config, vocabulary_texts, self.vocabulary
            )
            apply_tuning(backbone, self.config)
            sentence = self.settings.prompts["reconstruct"]
            prompt = torch.tensor(token_ids(text_tokenizer, sentence))
            network = DenseTokenizer(backbone, self.n_dense, prompt)
        if self.settings.backbone == "scratch":
            self.vocabulary = serialised(text_tokenizer)
        if self.weights:
            network.load_state_dict(self.weights, strict=False)
        self.text_tokenizer = text_tokenizer
        ids, valid = tokenise_texts(text_tokenizer, texts, self.settings.text_length)
        return network.to(self.settings.chosen_device), ids, valid

    def _train(self, network: DenseTokenizer, ids: Tensor, valid: Tensor) -> None:
        # No folder holds the random weights of a backbone from scratch.
        scratch = self.settings.backbone == "scratch"
        stored = {name: p for name, p in network.named_parameters() if p.requires_grad or scratch}
        stage = ReconstructionStage(network, ids, valid, self.settings, self.seed)
        first = slice(self.settings.tokenizer_batch_size)
        device = self.settings.chosen_device
        network.scale_injection(ids[first].to(device), valid[first].to(device))
        with seeded(self.seed):
            self.loop(self.settings.precision).train(stage)
        self.weights = {name: p.detach().cpu().clone() for name, p in stored.items()}

    # --- stage 2 ------------------------------------------------------------------------------

    def quantise(self, dense: Tensor, tokens: list[str]) -> ItemCodes:
        """PCA and k-means at each position on its own, then the collision policies.

        Nothing is trained.

        Args:
            dense: ``[N, M, d_model]``.
            tokens: raw item ids, padding first.
        """
        sizes_asked = self.fitted_sizes(len(dense))
        settings = self.settings
        self.quantisers = [
            PCAKMeans.fit(
                dense[:, position],
                size,
                settings.pca_dim,
                l2=settings.pca_l2,
                seed=self.seed,
            )
            for position, size in enumerate(sizes_asked)
        ]
        sizes = [len(quantiser.centroids) for quantiser in self.quantisers]
        for level, (used, size) in enumerate(zip(sizes, sizes_asked, strict=True)):
            if used < FEWEST_VALUES * min(size, len(dense)):
                logging.getLogger().warning(
                    f"LEVEL {level} OF THE CODES COLLAPSED: the dense tokens of {len(dense)} items "
                    f"take {used} different values. Check that the item texts differ, or train the "
                    "tokenizer longer."
                )
        return ItemCodes.build(
            self._assign(dense),
            sizes,
            tokens,
            distances=partial(self._distances, dense),
            **settings.collision_options,
        )

    def _assign(self, dense: Tensor) -> Tensor:
        """Codes ``[n, M]`` of dense tokens ``[n, M, d_model]``."""
        return torch.stack(
            [
                quantiser.assign(dense[:, position])
                for position, quantiser in enumerate(self.quantisers)
            ],
            dim=1,
        )

    def _distances(self, dense: Tensor, rows: Tensor) -> list[Tensor]:
        return [
            quantiser.distances(dense[rows, position])
            for position, quantiser in enumerate(self.quantisers)
        ]

    # --- for stage 3 and later ----------------------------------------------------------------

    def hand_over(self) -> PretrainedBackbone[CausalBackbone]:
        """Stage 1's language model, for stage 3 to continue from; ``inject`` is P of stage 1.

        A LoRA adapter of stage 1 is merged into the weights it adapts (our choice).
        """
        network, *_ = self._network([])
        if self.settings.tuning == "lora":
            network.backbone.merge_lora()
        inject = network.inject.weight.detach().cpu()
        return PretrainedBackbone(network.backbone.cpu(), self.text_tokenizer, inject)

    def encode(self, new: NewItems) -> Tensor:
        """Learned codes ``[n, M]`` of new item texts.

        One pass of the stage-1 model, stored PCA, nearest stored centroid.
        """
        return self._assign(self._dense_of(new.texts))

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """As the base says; an item whose codes are full takes the nearest free ones."""
        dense = self._dense_of(new.texts)
        return self._place(self._assign(dense), existing, sizes, partial(self._distances, dense))

    def _dense_of(self, texts: Sequence[str]) -> Tensor:
        network, ids, valid = self._network(list(texts))
        return dense_tokens(network, ids, valid, self.settings.chosen_device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that :meth:`encode` and :meth:`hand_over` need."""
        tensors = with_prefix("network.", self.weights)
        for position, quantiser in enumerate(self.quantisers):
            tensors |= with_prefix(f"quantiser.{position}.", quantiser.tensors())
        meta = {
            "vocabulary": self.vocabulary,
            "quality": self.quality,
            "backbone": backbone_identity(self.settings.backbone),
        }
        return tensors, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`.

        Raises:
            ArtefactError: a LoRA adapter belongs to other weights than the backbone's folder holds.
        """
        self.vocabulary = meta["vocabulary"]
        self.quality = meta["quality"]
        same = is_identity_of(meta["backbone"], self.settings.backbone)
        if self.settings.tuning == "lora" and not same:
            raise ArtefactError(
                f"The adapter was trained on other weights than {self.settings.backbone} holds "
                "now. Restore that folder."
            )
        self.weights = without_prefix("network.", tensors)
        self.quantisers = [
            PCAKMeans.from_tensors(without_prefix(f"quantiser.{position}.", tensors))
            for position in range(self.n_dense)
        ]
