"""Which hardware multiplies bfloat16 in less time than float32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from recbole_genrec.runtime.number_formats import multiplies_bf16


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True), (9, True)])
def test_a_gpu_that_emulates_bf16_does_not_multiply_it(monkeypatch, major, expected):
    """T4 and V100 (7.x) take bf16 tensors, whose products are slower than those of float32."""
    properties = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert multiplies_bf16("cuda") is expected
