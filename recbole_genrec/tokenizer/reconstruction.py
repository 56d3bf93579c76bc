"""Stage 1 of STORE (arXiv 2409.07276 v1): the training that makes dense tokens of item texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.data.rows.batching import length_grouped
from recbole_genrec.tokenizer.quantiser.dense import DenseTokenizer
from recbole_genrec.tokenizer.training_loop import TrainingStage

if TYPE_CHECKING:
    from recbole_genrec.tokenizer.store import STORETokenizerSettings

EXPORT_BATCH = 256
"""Items whose dense tokens are computed at once."""
QUALITY_ROWS = 512
"""Items, randomly chosen, on which the reconstruction is measured at most."""
QUALITY_BATCH = 64


class ReconstructionStage(TrainingStage):
    """Stage 1: the language model restores each item text from its dense tokens.

    Args:
        network: the language model with its dense tokens.
        ids: text tokens of all items, int64 ``[N, T]``.
        valid: bool ``[N, T]``, which of them are no padding.
        settings: of the tokenizer.
        seed: of the order of the items.
    """

    network: DenseTokenizer
    generator: torch.Generator

    def __init__(
        self,
        network: DenseTokenizer,
        ids: Tensor,
        valid: Tensor,
        settings: STORETokenizerSettings,
        seed: int,
    ) -> None:
        learned = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learned, lr=settings.tokenizer_lr)
        epochs = settings.tokenizer_epochs
        super().__init__("reconstruction", "STORE tokenizer", network, optimiser, epochs)
        self.set_schedule(settings, -(-len(ids) // settings.tokenizer_batch_size))
        self.ids = ids
        self.valid = valid
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self, epoch: int) -> list[Tensor]:
        """Items of similar length together."""
        order = torch.randperm(len(self.ids), generator=self.generator)
        size = self.settings.tokenizer_batch_size
        return list(length_grouped(order, self.valid.sum(1), size, self.generator))

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """L_t2t of the items ``rows [B]``, trimmed to the longest text."""
        width = int(self.valid[rows].sum(1).max())
        ids = self.ids[rows, :width].to(self.settings.chosen_device)  # [B, T]
        mask = self.valid[rows, :width].to(self.settings.chosen_device)  # [B, T]
        if self.settings.placeholder == "one_pass":
            text = (ids, mask)
            dropout = self.settings.task_token_dropout
            return {"total": self.network.one_pass_loss(text, text, dropout)}
        dense = self.network.dense(ids, mask)  # [B, M, d_model]
        dropout = self.settings.task_token_dropout
        return {"total": self.network.reconstruction_loss(dense, ids, mask, dropout)}


@torch.no_grad()
def dense_tokens(
    network: DenseTokenizer, ids: Tensor, valid: Tensor, device: torch.device | str
) -> Tensor:
    """Dense tokens of all texts in evaluation mode and float32, ``[N, M, d_model]`` on the CPU.

    Args:
        network: of stage 1.
        ids: text tokens, int64 ``[N, T]``.
        valid: bool ``[N, T]``, which of them are no padding.
        device: of the network.
    """
    network.eval()
    batches = zip(ids.split(EXPORT_BATCH), valid.split(EXPORT_BATCH), strict=True)
    return torch.cat(
        [network.dense(text.to(device), mask.to(device)).float().cpu() for text, mask in batches]
    )


@torch.random.fork_rng()  # a loss draws tokens to mask, also where none is
@torch.no_grad()
def reconstruction_quality(
    network: DenseTokenizer,
    dense: Tensor,
    ids: Tensor,
    valid: Tensor,
    settings: STORETokenizerSettings,
    seed: int,
) -> dict[str, float]:
    """Reconstruction loss of items with their own dense tokens and with another item's.

    Args:
        network: of stage 1.
        dense: see :func:`dense_tokens`.
        ids: text tokens, int64 ``[N, T]``.
        valid: bool ``[N, T]``, which of them are no padding.
        settings: of the tokenizer.
        seed: of the choice of items.
    """
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(ids), generator=generator)[:QUALITY_ROWS]
    others = chosen.roll(1)
    device = settings.chosen_device
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, other in zip(chosen.split(QUALITY_BATCH), others.split(QUALITY_BATCH), strict=True):
        text, mask = ids[rows].to(device), valid[rows].to(device)
        losses = []
        for source in (rows, other):
            if settings.placeholder == "one_pass":
                content = (ids[source].to(device), valid[source].to(device))
                loss = network.one_pass_loss(content, (text, mask))
            else:
                loss = network.reconstruction_loss(dense[source].to(device), text, mask)
            losses.append(loss.item())
        sums += torch.tensor([*losses, 1.0], dtype=torch.float64) * int(mask.sum())
    return {
        "reconstruction_loss": float(sums[0] / sums[2]),
        "reconstruction_loss_shuffled": float(sums[1] / sums[2]),
    }
