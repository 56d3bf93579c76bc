"""Cross-entropy of codes: label smoothing where not all classes compete, and a temperature.

Label smoothing (Szegedy et al., CVPR 2016) of torch would spread the smoothed share over classes of
logit -inf too, which makes the loss infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding.precision import at_least_float32


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of :func:`smoothed_losses`, a scalar."""
    if not smoothing:
        return cross_entropy(logits, labels)
    return smoothed_losses(logits, labels, smoothing).mean()


def smoothed_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each row; the smoothed share goes to the classes that compete, evenly.

    Args:
        logits: ``[N, V]``; -inf = the class does not compete. A label must.
        labels: class of each row ``[N]``.
        smoothing: share of the probability that is spread; 0 is the plain cross-entropy.

    Returns:
        ``[N]``, in nats.
    """
    losses = cross_entropy(logits, labels, reduction="none")
    if not smoothing:
        return losses
    competes = logits > -torch.inf
    total = logits.masked_fill(~competes, 0).sum(1)
    mean = total / competes.sum(1)
    of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    # (1 - s) (lse - label) + s (lse - mean)
    return losses + smoothing * (of_label - mean)


def ranking_guided_loss(
    logits: Tensor, labels: Tensor, temperature: float = 1.0, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of ``logits / temperature``; temperature 1 is the plain cross-entropy.

    This is the ranking-guided generation loss of LETTER (arXiv 2405.07314).

    Args:
        logits: ``[..., V]``.
        labels: ``[...]``; -100 is ignored.
        temperature: divides the logits.
        smoothing: label smoothing over the tokens that compete.
    """
    logits = at_least_float32(logits)
    if temperature != 1:
        logits = logits / temperature
    logits = logits.flatten(0, -2)
    labels = labels.flatten()
    if smoothing == 0:
        return cross_entropy(logits, labels)
    counts = labels != -100
    return smoothed_cross_entropy(logits[counts], labels[counts], smoothing)
