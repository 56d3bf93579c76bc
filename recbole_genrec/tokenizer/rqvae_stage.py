"""The training of an RQ-VAE on item vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recbole_genrec.errors import GenRecError
from recbole_genrec.tokenizer.codes import code_entropy, used_per_level
from recbole_genrec.tokenizer.collapse import possible_ids, refuse_few_ids
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.epoch_choice import EpochChoice
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.training_loop import EpochEnd, TrainingStage
from recbole_genrec.training.optimiser import in_one_pass

if TYPE_CHECKING:
    from recbole_genrec.tokenizer.rqvae_tokenizer import RQVAESettings

REVIVE_EVERY = 10
"""Epochs between two revivals of dead codes, in the first two thirds of the training."""
STEPS = 1500
"""Optimiser steps of ``tokenizer_epochs: auto``, in whole epochs (our choice, measured in
``benchmarks/results/tokenizer_speed.md``)."""
FEWEST_EPOCHS = 50
MOST_EPOCHS = 500
"""Bounds of ``tokenizer_epochs: auto``, for large and for small catalogues (our choice)."""
PATIENCE_WITH_COLLAPSE = 3
"""Looks in a row with hardly any distinct ids after which the fit is refused."""


class RQVAEStage(TrainingStage):
    """Trains an RQ-VAE. It is looked at every ``tokenizer_eval_interval`` epochs.

    ``tokenizer_choice`` says which look is the best. The stage ends when neither that nor the loss
    has improved at ``tokenizer_patience`` looks.

    Args:
        label: for the progress bar and for errors.
        network: with its codebooks set.
        x: item vectors ``[n, D]`` on the network's device.
        settings: of the tokenizer.
        seed: of the order of the items.
        further: parameters that are trained besides the network's.

    Attributes:
        choice: what the looks have found, and the best of them.
    """

    network: RQVAE
    generator: torch.Generator

    def __init__(
        self,
        label: str,
        network: RQVAE,
        x: Tensor,
        settings: RQVAESettings,
        seed: int,
        further: Iterable[nn.Parameter] = (),
    ) -> None:
        self.x = x
        self.settings = settings
        self.further = nn.ParameterList(further)
        optimiser = make_optimiser([*network.parameters(), *self.further], settings)
        n_batches = batch_count(len(x), settings.tokenizer_batch_size)
        epochs = epochs_asked(settings.tokenizer_epochs, n_batches)
        super().__init__("training", label, network, optimiser, epochs)
        self.set_schedule(settings, n_batches)
        self.generator = torch.Generator().manual_seed(seed)
        self.possible_ids = possible_ids(network.sizes, x.cpu())
        self.choice = EpochChoice(settings.tokenizer_choice, self._look(0))

    @property
    def track(self) -> dict[str, Any]:
        """What the looks have found, as plain values."""
        return self.choice.track

    @property
    def parts(self) -> dict[str, object]:
        """The network and what the looks have found."""
        return {**super().parts, "track": self.track}

    @property
    def running_parts(self) -> dict[str, object]:
        """As the base's, and the further parameters."""
        return {"further": self.further, **super().running_parts}

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Mini-batches of nearly equal size, so that Sinkhorn always sees a full one."""
        return equal_batches(len(self.x), self.settings.tokenizer_batch_size, self.generator)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """The losses of :meth:`RQVAE.forward`."""
        return self.network(self.x[rows.to(self.x.device)])[3]

    def end_epoch(self, epoch: int, means: dict[str, float]) -> EpochEnd:
        """Revive dead codes now and then, and look at collisions and loss."""
        self.choice.see_epoch(means)
        done = epoch + 1
        revivable = done % REVIVE_EVERY == 0 and done <= 2 * self.epochs // 3
        if self.settings.dead_code_reset and revivable:
            self.network.revive_dead_codes(self.x, self.generator)

        if done % self.settings.tokenizer_eval_interval and done != self.epochs:
            return EpochEnd()
        look = {**self._look(done), **means}
        is_best = self.choice.note(look)
        self._refuse_collapse(done)
        stop = self.track["since"] >= self.settings.tokenizer_patience
        shown = {
            "loss": f"{look['total']:.4f}",
            "collisions": f"{look['excess_rate']:.1%}",
            "sharing": f"{look['collision_rate']:.1%}",
            "ids": str(look["distinct_ids"]),
            "largest": str(look["largest_group"]),
            "perplexity": "/".join(f"{value:.0f}" for value in look["perplexity"]),
        }
        return EpochEnd(is_best, stop, shown)

    def _look(self, epoch: int) -> dict[str, Any]:
        self.codes = self.network.eval().assign(self.x).cpu()
        stats = collision_stats(self.codes)
        return {
            "epoch": epoch,
            "collision_rate": stats["collision_rate"],
            "excess_rate": stats["excess_rate"],
            "distinct_ids": stats["unique_ids"],
            "largest_group": stats["largest_group"],
            "used": used_per_level(self.codes),
            "perplexity": [math.exp(code_entropy(column)) for column in self.codes.unbind(1)],
        }

    def _refuse_collapse(self, epoch: int) -> None:
        """End a fit that has had hardly any distinct ids for some looks.

        Raises:
            GenRecError: says how many there are.
        """
        try:
            refuse_few_ids(self.codes, self.possible_ids, f" by epoch {epoch}")
        except GenRecError:
            self.track["collapsed"] = self.track.get("collapsed", 0) + 1
            if self.track["collapsed"] >= PATIENCE_WITH_COLLAPSE:
                raise
        else:
            self.track["collapsed"] = 0


def equal_batches(n: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random batches of nearly equal size, of about ``batch_size`` of ``n`` rows."""
    return torch.randperm(n, generator=generator).tensor_split(batch_count(n, batch_size))


def batch_count(n: int, batch_size: int) -> int:
    """How many batches of about ``batch_size`` make ``n`` rows."""
    return max(1, round(n / batch_size))


def epochs_asked(epochs: int | str, n_batches: int) -> int:
    """The epochs that ``tokenizer_epochs`` asks for.

    ``auto`` is as many as make :data:`STEPS` steps: small catalogues need more epochs than large
    ones.

    Args:
        epochs: value of the key.
        n_batches: of an epoch.
    """
    if epochs != "auto":
        return int(epochs)
    return min(max(round(STEPS / n_batches), FEWEST_EPOCHS), MOST_EPOCHS)


def make_optimiser(
    parameters: list[nn.Parameter], settings: RQVAESettings
) -> torch.optim.Optimizer:
    """The optimiser that ``tokenizer_learner`` names.

    Adagrad starts as in TensorFlow, with 0.1, since TIGER's rate of .4 belongs to such a start.

    Args:
        parameters: what is trained, on one device.
        settings: of the tokenizer.
    """
    rate = settings.tokenizer_lr
    decay = settings.tokenizer_weight_decay
    if settings.tokenizer_learner == "adamw":
        adamw = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        on_cpu = parameters[0].device.type == "cpu"
        return in_one_pass(adamw) if on_cpu else adamw
    return torch.optim.Adagrad(
        parameters,
        lr=rate,
        weight_decay=decay,
        initial_accumulator_value=settings.adagrad_accumulator,
    )
