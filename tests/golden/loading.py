"""Golden files: inputs, weights and outputs of published implementations on tiny random
problems, and their weights in our modules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE

GOLDEN = Path(__file__).parent


def load_golden(name: str) -> dict[str, Tensor]:
    """All arrays of ``<name>.npz`` as tensors: float64 and int64, scalars 0-d."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def close(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether two tensors have the same shape, and the same values up to rounding."""
    if one.shape != other.shape:
        return False
    return float((one - other).detach().abs().max()) <= tolerance


def rqvae_from_golden(data: dict[str, Tensor], sinkhorn: bool) -> RQVAE:
    """The RQ-VAE of ``letter_rqvae.npz`` in float64, with Sinkhorn assignment in training where
    the file's epsilons say so.

    ======================  =========================  =====================
    golden                  ours                       shape
    ======================  =========================  =====================
    ``w:enc.i.weight``      ``encoder.{2i}.weight``    ``[out, in]`` in both
    ``w:enc.i.bias``        ``encoder.{2i}.bias``      ``[out]``
    ``w:dec.i.*``           ``decoder.{2i}.*``         the same
    ``w:codebook.l``        ``codebooks.{l}``          ``[K_l, d]``
    ======================  =========================  =====================

    Layer i has the number 2i because ReLU modules stand between the linear ones.
    """
    weights = {
        name.removeprefix("w:"): value for name, value in data.items() if name.startswith("w:")
    }
    layers = [
        weights[f"enc.{i}.weight"].shape
        for i in range(sum(name.startswith("enc.") for name in weights) // 2)
    ]
    sizes = [len(value) for name, value in weights.items() if name.startswith("codebook.")]
    model = RQVAE(
        layers[0][1],
        [out for out, _ in layers[:-1]],
        layers[-1][0],
        sizes,
        mu=float(data["mu"]),
        quant_loss_weight=float(data["quant_loss_weight"]),
        last_epsilon=float(data["sk_epsilons"][-1]) if sinkhorn else 0.0,
        sinkhorn_iterations=int(data["sk_iters"]),
    ).double()
    model.load_state_dict({our_name(name): value for name, value in weights.items()})
    return model


def our_name(golden: str) -> str:
    """Name in :class:`RQVAE` of the parameter that ``letter_rqvae.npz`` calls ``golden``
    (without its prefix).
    """
    module, number, *rest = golden.split(".")
    if module == "codebook":
        return f"codebooks.{number}"
    return ".".join([{"enc": "encoder", "dec": "decoder"}[module], str(2 * int(number)), *rest])
