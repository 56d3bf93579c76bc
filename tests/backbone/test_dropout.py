"""Dropout from random bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recbole_genrec.backbone.dropout import Dropout, cheapen, dropout


def test_cheap_dropout_keeps_the_mean_and_drops_the_share():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    assert out.unique().tolist() == pytest.approx([0.0, 256 / (256 - 77)])
    assert abs((out == 0).float().mean() - 77 / 256) < 2e-3 and torch.equal(x.grad, out)
    assert torch.equal(dropout(x, 0.3, training=False), x) and torch.equal(dropout(x, 0.0), x)
    module = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.1)))
    cheapen(module)
    assert [(type(child), child.p) for child in (module[0], module[1][0])] == [
        (Dropout, 0.2),
        (Dropout, 0.1),
    ]
