"""Several continuations of one text in one pass: the common beginning is read once, as the search does with its beams."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.backbone.causal.backbone import CausalBackbone


def branch_states(
    backbone: CausalBackbone, trunk: Tensor, branches: Tensor, attach: Tensor
) -> Tensor:
    """States of branches that each continue a beginning of their row's trunk; equal to separate passes (our choice, unpublished).

    Args:
        trunk: embeddings ``[B, S, d_in]``, right-padded.
        branches: embeddings ``[B, J, W, d_in]``, right-padded.
        attach: how many tokens of the trunk each branch continues, ``[B, J]``.

    Returns:
        ``[B, J, W, d_out]``.
    """
    rows, count, width, _ = branches.shape
    size, device = trunk.shape[1], trunk.device
    order = torch.cat(
        [torch.arange(size, device=device), torch.arange(width, device=device).repeat(count)]
    )
    branch = torch.cat(
        [
            torch.full((size,), -1, device=device),
            torch.arange(count, device=device).repeat_interleave(width),
        ]
    )
    own_past = (branch.unsqueeze(1) == branch) & (order.unsqueeze(1) >= order)
    reach = torch.cat([attach.new_zeros(rows, 1), attach], dim=1)[
        :, branch + 1
    ]  # trunk tokens before a query's own past
    sees = own_past | ((branch < 0) & (order < reach.unsqueeze(-1)))
    positions = order + torch.where(branch < 0, 0, reach)
    sequence = torch.cat([trunk, branches.flatten(1, 2)], dim=1)
    states = backbone(sequence, sees.unsqueeze(1), positions)
    return states[:, size:].view(rows, count, width, -1)
