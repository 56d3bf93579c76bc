"""Random states of one machine on another, which has more or fewer GPUs."""

from __future__ import annotations

import pytest
import torch

from recbole_genrec.runtime.randomness import rng_state, seeded, set_rng_state


@pytest.mark.parametrize("n_devices", [1, 2, 3])
def test_states_of_two_gpus_are_restored_on_those_that_are_there(monkeypatch, n_devices):
    restored = {}
    states = [torch.full((16,), value, dtype=torch.uint8) for value in (1, 2)]
    state = {**rng_state(), "cuda": states}
    expected = torch.rand(3)

    def restore(generator, device):
        if device >= n_devices:
            raise IndexError("tuple index out of range")
        restored[device] = generator

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    monkeypatch.setattr(torch.cuda, "set_rng_state", restore)
    monkeypatch.setattr(torch.cuda.random, "set_rng_state", restore)
    set_rng_state(state)
    assert restored == dict(zip(range(n_devices), states, strict=False))
    assert torch.equal(torch.rand(3), expected)


def test_what_is_seeded_draws_alike_and_leaves_the_callers_numbers():
    torch.manual_seed(1)
    expected = torch.rand(3)

    torch.manual_seed(1)
    drawn = []
    for _ in range(2):
        with seeded(7):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert torch.equal(torch.rand(3), expected)
