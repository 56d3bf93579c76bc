"""The published numbers of TokenRec's head, as our module and arrays.

``tokenrec_head.npz`` was written by TokenRec's released program (commit 7669f69), float64: decoder
states of 4 positions, the projection without dropout, loss with margin 0, gradients, and the scores
of 20 items. Items are numbered from 0, -1 = no item.

=================  =======================  =====================
golden             ours                     shape
=================  =======================  =====================
``w:l1.weight``    ``inner.weight``         ``[out, in]`` in both
``w:l1.bias``      ``inner.bias``           ``[out]``
``w:l2.*``         ``outer.*``              the same
=================  =======================  =====================

``scores`` of items in the history are 0 there, whatever their cosine.
"""

from __future__ import annotations

from torch import Tensor

from recbole_genrec.model.tokenrec.model import ProjectionHead

from .loading import load_golden

__all__ = ["head_from_golden", "load_golden"]


def head_from_golden(data: dict[str, Tensor]) -> ProjectionHead:
    """The head of ``tokenrec_head.npz`` in float64."""
    (hidden, d_in), d_out = data["w:l1.weight"].shape, len(data["w:l2.weight"])
    head = ProjectionHead(d_in, hidden, d_out, dropout=0.2).double()
    head.load_state_dict(
        {
            f"{ours}.{kind}": data[f"w:{theirs}.{kind}"]
            for theirs, ours in (("l1", "inner"), ("l2", "outer"))
            for kind in ("weight", "bias")
        }
    )
    return head
