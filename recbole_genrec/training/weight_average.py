"""An average of the weights over the last steps, which is validated, tested and stored.

An exponential moving average (Polyak and Juditsky 1992 average evenly; the decay is that of common
practice). Training goes on with the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of the trained parameters of a model, in float32 whatever their format.

    A step moves it by less than half precision can show.

    Args:
        model: what is trained.
        decay: share of the average that a step keeps. It rises from .1 in the first steps, as
            (1 + n) / (10 + n) after n steps, so that the start is forgotten (our choice).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.decay = decay
        self.start_anew()
        # The weights themselves while the model shows the averages.
        self._trained: dict[str, Tensor] | None = None

    def _copies(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def start_anew(self) -> None:
        """Forget the steps so far."""
        self.steps = 0
        self.averages = {name: copy.float() for name, copy in self._copies().items()}

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in the weights after an optimiser step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        weights = [parameter.detach().float() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), weights, 1 - decay)

    @torch.no_grad()
    def show(self) -> None:
        """Put the averages into the model, for validation, test and checkpoint."""
        if self._trained is None:
            self._trained = self._copies()
            self._fill(self.averages)

    @torch.no_grad()
    def hide(self) -> None:
        """Put the weights themselves back, for training."""
        if self._trained is not None:
            self._fill(self._trained)
            self._trained = None

    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def state(self) -> dict[str, Any]:
        """For the resume file."""
        return {"averages": self.averages, "steps": self.steps}

    @torch.no_grad()
    def set_state(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.steps = int(state["steps"])
        for name, average in self.averages.items():
            average.copy_(state["averages"][name])


@contextmanager
def anew_after_refresh(average: WeightAverage | None, model: nn.Module) -> Iterator[None]:
    """Let an average start anew where the codes of the model change in this block.

    Weights from before were trained with other codes; what is validated and stored holds weights
    and codes that belong together.

    Args:
        average: of the model, if there is one.
        model: what is trained; ``codes_version`` counts the changes of its codes.
    """
    before = int(getattr(model, "codes_version", 0))
    yield
    if average is not None and int(getattr(model, "codes_version", 0)) != before:
        average.start_anew()
