"""Trainings whose epoch is more than one pass over its data, such as RecVAE's."""

from __future__ import annotations

from typing import Any

from recbole.trainer import RecVAETrainer

from recbole_genrec.errors import ConfigError
from recbole_genrec.training.trainer import GenRecTrainer

LOOPS = (RecVAETrainer,)
"""RecBole's trainers that train so; those of models that we take no data for are left out."""


class SeveralPassesTrainer(GenRecTrainer):
    """Our trainer below a loop of RecBole's that calls it several times an epoch.

    Each pass may change other weights with an optimiser of its own, of which a resume file and a
    schedule know one.

    Args:
        config: the run's ``GenRecConfig``.
        model: what is trained, on its device.

    Raises:
        ConfigError: the learning rate has a schedule.
    """

    can_resume = False

    def __init__(self, config: Any, model: Any) -> None:
        settings = config.settings
        if settings.lr_scheduler not in (None, "constant"):
            raise ConfigError(
                f"{settings.model} trains in several passes an epoch, each with an optimiser of "
                f"its own, and lr_scheduler: {settings.lr_scheduler} would change the rate of none "
                "of them. Use --lr_scheduler=constant."
            )
        super().__init__(config, model)
        self.logger.info(
            f"{settings.model} trains in several passes an epoch, so there is no resume file: an "
            "interrupted run begins anew."
        )

    def _list_losses(self, epoch: int, means: list[float]) -> None:
        """List an epoch once, with the losses of its passes one after another."""
        if self.history and self.history[-1]["epoch"] == epoch:
            self.history[-1]["loss"] += means
        else:
            super()._list_losses(epoch, means)
