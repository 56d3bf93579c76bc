"""The trained stages of LMIndexer's tokenizer (arXiv 2310.07815, section 3.3 and appendix).

=====================  =========================================================================
stage                  what trains
=====================  =========================================================================
warm-up                :class:`WarmUp`: the reconstructor alone, with a random codebook
no-code, position t    :class:`PositionStage` with ``quantised=False``: the language model and the
                       reconstructor, which reads the continuous state
joint, position t      :class:`PositionStage`: language model, codebook and reconstructor
=====================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.data.rows.batching import length_grouped
from recbole_genrec.tokenizer.lmindexer.losses import (
    batch_contrast,
    commitment_loss,
    reconstruction_loss,
    sibling_contrast,
)
from recbole_genrec.tokenizer.lmindexer.network import IndexerNetwork
from recbole_genrec.tokenizer.lmindexer.settings import LMIndexerTokenizerSettings
from recbole_genrec.tokenizer.lmindexer.siblings import Siblings
from recbole_genrec.tokenizer.training_loop import EpochEnd, TrainingStage

WARMUP_SHARE = 0.1
"""Share of a stage's steps in which its learning rate rises."""


@dataclass(frozen=True)
class Texts:
    """The texts of all items as token ids.

    Attributes:
        ids: int64 ``[N, S]``, right-padded.
        valid: bool ``[N, S]``, which of them count.
        device: where batches are wanted.
    """

    ids: Tensor
    valid: Tensor
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text ``[N]``."""
        return self.valid.sum(1)

    def cut(self, length: int) -> Texts:
        """The first ``length`` tokens of each text."""
        return Texts(self.ids[:, :length], self.valid[:, :length], self.device)

    def __getitem__(self, rows: Tensor) -> Segment:
        """The texts ``rows [B]``, trimmed to the longest of them."""
        width = int(self.valid[rows].sum(1).max())
        ids = self.ids[rows, :width].to(self.device)  # [B, S]
        return ids, self.valid[rows, :width].to(self.device)


class IndexerStage(TrainingStage):
    """What the trained stages share: AdamW, a linear schedule, batches of similar length.

    Args:
        name: of the stage.
        network: what is trained.
        learned: the parameters that train.
        texts: of all items.
        settings: of the tokenizer.
        epochs: how many.
        batch_size: items per batch.
        seed: of the order of the items and of what is drawn for them.
    """

    learning_rate_key = "stage_lr"
    network: IndexerNetwork
    generator: torch.Generator

    def __init__(
        self,
        name: str,
        network: IndexerNetwork,
        learned: Iterable[nn.Parameter],
        texts: Texts,
        settings: LMIndexerTokenizerSettings,
        epochs: int,
        batch_size: int,
        seed: int,
    ) -> None:
        optimiser = torch.optim.AdamW(learned, lr=settings.stage_lr, weight_decay=0.0)
        super().__init__(name, f"LMIndexer {name}", network, optimiser, epochs)
        self.texts = texts
        self.settings = settings
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)
        steps = epochs * -(-len(texts) // batch_size)
        self.schedule = get_linear_schedule_with_warmup(
            optimiser, round(WARMUP_SHARE * steps), steps
        )

    def batches(self, epoch: int) -> list[Tensor]:
        """Items of similar length together."""
        order = torch.randperm(len(self.texts), generator=self.generator)
        lengths = self.texts.lengths
        return list(length_grouped(order, lengths, self.batch_size, self.generator))


class WarmUp(IndexerStage):
    """The reconstructor learns to use ids of a random codebook; all of the text is visible.

    Args:
        network: of which the reconstructor alone trains.
        texts: of all items.
        settings: of the tokenizer.
        seed: of everything random.
    """

    def __init__(
        self,
        network: IndexerNetwork,
        texts: Texts,
        settings: LMIndexerTokenizerSettings,
        seed: int,
    ) -> None:
        learned = network.reconstructor.parameters()
        epochs, batch_size = settings.stage_epochs[0], settings.stage_batch[0]
        super().__init__("warm-up", network, learned, texts, settings, epochs, batch_size, seed)

    def begin_epoch(self, epoch: int) -> None:
        """The frozen language model has no dropout."""
        self.network.backbone.eval()

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """L_recon of the items ``rows [B]``."""
        texts = self.texts[rows]
        nothing = texts[0][:, :0]  # [B, 0]
        with torch.no_grad():
            states = self.network.decode(self.network.read(texts), nothing)[:, -1]  # [B, d]
            current, _ = self.network.quantise(states, 0)
        return {"total": reconstruction_loss(*self.network.restore(texts, nothing, current, 0.0))}


class PositionStage(IndexerStage):
    """A position learns, on its own codes or on the continuous state.

    Args:
        name: of the stage.
        network: all of it trains.
        texts: of all items.
        prefix: codes of the finished positions ``[N, t - 1]``.
        settings: of the tokenizer.
        seed: of everything random.
        quantised: whether the reconstructor reads ``hat h``, and not ``h``.
        revive: called after each epoch, with ``revive_dead``.
    """

    def __init__(
        self,
        name: str,
        network: IndexerNetwork,
        texts: Texts,
        prefix: Tensor,
        settings: LMIndexerTokenizerSettings,
        seed: int,
        quantised: bool,
        revive: Callable[[], None] | None = None,
    ) -> None:
        self.level = prefix.shape[1]
        later = min(self.level, 1)
        epochs = settings.stage_epochs[1]
        if quantised:
            epochs = settings.stage_epochs[2]
        batch_size = settings.stage_batch[later]
        learned = network.parameters()
        super().__init__(name, network, learned, texts, settings, epochs, batch_size, seed)
        self.prefix = prefix
        self.siblings = Siblings(prefix) if self.level else None
        self.mask_rate = settings.mask_rate[later]
        self.quantised = quantised
        self.revive = revive

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """All losses of the items ``rows [B]``."""
        losses = self._first(rows) if self.siblings is None else self._later(rows, self.siblings)
        settings = self.settings
        total = settings.w_recon * losses["recon"] + settings.w_contrast * losses["contrast"]
        if "commit" in losses:
            total = total + settings.w_commit * losses["commit"]
        return {"total": total, **losses}

    def _first(self, rows: Tensor) -> dict[str, Tensor]:
        """Position 1: the other items of the batch are the negatives."""
        states = self._states(rows)[:, -1]  # [B, d]
        again = self._states(rows)[:, -1]
        return {
            "recon": self._reconstruction(rows, states),
            "contrast": batch_contrast(states, again),
        }

    def _later(self, rows: Tensor, siblings: Siblings) -> dict[str, Tensor]:
        """Later positions: items with the same prefix are the negatives, and are restored too."""
        drawn, valid = siblings.draw(rows, self.settings.hard_negatives, self.generator)  # [B, n]
        candidates = torch.cat([rows, drawn[valid]])  # [M]
        states = self._states(rows)[:, -1]  # [B, d]
        again = self._states(candidates)  # [M, t, d]
        current = again[:, -1]  # [M, d]

        valid = valid.to(current.device)
        # Place of each sibling among the candidates; missing ones point to the item and are hidden.
        places = len(rows) + valid.flatten().cumsum(0).unflatten(0, valid.shape) - 1  # [B, n]
        items = torch.arange(len(rows), device=current.device).unsqueeze(1)  # [B, 1]
        places = torch.cat([items, torch.where(valid, places, items)], dim=1)  # [B, 1 + n]

        prefix = self._prefix(candidates)  # [M, t - 1]
        logits = self.network.prefix_logits(again[:, :-1])  # [M, t - 1, C]
        return {
            "recon": self._reconstruction(candidates, current),
            "contrast": sibling_contrast(states, current[places], valid),
            "commit": commitment_loss(logits, self.network.codes.tokens(prefix)),
        }

    def _states(self, rows: Tensor) -> Tensor:
        """Decoder states ``[B, t, d]`` of the items; each call has other dropout."""
        memory = self.network.read(self.texts[rows])
        return self.network.decode(memory, self._prefix(rows))

    def _prefix(self, rows: Tensor) -> Tensor:
        return self.prefix[rows].to(self.texts.device)

    def _reconstruction(self, rows: Tensor, states: Tensor) -> Tensor:
        """L_recon of the items ``rows [B]`` from their states ``[B, d]``."""
        current = states
        if self.quantised:
            current, _ = self.network.quantise(states, self.level)
        prefix = self._prefix(rows)
        restored = self.network.restore(self.texts[rows], prefix, current, self.mask_rate)
        return reconstruction_loss(*restored)

    def end_epoch(self, epoch: int, means: dict[str, float]) -> EpochEnd:
        """Shows the losses; with ``revive_dead`` unused codes move."""
        if self.revive is not None:
            self.revive()
        shown = {name: f"{mean:.3f}" for name, mean in means.items() if name != "total"}
        return EpochEnd(shown=shown)
