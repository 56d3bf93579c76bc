"""What the heads of a stream read beside its states."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.tree import CodeTree


@dataclass
class HeadVectors:
    """What follows from the weights of a stream alone, for its heads.

    Attributes:
        outputs: output vectors of all items ``[n_items, d]``; ``None`` = items have none.
        trees: of ``depth: none``, that over the codes of the model first.
        paths: of the codes of ``depth: mlp`` and ``transformer``.
    """

    outputs: Tensor | None = None
    trees: list[CodeTree] = field(default_factory=list)
    paths: PathVectors | None = None

    @property
    def of_items(self) -> Tensor:
        """:attr:`outputs` for a softmax over items, without which ``check_timeline`` refuses it."""
        assert self.outputs is not None
        return self.outputs
