"""Which trainer trains a model."""

from __future__ import annotations

from typing import Any

from recbole.trainer import Trainer
from recbole.utils import get_trainer

from recbole_genrec.training.several_passes import LOOPS, SeveralPassesTrainer
from recbole_genrec.training.trainer import GenRecTrainer


def get_trainer_class(model_class: Any, name: str) -> type[GenRecTrainer]:
    """Our trainer; on top of RecBole's special one where a baseline has it (Pop, RecVAE, ...)."""
    stock = get_trainer(model_class.type, name)
    if stock is Trainer:
        return GenRecTrainer
    ours = SeveralPassesTrainer if issubclass(stock, LOOPS) else GenRecTrainer
    # The special trainer's own loop comes first and calls ours through super().
    return type(f"GenRec{stock.__name__}", (stock, ours), {})
