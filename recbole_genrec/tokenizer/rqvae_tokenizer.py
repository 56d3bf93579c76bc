"""TIGER's tokenizer (arXiv 2305.05065): an RQ-VAE, trained on item vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from recbole_genrec.runtime.number_formats import multiplies_bf16
from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import CodebookNetworkKeys
from recbole_genrec.tokenizer.codes import used_per_level
from recbole_genrec.tokenizer.epoch_choice import Rule
from recbole_genrec.tokenizer.quantiser.codebook_start import Start
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.rqvae_stage import RQVAEStage, equal_batches
from recbole_genrec.tokenizer.tensor_names import with_prefix, without_prefix
from recbole_genrec.tokenizer.vector_tokenizer import (
    VectorSettings,
    VectorTokenizer,
)

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class RQVAESettings(CodebookNetworkKeys, VectorSettings):
    """Keys of ``tokenizer: rqvae``."""

    tokenizer_epochs: int | Literal["auto"] = key(  # type: ignore[assignment]  # wider
        "epochs of the tokenizer's training; auto = those of 1,500 batches, 50 to 500",
        ge=0,
        affects="tokenizer",
    )

    rq_reduction: Literal["mean", "sum"] = key(
        "reduction of the losses over dimensions and levels", affects="tokenizer"
    )
    sinkhorn_epsilon: float = key(
        "regularisation of Sinkhorn: in training the last level is assigned by it (0 = nearest "
        "code), and the repair of collisions takes it (0 = 0.003)",
        ge=0,
        affects="tokenizer",
    )
    codebook_init: Start = key(
        "k-means that sets the codes before training: on all items, on all with bounds on the "
        "sizes of the clusters (LETTER), or on the first batch (TIGER, LC-Rec)",
        affects="tokenizer",
        default="all",
        neutral="all",
    )
    dead_code_reset: bool = key(
        "move unused codes to random residuals now and then", affects="tokenizer"
    )
    tokenizer_learner: Literal["adamw", "adagrad"] = key(
        "optimiser of the tokenizer", affects="tokenizer"
    )
    adagrad_accumulator: float = key(
        "start of Adagrad's sum of squares; torch starts at 0, where the first step moves every "
        "weight by the whole rate",
        ge=0,
        default=0.1,
        only_if=("tokenizer_learner", "adagrad"),
        affects="tokenizer",
    )
    tokenizer_choice: Rule = key(
        "which epoch is kept: most distinct ids (the papers' collision rate), fewest items that "
        "share their id, or lowest loss",
        affects="tokenizer",
        default="distinct",
        neutral="sharing",
    )
    tokenizer_precision: Literal["auto", "fp32", "bf16"] = key(
        "number format of the products of encoder and decoder while the tokenizer trains; auto = "
        "bf16 where the processor multiplies it; codes are assigned in fp32",
        affects="tokenizer",
        default="fp32",
        neutral="fp32",
    )
    tokenizer_eval_interval: int = key(
        "epochs between two looks at collisions and loss", ge=1, affects="tokenizer"
    )
    tokenizer_patience: int = key(
        "looks without improvement before training stops", ge=1, affects="tokenizer"
    )


class RQVAETokenizer(VectorTokenizer):
    """RQ-VAE on item vectors.

    The epoch that ``tokenizer_choice`` names is kept. Training stops when neither its figure nor
    the loss improves.
    """

    name = "rqvae"
    settings_class = RQVAESettings
    settings: RQVAESettings

    @property
    def revision(self) -> int:
        """1 of a start from the first batch, which once filled too few codes."""
        return int(self.settings.codebook_init == "first_batch")

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Codebooks start by k-means, as ``codebook_init`` says; then the RQ-VAE is trained."""
        device = self.settings.chosen_device
        sizes = self.fitted_sizes(len(x))
        with seeded(self.seed):
            network = self._build(x.shape[1], sizes).to(device)
            x = x.to(device)
            self._start(network, x)
            stage = self.stage(network, x, content)
            self.loop(self._precision).train(stage)
        self.quality["curve"] = stage.track["curve"]
        self.quality["best_epoch"] = stage.track["best"]["epoch"]
        self.network = network.cpu().eval()
        self.quantiser = self.network

    @property
    def _precision(self) -> str:
        """The number format that ``tokenizer_precision`` means here."""
        if self.settings.tokenizer_precision != "auto":
            return self.settings.tokenizer_precision
        device = torch.device(self.settings.chosen_device)
        return "bf16" if multiplies_bf16(device.type) else "fp32"

    def _start(self, network: RQVAE, x: Tensor) -> None:
        """Set the codes of ``network`` from the item vectors ``x [n, D]``."""
        how = self.settings.codebook_init
        if how == "first_batch":
            generator = torch.Generator().manual_seed(self.seed)
            batches = equal_batches(len(x), self.settings.tokenizer_batch_size, generator)
            x = x[batches[0].to(x.device)]
        codes = network.codebook_init(x, self.seed, constrained=how == "constrained")
        self.quality["start"] = {
            "items": len(codes),
            "distinct_ids": len(codes.unique(dim=0)),
            "used": used_per_level(codes),
        }

    def stage(self, network: RQVAE, x: Tensor, content: ItemContent) -> RQVAEStage:
        """How ``network`` is trained on item vectors ``x [n, D]``.

        LETTER has a stage of its own.
        """
        return RQVAEStage(f"{self.name} tokenizer", network, x, self.settings, self.seed)

    def _build(self, d_in: int, sizes: tuple[int, ...]) -> RQVAE:
        settings = self.settings
        return RQVAE(
            d_in,
            settings.hidden_sizes,
            settings.code_dim,
            sizes,
            settings.commitment_weight,
            reduction=settings.rq_reduction,
            last_epsilon=settings.sinkhorn_epsilon,
            sinkhorn_iterations=settings.sinkhorn_iterations,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scaling and weights."""
        tensors, meta = super().state()
        tensors |= with_prefix("network.", self.network.state_dict())
        return tensors, {**meta, "sizes": list(self.network.sizes)}

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        # A stored tokenizer leaves the caller's random numbers as a fitted one does.
        with torch.random.fork_rng():
            self.network = self._build(self.scale.width, tuple(meta["sizes"])).eval()
        self.network.load_state_dict(without_prefix("network.", tensors))
        self.quantiser = self.network
