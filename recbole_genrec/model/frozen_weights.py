"""The weights of a model that its training leaves as they are."""

from __future__ import annotations

from torch import nn


def frozen_weights(model: nn.Module) -> set[str]:
    """Names in ``state_dict()`` of weights that do not train, and of the buffers beside them.

    Args:
        model: whose weights are frozen or train already.
    """
    trains = {
        name: parameter.requires_grad
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    modules = {name.rpartition(".")[0] for name, learned in trains.items() if not learned}
    return {
        name
        for name in model.state_dict()
        if not trains.get(name) and not modules.isdisjoint(_enclosing_modules(name))
    }


def _enclosing_modules(name: str) -> list[str]:
    """Paths of the modules that hold ``a.b.c``: ``a`` and ``a.b``."""
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]
