"""The keys that all methods share."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.backbone_keys import BackboneSourceKeys
from recbole_genrec.settings.declaration import Settings, key
from recbole_genrec.settings.machine_keys import MachineKeys
from recbole_genrec.settings.recbole_keys import RecBoleKeys
from recbole_genrec.settings.search_keys import SearchKeys
from recbole_genrec.settings.self_improve_keys import SelfImproveKeys
from recbole_genrec.settings.tokenizer_keys import (
    CodeKeys,
    CollaborativeKeys,
    FitKeys,
    ItemVectorKeys,
    PrecisionKeys,
    Schedule,
    TextVectorKeys,
)


class ContentKeys(BackboneSourceKeys, ItemVectorKeys, TextVectorKeys):
    """What is known about items, and how they are named by codes."""

    catalogue: Literal["interactions", "item_file"] = key(
        "which items there are: those of interactions, or all rows of the .item file too",
        affects="data",
        default="interactions",
        neutral="interactions",
    )
    tokenizer: str = key(
        "item tokenizer, the folder of stored codes, or an index file (.json)", affects="tokenizer"
    )
    generator: str | None = key("generator, where a method offers several", default=None)


class TrainingKeys(PrecisionKeys):
    """How a method is trained and which rows it sees."""

    preset: Literal["paper"] | None = key("'paper' for the published setting", default=None)
    init_from: str | None = key(
        "checkpoint whose weights and codes the training starts from; new items are placed",
        default=None,
        neutral=None,
    )
    hold_out: bool = key(
        "False: train on every interaction, for production; nothing is validated or tested",
        affects="data",
        default=True,
        neutral=True,
        inherited=True,
    )
    train_rows: Literal["all", "longest", "windows"] = key("which training rows")
    cold_users: float = key(
        "share of the users that is kept out of training and reported apart",
        ge=0,
        le=0.9,
        affects="data",
        inherited=True,
    )
    ratio_rows: Literal["users", "interactions"] = key(
        "what a general model is tested on under a split by ratio and in files that are split: a "
        "user with all held-out items, or each held-out interaction, as sequential models are",
        affects="data",
        default="users",
        neutral="users",
        inherited=True,
    )
    exclude_history_in_training: bool = key(
        "items of a training row's history do not compete with its target, where the loss is a "
        "softmax over items or codes",
        default=False,
        neutral=False,
    )
    valid_users: int = key("validate on this many users drawn once with the seed; 0 = all", ge=0)
    lr_scheduler: Schedule = key("learning-rate schedule")
    warmup_ratio: float = key(
        "share of the steps with a rising learning rate; of constant_inverse_sqrt with the full "
        "one, before it falls",
        ge=0,
        le=1,
    )
    adafactor_scale: bool = key(
        "steps of learner: adafactor are relative to the size of each weight, as in T5X",
        default=True,
        neutral=True,
        only_if=("learner", "adafactor"),
    )
    gradient_accumulation_steps: int = key("batches per optimiser step", ge=1)
    ema_decay: float = key(
        "an exponential moving average of the weights with this decay a step is validated, tested "
        "and stored; 0 = the weights themselves",
        ge=0,
        le=0.999999,
        default=0.0,
        neutral=0.0,
    )
    max_cpu_minutes: float | None = key(
        "CPU time of training and validation after which training stops with its best epoch; the "
        "end depends on the speed of the machine",
        ge=0,
        default=None,
        neutral=None,
    )
    batch_targets: int | None = key(
        "targets of a training batch, with train_rows longest or windows; with rows of one target "
        "the same as train_batch_size; 0 = batches of train_batch_size rows",
        ge=0,
        default=0,
        neutral=0,
    )
    local_steps: int = key(
        "several processes: optimiser steps that each takes on batches of its own before the "
        "weights of all are averaged (local SGD); 0 = they share each batch",
        ge=0,
        default=0,
        neutral=0,
    )
    group_by_length: bool = key("batches of similar history length")


class LabelSmoothingKeys(Settings):
    """A key of methods whose loss is a softmax over tokens."""

    label_smoothing: float = key(
        "share of the probability that training spreads evenly over the tokens that compete",
        ge=0,
        le=0.99,
        default=0.0,
        neutral=0.0,
    )


class RunKeys(Settings):
    """Where a run writes, whether it continues, and the processes that share its work."""

    resume: bool = key(
        "continue an interrupted run of the same settings",
        affects="display",
        set_by_benchmark=True,
    )
    result_file: str | None = key(
        "where the JSON result goes", affects="display", default=None, set_by_benchmark=True
    )
    save_ranks: bool | Literal["auto"] = key(
        "store the rank of each user's test item beside the result file; auto = where every user "
        "has one test item and all items are ranked",
        affects="display",
        evaluate=True,
        set_by_benchmark=True,
    )
    log_mlflow: bool = key(
        "whether MLflow gets the curves and metrics", affects="display", default=False
    )
    mlflow_experiment: str = key(
        "experiment of MLflow", affects="display", default="recbole_genrec"
    )
    cache_dir: str = key("folder for tokenizers and embeddings", affects="display")
    nproc: int = key("processes on this machine", ge=1, affects="display")
    fsdp: bool = key(
        "each process keeps a share of the weights instead of a copy", affects="display"
    )
    world_size: int = key(
        "processes on all machines together; -1 = nproc", ge=-1, affects="display"
    )
    group_offset: int = key("number of the first process of this machine", ge=0, affects="display")
    ip: str = key("address of the machine of process 0", affects="display")
    port: int = key("free port of that machine", ge=1, le=65535, affects="display")


class SharedSettings(
    RunKeys,
    TrainingKeys,
    SearchKeys,
    SelfImproveKeys,
    CollaborativeKeys,
    FitKeys,
    CodeKeys,
    ContentKeys,
    MachineKeys,
    RecBoleKeys,
):
    """The keys that every method reads; a method declares its own in a subclass."""
