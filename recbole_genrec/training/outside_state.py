"""What RecBole's models learn outside their weights.

Pop counts the items, MultiVAE and others the steps up to their full regularisation, and DiffRec
keeps the last losses. None of it is in a ``state_dict``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, type(None))


class OutsideState:
    """Numbers and tensors among the attributes of a model that its training has changed.

    What a constructor computes from the data, such as the matrix of a graph, stays out, and so do
    the vectors that LightGCN and others keep for a test (``restore_...``) and everything of our own
    models, whose hooks make it again.

    Args:
        model: before its training.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # The tensors themselves are kept: the address of one that is gone may be given again.
        self._start = {name: (value, _writes(value)) for name, value in self._attributes()}

    def changed(self) -> dict[str, Any]:
        """Values by path, which :meth:`put_back` takes."""
        changed = {}
        for name, value in self._attributes():
            start, writes = self._start.get(name, (None, 0))
            if isinstance(value, Tensor):
                if value is not start or _writes(value) != writes:
                    changed[name] = value.detach()
            elif isinstance(start, Tensor) or value != start:
                changed[name] = value
        return changed

    def put_back(self, values: Mapping[str, Any], device: torch.device) -> None:
        """Undo :meth:`changed`.

        Args:
            values: what it gave.
            device: where the tensors go.
        """
        for name, value in values.items():
            path, _, attribute = name.rpartition(".")
            if isinstance(value, Tensor):
                value = value.to(device)
            setattr(self.model.get_submodule(path), attribute, value)

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        """Numbers and tensors, by path, that are neither parameters nor buffers."""
        if getattr(self.model, "generative", False):
            return
        for path, module in self.model.named_modules():
            for attribute, value in vars(module).items():
                is_tensor = isinstance(value, Tensor) and value.layout == torch.strided
                is_made_again = attribute == "training" or attribute.startswith("restore_")
                if not is_made_again and (is_tensor or isinstance(value, PLAIN)):
                    yield f"{path}.{attribute}".lstrip("."), value


def _writes(value: Any) -> int:
    """How often a tensor was written in place; 0 of a number."""
    return value._version if isinstance(value, Tensor) else 0
