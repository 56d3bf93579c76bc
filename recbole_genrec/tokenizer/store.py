"""The dense tokenizer of STORE (arXiv 2409.07276 v1), stages 1 and 2: a causal language model compresses an item text into M vectors,
which PCA and k-means turn into M codes.

==================================  ===========================================================================
paper                               here
==================================  ===========================================================================
text-to-token                       ``dense.py``: ``DenseTokenizer.dense``
token-to-text, L_t2t                ``dense.py``: ``DenseTokenizer.reconstruction_loss``
PCA + k-means per position          :meth:`STORETokenizer.quantise`
weight hand-over to stage 3         :meth:`STORETokenizer.hand_over`
==================================  ===========================================================================

The paper does not settle how the placeholder block is filled. Two-pass injection is our choice (unpublished): in one pass the task block
would read keys of the layer below, and the vectors that k-means clusters would get no gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_genrec.backbone import apply_tuning, backbone_identity, build_backbone, tokenise_texts
from recbole_genrec.backbone.settings import BACKBONE_RULES
from recbole_genrec.data.batching import length_grouped
from recbole_genrec.errors import ArtefactError, GenRecError
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.base import ItemTokenizer
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import check_capacity
from recbole_genrec.tokenizer.quantiser.dense import DenseTokenizer
from recbole_genrec.tokenizer.quantiser.kmeans import PCAKMeans


class STORETokenizer(ItemTokenizer):
    """STORE's item tokenizer.

    Args:
        config: reads the keys in ``settings`` and ``device``, ``show_progress``.
        seed: of everything random in stages 1 and 2.
    """

    name = "store"
    settings = (
        "backbone",
        "backbone_config",
        "text_vocab_size",
        "tuning",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_targets",
        "quantisation",
        "text_max_len",
        "codebook_sizes",
        "pca_dim",
        "pca_l2",
        "task_token_dropout",
        "tokenizer_epochs",
        "tokenizer_lr",
        "tokenizer_batch_size",
        "collision",
        "dedup_spare",
        "prompts",
        "precision",
    )
    config_rules = {
        **BACKBONE_RULES,
        "text_max_len": Rule(int, "text tokens per item in stage 1", low=1),
        "pca_dim": Rule(int, "dimensions that k-means sees", low=1),
        "pca_l2": Rule(bool, "normalise before k-means"),
        "task_token_dropout": Rule(
            float, "share of masked input tokens in the reconstruction", low=0, high=1
        ),
        "prompts": Rule(dict, "sentences of the prompts"),
    }

    def __init__(self, config, seed: int):
        super().__init__(config, seed)
        self.sizes, self.n_dense = list(config["codebook_sizes"]), len(config["codebook_sizes"])
        self.vocabulary: str | None = None
        self.weights: dict[str, Tensor] = {}
        self.quantisers: list[PCAKMeans] = []

    def config_key(self) -> dict:
        """The settings that stages 1 and 2 depend on, and what the backbone's folder holds."""
        return {**super().config_key(), "backbone": backbone_identity(self.config["backbone"])}

    # --- stage 1 ------------------------------------------------------------------------------------------------------------------

    def fit(self, content) -> ItemCodes:
        """Train the language model on the item texts, cluster its dense tokens, repair collisions."""
        check_capacity(len(content.text) - 1, self.sizes, self.config["collision"])
        network, ids, valid = self._network(
            content.text[1:], [*content.text[1:], *self.config["prompts"].values()]
        )
        self._train(network, ids, valid)
        dense = self._export(network, ids, valid)
        self.quality = self._reconstruction_quality(network, dense, ids, valid)
        return self.quantise(dense, content.tokens)

    def _network(
        self, texts: Sequence[str], vocabulary_texts: Sequence[str] = ()
    ) -> tuple[DenseTokenizer, Tensor, Tensor]:
        """Build stage 1 (with the stored weights, if there are any) and encode ``texts``."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            backbone, text_tokenizer = build_backbone(
                self.config, vocabulary_texts, self.vocabulary
            )
            apply_tuning(backbone, self.config)
            prompt = torch.tensor(
                text_tokenizer(self.config["prompts"]["reconstruct"], add_special_tokens=False)[
                    "input_ids"
                ]
            )
            network = DenseTokenizer(backbone, self.n_dense, prompt)
        if self.config["backbone"] == "scratch":
            self.vocabulary = text_tokenizer.backend_tokenizer.to_str()
        if self.weights:
            network.load_state_dict(self.weights, strict=False)
        self.text_tokenizer = text_tokenizer
        ids, valid = tokenise_texts(text_tokenizer, texts, self.config["text_max_len"])
        return network.to(self.config["device"]), ids, valid

    def _train(self, network: DenseTokenizer, ids: Tensor, valid: Tensor) -> None:
        device, batch_size = self.config["device"], self.config["tokenizer_batch_size"]
        generator = torch.Generator().manual_seed(self.seed)
        kept = self.config["backbone"] == "scratch"  # random weights that no folder holds
        stored = {name: p for name, p in network.named_parameters() if p.requires_grad or kept}
        optimiser = torch.optim.Adam(
            (p for p in network.parameters() if p.requires_grad), lr=self.config["tokenizer_lr"]
        )
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config["precision"])
        scaler = torch.amp.GradScaler(torch.device(device).type, enabled=dtype == torch.float16)
        network.scale_injection(ids[:batch_size].to(device), valid[:batch_size].to(device))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            epochs, parts = (
                self.config["tokenizer_epochs"],
                {"optimiser": optimiser, "generator": generator, "scaler": scaler},
            )
            remaining = self.progress.epochs(epochs, network=network, **parts)
            progress = tqdm(
                remaining,
                total=epochs,
                desc="STORE tokenizer",
                disable=not self.config["show_progress"],
                ncols=100,
            )
            for epoch in progress:
                network.train()
                order = torch.randperm(len(ids), generator=generator)
                for rows in length_grouped(order, valid.sum(1), batch_size, generator):
                    width = int(valid[rows].sum(1).max())
                    batch, mask = ids[rows, :width].to(device), valid[rows, :width].to(device)
                    with torch.autocast(
                        torch.device(device).type, dtype=dtype, enabled=dtype is not None
                    ):
                        dense = network.dense(batch, mask)
                        loss = network.reconstruction_loss(
                            dense, batch, mask, self.config["task_token_dropout"]
                        )
                        loss = loss + self.extra_stage1_losses(network, dense, batch, mask)
                    if not torch.isfinite(loss):
                        raise GenRecError(
                            f"STORE's tokenizer loss is {float(loss)} in epoch {epoch}: lower --tokenizer_lr."
                        )
                    optimiser.zero_grad()
                    scaler.scale(loss).backward()
                    scaler.step(optimiser)
                    scaler.update()
                progress.set_postfix(loss=f"{float(loss.detach()):.3f}")
        self.weights = {name: p.detach().cpu().clone() for name, p in stored.items()}

    def extra_stage1_losses(
        self, network: DenseTokenizer, dense: Tensor, ids: Tensor, valid: Tensor
    ) -> Tensor | float:
        """Hook for further self-supervised tasks; the paper names none."""
        return 0.0

    @torch.no_grad()
    def _export(
        self, network: DenseTokenizer, ids: Tensor, valid: Tensor, batch_size: int = 256
    ) -> Tensor:
        """Dense tokens of all texts in evaluation mode and float32, ``[N, M, d_model]``."""
        network.eval()
        device = self.config["device"]
        batches = zip(ids.split(batch_size), valid.split(batch_size), strict=True)
        parts = [network.dense(a.to(device), b.to(device)).float().cpu() for a, b in batches]
        return torch.cat(parts)

    @torch.no_grad()
    def _reconstruction_quality(
        self, network: DenseTokenizer, dense: Tensor, ids: Tensor, valid: Tensor, rows: int = 512
    ) -> dict:
        """Reconstruction loss of up to ``rows`` items with their own dense tokens and with those of another item."""
        network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(ids), generator=generator)[:rows]
        device = self.config["device"]
        sums = torch.zeros(3, dtype=torch.float64)
        for own, other in zip(chosen.split(64), chosen.roll(1).split(64), strict=True):
            text, mask = ids[own].to(device), valid[own].to(device)
            losses = [
                network.reconstruction_loss(dense[rows].to(device), text, mask).item()
                for rows in (own, other)
            ]
            sums += torch.tensor([*losses, 1.0], dtype=torch.float64) * int(mask.sum())
        return {
            "reconstruction_loss": float(sums[0] / sums[2]),
            "reconstruction_loss_shuffled": float(sums[1] / sums[2]),
        }

    # --- stage 2 ------------------------------------------------------------------------------------------------------------------

    def quantise(self, dense: Tensor, tokens: list[str]) -> ItemCodes:
        """PCA and k-means at each position on its own, then the collision policies; nothing is trained.

        Args:
            dense: ``[N, M, d_model]``. tokens: raw item ids, padding first.
        """
        self.quantisers = [
            PCAKMeans.fit(
                dense[:, j],
                self.sizes[j],
                self.config["pca_dim"],
                l2=self.config["pca_l2"],
                seed=self.seed,
            )
            for j in range(self.n_dense)
        ]
        sizes = [len(quantiser.centroids) for quantiser in self.quantisers]
        for j, (used, wanted) in enumerate(zip(sizes, self.sizes, strict=True)):
            if used < 0.05 * min(wanted, len(dense)):
                logging.getLogger().warning(
                    f"LEVEL {j} OF THE CODES COLLAPSED: the dense tokens of {len(dense)} items take {used} different values. "
                    "Check that the item texts differ, or train the tokenizer longer."
                )
        distances = partial(self._distances, dense)
        return ItemCodes.build(
            self._assign(dense),
            sizes,
            tokens,
            self.config["collision"],
            distances=distances,
            spare=self.config["dedup_spare"],
        )

    def _assign(self, dense: Tensor) -> Tensor:
        return torch.stack(
            [quantiser.assign(dense[:, j]) for j, quantiser in enumerate(self.quantisers)], dim=1
        )

    def _distances(self, dense: Tensor, rows: Tensor) -> list[Tensor]:
        return [quantiser.distances(dense[rows, j]) for j, quantiser in enumerate(self.quantisers)]

    # --- for stage 3 and later ----------------------------------------------------------------------------------------------------

    def hand_over(self):
        """``(backbone, text tokenizer, P [d_in, d_model])``: stage 1's language model, for stage 3 to continue from.

        A LoRA adapter of stage 1 is merged into the weights it adapts (our choice).
        """
        network, *_ = self._network([])
        if self.config["tuning"] == "lora":
            network.backbone.merge_lora()
        return network.backbone.cpu(), self.text_tokenizer, network.inject.weight.detach().cpu()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Learned codes ``[n, M]`` of new item texts: one pass of the stage-1 model, stored PCA, nearest stored centroid."""
        return self._assign(self._dense_of(texts))

    def place(
        self, texts: Sequence[str], existing: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, int]:
        """As the base says; an item whose codes are full takes the nearest free ones."""
        dense = self._dense_of(texts)
        return self._place(self._assign(dense), existing, sizes, partial(self._distances, dense))

    def _dense_of(self, texts: Sequence[str]) -> Tensor:
        network, ids, valid = self._network(list(texts))
        return self._export(network, ids, valid)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Everything :meth:`encode` and :meth:`hand_over` need: tensors, and JSON-like values."""
        tensors = {f"network.{name}": value for name, value in self.weights.items()}
        for j, quantiser in enumerate(self.quantisers):
            tensors |= {
                f"quantiser.{j}.{name}": value for name, value in quantiser.tensors().items()
            }
        identity = backbone_identity(self.config["backbone"])
        return tensors, {
            "vocabulary": self.vocabulary,
            "quality": self.quality,
            "backbone": identity,
        }

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        self.vocabulary, self.quality = meta["vocabulary"], meta["quality"]
        if self.config["tuning"] == "lora" and meta["backbone"] != backbone_identity(
            self.config["backbone"]
        ):
            raise ArtefactError(
                f"The adapter was trained on other weights than {self.config['backbone']} holds now. Restore that folder."
            )
        self.weights = _part(tensors, "network.")
        self.quantisers = [
            PCAKMeans.from_tensors(_part(tensors, f"quantiser.{j}.")) for j in range(self.n_dense)
        ]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
