"""Keys of self-improving tokenisation (our choice, unpublished); the switch is ``self_improve``."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import Settings, key

ON = ("self_improve", True)
REFRESHES_OUTLIERS = ("si_scope", "outlier")


class SelfImproveKeys(Settings):
    """How codes are refreshed while the model trains."""

    self_improve: bool = key("refine the item codes while training")
    si_align_weight: float = key("weight of the alignment task", ge=0, only_if=ON)
    si_back_weight: float = key(
        "weight of the task codes -> words of the item",
        ge=0,
        default=0.0,
        neutral=0.0,
        only_if=ON,
    )
    si_embed_text: Literal["auto", "text", "soft"] = key(
        "what the model reads of an item: text = its words, soft = the projected content vector; "
        "auto = text where the method has a text prompt",
        default="auto",
        neutral="auto",
        only_if=ON,
    )
    si_text_len: int = key(
        "words that are read of an item",
        ge=1,
        default=32,
        neutral=32,
        only_if=("si_embed_text", "text"),
    )
    si_rewarm_steps: int = key(
        "optimiser steps over which the learning rate rises anew after a refresh",
        ge=0,
        default=0,
        neutral=0,
        only_if=ON,
    )
    si_reinit_unused: bool = key(
        "embeddings of codes that no item has after a refresh start anew, near those in use",
        default=False,
        neutral=False,
        only_if=ON,
    )
    si_align_ratio: float = key(
        "items of the alignment task per row of a training batch",
        ge=0,
        le=1,
        only_if=ON,
    )
    si_start_epoch: int = key("epoch before which the first refresh comes", ge=1, only_if=ON)
    si_interval: int = key("epochs between two refreshes", ge=1, only_if=ON)
    si_rounds: int = key("refreshes; 0 = alignment only", ge=0, only_if=ON)
    si_freeze_epochs: int | Literal["auto"] = key("last epochs without a refresh", ge=1, only_if=ON)
    si_num_candidates: int = key("code tuples proposed for an item", ge=1, only_if=ON)
    si_max_candidates: int = key("the most that are proposed when all are taken", ge=1, only_if=ON)
    si_scope: Literal["outlier", "all"] = key("which items may change", only_if=ON)
    si_margin: float = key(
        "gain from which an item changes, nats per code",
        ge=0,
        only_if=REFRESHES_OUTLIERS,
    )
    si_max_churn: float = key(
        "largest share of items that change",
        ge=0,
        le=1,
        only_if=REFRESHES_OUTLIERS,
    )
    si_decode: Literal["beam", "diverse_beam", "sample"] = key(
        "how candidates are found", only_if=ON
    )
    si_diversity_penalty: float = key(
        "penalty of diverse_beam",
        ge=0,
        only_if=("si_decode", "diverse_beam"),
    )
    si_temperature: float = key("temperature of sample", ge=1e-6, only_if=("si_decode", "sample"))
    si_fixed_levels: int = key("first levels that never change", ge=0, only_if=ON)
    si_balance: float = key("weight of the penalty on codes in use", ge=0, only_if=ON)
    si_batch_size: int = key("items decoded at once", ge=1, only_if=ON)
    si_control: Literal["shuffled"] | None = key("what the items that change get", only_if=ON)
