"""What the optimiser changes, which one it is, and how its learning rate runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.shared_keys import SharedSettings

SUMS_OF_SQUARES = ("adam", "adamw", "adagrad", "rmsprop")
"""Values of ``learner`` that keep a mean or sum of squared gradients in the weights' format."""

EIGHT_BITS = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}
"""Values of ``learner``, and the classes of bitsandbytes (arXiv 2110.02861) behind them."""


def trained_parameters(model: nn.Module) -> Any:
    """Parameters or groups of parameters, as an optimiser takes them.

    Args:
        model: what is trained; ``optimiser_groups()`` gives its groups, where it has any.
    """
    groups = getattr(model, "optimiser_groups", None)
    if groups is not None:
        return groups()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A model without parameters (Pop has a dummy one) still needs an optimiser object.
    return trained or list(model.parameters())


def sentence_about_half_precision(learner: str, model: nn.Module) -> str:
    """What a run is told whose optimiser keeps its figures in half precision, if anything.

    Half precision lacks the digits for a mean of which a step changes a thousandth: after large
    gradients the mean of their squares stays where it is, and with it the steps stay small.

    Args:
        learner: value of the key.
        model: what is trained.
    """
    halves = (torch.bfloat16, torch.float16)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if learner not in SUMS_OF_SQUARES or not any(weight.dtype in halves for weight in trained):
        return ""
    return (
        f"learner: {learner} keeps its mean of squared gradients in the format of the weights. In "
        "half precision it hardly falls again after large gradients, and steps stay too small. "
        "--learner=adafactor keeps it in float32, as --weights_precision=fp32 and --tuning=lora do."
    )


# --- optimisers that RecBole lacks ----------------------------------------------------------------


def check_learner(settings: SharedSettings) -> None:
    """Refuse an optimiser that cannot run here, before anything is trained.

    Args:
        settings: of the run.

    Raises:
        ConfigError: its package or a GPU is missing, or the weights are shared out.
    """
    learner = settings.learner
    if learner not in (*EIGHT_BITS, "adafactor"):
        return
    if settings.fsdp:
        raise ConfigError(
            f"learner: {learner} keeps a state that is not cut up as the weights of fsdp: True "
            "are. Use learner: adamw, or fsdp: False."
        )
    if learner == "adafactor":
        return
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"learner: {learner} needs the package bitsandbytes, which is not installed: "
            "pip install bitsandbytes, or use learner: adamw."
        )
    if settings.device.type != "cuda":
        raise ConfigError(
            f"learner: {learner} needs an NVIDIA GPU and a CUDA build of torch; the device of this "
            f"run is {settings.device}. Use learner: adamw or adafactor on the CPU."
        )


def make_optimiser(
    settings: SharedSettings, learner: str, params: Any, rate: float, weight_decay: float
) -> Optimizer | None:
    """The optimiser of a learner that RecBole does not know; ``None`` for one that it knows.

    Args:
        settings: of the run.
        learner: value of the key.
        params: parameters or groups of them.
        rate: learning rate.
        weight_decay: L2 penalty.
    """
    if learner == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(
            params,
            lr=rate,
            weight_decay=weight_decay,
            scale_parameter=settings.adafactor_scale,
            relative_step=False,
        )
    if learner in EIGHT_BITS:
        import bitsandbytes

        optimiser_class = getattr(bitsandbytes.optim, EIGHT_BITS[learner])
        return optimiser_class(params, lr=rate, weight_decay=weight_decay)
    return None


def in_one_pass(optimiser: Optimizer) -> Optimizer:
    """Let Adam and AdamW go over the memory once a step; the results are the same up to rounding.

    On a CPU this takes a quarter of the time. Elsewhere torch's default is as good, and the shares
    of weights of ``fsdp`` are not known to its kernel.

    Args:
        optimiser: of weights on a CPU, before its first step; others stay as they are.
    """
    if type(optimiser) in (Adam, AdamW):
        for group in optimiser.param_groups:
            group["fused"] = True
    return optimiser


@contextlib.contextmanager
def rate_times(optimiser: Optimizer, factor: float) -> Iterator[None]:
    """A learning rate of ``factor`` times the present one, for the time of the block.

    Args:
        optimiser: whose rate it is.
        factor: 1 = nothing changes.
    """
    if factor == 1:
        yield
        return
    rates = [group["lr"] for group in optimiser.param_groups]
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = factor * rate
    try:
        yield
    finally:
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate


# --- schedules ------------------------------------------------------------------------------------


def make_schedule(
    optimiser: Optimizer, name: str, steps: int, warmup_ratio: float
) -> LRScheduler | None:
    """The learning-rate schedule.

    Args:
        optimiser: whose rate it sets.
        name: value of ``lr_scheduler``.
        steps: optimiser steps of the whole training.
        warmup_ratio: share of them with a rising rate; with ``constant_inverse_sqrt`` with the
            full one.

    Returns:
        ``None`` for a constant rate.
    """
    if name == "constant":
        return None
    steps = max(1, steps)
    warmup = int(steps * warmup_ratio)
    if name == "constant_inverse_sqrt":
        return LambdaLR(optimiser, lambda step: constant_inverse_sqrt(step, warmup))
    from transformers import get_scheduler

    return get_scheduler(name, optimiser, num_warmup_steps=warmup, num_training_steps=steps)


def constant_inverse_sqrt(step: int, constant: int) -> float:
    """Share of the full rate: all of it, then falling with the inverse square root of the step.

    T5 was trained so (arXiv 1910.10683, 3.1.2), and TIGER with .01 over the first 10,000 steps.

    Args:
        step: number of the step, from 0.
        constant: steps with the full rate.
    """
    first = max(1, constant)
    return (first / max(first, step)) ** 0.5
