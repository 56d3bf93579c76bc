"""Several continuations of one text in one pass, which reads the common beginning once."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.backbone.causal.backbone import CausalBackbone


def branch_states(
    backbone: CausalBackbone, trunk: Tensor, branches: Tensor, attach: Tensor
) -> Tensor:
    """States of branches that each continue a beginning of their row's trunk.

    They are equal to the states of separate passes (our choice, unpublished).

    Args:
        backbone: the language model.
        trunk: embeddings ``[B, S, d_in]``, right-padded.
        branches: embeddings ``[B, J, W, d_in]``, right-padded.
        attach: how many tokens of the trunk each branch continues, ``[B, J]``.

    Returns:
        ``[B, J, W, d_out]``.
    """
    rows, count, width, _ = branches.shape
    size = trunk.shape[1]
    device = trunk.device

    # place of each token in its trunk or branch, and number of the branch; -1 = trunk: [S + J * W]
    trunk_places = torch.arange(size, device=device)
    branch_places = torch.arange(width, device=device).repeat(count)
    place = torch.cat([trunk_places, branch_places])
    in_trunk = torch.full((size,), -1, device=device)
    in_branch = torch.arange(count, device=device).repeat_interleave(width)
    branch = torch.cat([in_trunk, in_branch])

    # trunk tokens that stand before each token's branch: [B, S + J * W]
    reach = torch.cat([attach.new_zeros(rows, 1), attach], dim=1)[:, branch + 1]
    same = branch.unsqueeze(1) == branch
    earlier = place.unsqueeze(1) >= place
    continued = (branch < 0) & (place < reach.unsqueeze(-1))
    sees = (same & earlier) | continued  # [B, S + J * W, S + J * W]

    positions = place + torch.where(branch < 0, 0, reach)
    sequence = torch.cat([trunk, branches.flatten(1, 2)], dim=1)
    states = backbone(sequence, sees.unsqueeze(1), positions)
    return states[:, size:].view(rows, count, width, -1)
