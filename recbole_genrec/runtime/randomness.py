"""The states of all random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept_randomness() -> Iterator[None]:
    """Give the caller's random states back at the end."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch draws from ``seed``; the caller's random numbers go on as before.

    Args:
        seed: of what is built or trained inside.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def rng_state() -> dict:
    """States of Python's, numpy's and torch's random generators.

    Returns:
        Plain values and tensors, which are safe to store.
    """
    numpy = np.random.get_state(legacy=False)
    keys = numpy["state"]["key"].astype(np.int64)
    state: dict = {
        "python": random.getstate(),
        "numpy": [
            numpy["bit_generator"],
            torch.from_numpy(keys),
            int(numpy["state"]["pos"]),
            int(numpy["has_gauss"]),
            float(numpy["gauss"]),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict) -> None:
    """Return to the states of :func:`rng_state`.

    Args:
        state: what :func:`rng_state` returned.
    """
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, *position = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        # The state may come from a machine with more or fewer GPUs.
        pairs = zip(range(torch.cuda.device_count()), state["cuda"], strict=False)
        for device, generator in pairs:
            torch.cuda.set_rng_state(generator.cpu(), device)
