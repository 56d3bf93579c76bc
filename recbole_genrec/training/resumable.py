"""What a trainer must have so that an interrupted run can continue."""

from __future__ import annotations

from logging import Logger
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.training.replicas import Replicas
from recbole_genrec.training.weight_average import WeightAverage


class ResumableTrainer(Protocol):
    """What ``ResumePoints`` reads of a trainer, saves and restores.

    Attributes:
        config: the run's ``GenRecConfig``.
        settings: its typed view.
        run_name: name of the run; a resume file of another run is refused.
        writes: whether this process writes files.
        start_epoch: the epoch that training begins with.
        cur_step: validations since the best one.
        seconds: wall time by stage.
        cpu_seconds: CPU time by stage.
        history: what is reported of each epoch.
        average: of the weights, with ``ema_decay``.
    """

    config: Any
    settings: SharedSettings
    logger: Logger
    run_name: str
    writes: bool
    model: nn.Module
    replicas: Replicas
    device: torch.device
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: GradScaler
    start_epoch: int
    cur_step: int
    best_valid_score: float
    best_valid_result: dict[str, float] | None
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    history: list[dict[str, Any]]
    average: WeightAverage | None

    def weights(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds, whole."""

    def count_training(self) -> None:
        """Add what training has used since the last call to ``seconds`` and ``cpu_seconds``."""
