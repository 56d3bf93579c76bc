"""A loss over the prefixes of codes, as in APAO (arXiv 2603.02730), pointwise form.

A beam search drops an item when one of its prefixes is unlikely, so each prefix gets a term of its
own beside the cross-entropy::

    L_m  = - log p(c_1 .. c_m) / m               m = 1 .. L - 1, mean over targets
    w_m ~ L_m exp(eta L_m)                       their sum is 1; the worst prefix counts most
    loss = sum_l CE_l + beta * sum_m w_m L_m

``beta`` is the key ``prefix_loss``, ``eta`` is ``prefix_adaptation``. The weights are those of the
released code, which computes them anew from each batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def with_prefix_terms(levels: Sequence[Tensor], beta: float, eta: float) -> Tensor:
    """The sum of the losses of the levels, and the weighted terms of the prefixes.

    Args:
        levels: the mean cross-entropy of each level, L scalars.
        beta: weight of the prefix terms; 0 = none.
        eta: how much more the worst prefix counts.
    """
    losses = torch.stack(list(levels))  # [L]
    total = losses.sum()
    if not beta or len(losses) < 2:
        return total
    lengths = torch.arange(1, len(losses), device=losses.device)
    prefixes = losses[:-1].cumsum(0) / lengths  # [L - 1]
    with torch.no_grad():
        # The smallest number keeps the weights defined where all prefixes are certain.
        smallest = torch.finfo(prefixes.dtype).tiny
        logs = prefixes.clamp_min(smallest).log() + eta * prefixes
        weights = logs.softmax(0)
    return total + beta * (weights * prefixes).sum()
