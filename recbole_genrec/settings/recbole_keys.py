"""RecBole's own keys, as far as this package checks, reads or classifies them.

Those of the machine: :mod:`~recbole_genrec.settings.machine_keys`.
"""

from __future__ import annotations

from typing import Any, Literal

from recbole_genrec.settings.declaration import Settings, key


class RecBoleKeys(Settings):
    """Keys that RecBole defines. It checks their values late or not at all."""

    model: str = key("name of the method", set_by_benchmark=True)
    dataset: str = key("name of the dataset's folder", affects="data", set_by_benchmark=True)
    seed: int = key(
        "random seed", ge=0, le=2**32 - 1, affects=("data", "training"), set_by_benchmark=True
    )
    reproducibility: bool = key("whether cuDNN is deterministic")

    # --- data and evaluation
    load_col: dict | None = key("columns that are read, by file", affects="data")
    encoding: str = key("encoding of the dataset's files", affects="data")
    normalize_all: bool | None = key("scale all numbers of the dataset to 0 to 1", affects="data")
    benchmark_filename: Any = key(
        "endings of the training, validation and test file: [train,valid,test]", affects="data"
    )
    field_separator: str = key("character between two columns", affects="data")
    USER_ID_FIELD: str = key("column of the user ids", affects="data")
    ITEM_ID_FIELD: str = key("column of the item ids", affects="data")
    TIME_FIELD: str = key(
        "column of the times, of type float; positions 1, 2, 3, ... where there are none",
        affects="data",
    )
    LIST_SUFFIX: str = key("ending of the columns that hold histories", affects="data")
    ITEM_LIST_LENGTH_FIELD: str = key("column of the lengths of histories", affects="data")
    MAX_ITEM_LIST_LENGTH: int = key(
        "longest history, in items", ge=1, affects=("data", "training"), inherited=False
    )
    eval_args: dict = key("split, order, grouping and mode of the evaluation", affects="data")
    repeatable: bool = key("whether items of the history are ranked too", affects="data")
    metrics: list[str] = key("names of RecBole's metrics", affects="search")
    topk: list[int] = key("lengths of the evaluated lists", ge=1, affects="search")
    valid_metric: str = key(
        "figure that chooses the best epoch: one of metrics at one of topk, or loss, the mean loss "
        "on the validation split",
    )
    metric_decimal_place: int = key("digits of the metrics", ge=1, affects="search")
    tail_ratio: float = key(
        "share of the items that TailPercentage takes for the tail", ge=0, le=1, affects="search"
    )

    # --- training
    epochs: int = key("training epochs", ge=0)
    train_batch_size: int = key("rows of a training batch", ge=1)
    learning_rate: float = key("learning rate", ge=0)
    weight_decay: float = key("L2 penalty of the optimiser", ge=0)
    learner: Literal[
        "adam",
        "adamw",
        "sgd",
        "adagrad",
        "rmsprop",
        "sparse_adam",
        "adafactor",
        "adamw8bit",
        "paged_adamw8bit",
    ] = key(
        "optimiser; those with 8bit are bitsandbytes', the paged one moves its state to the memory "
        "of the computer when that of the GPU is full",
    )
    eval_step: int = key("epochs between two validations; 0 = none", ge=0)
    stopping_step: int = key("validations without improvement before training stops", ge=0)
    shuffle: bool = key("shuffle the training rows")
    train_neg_sample_args: dict = key("negative samples of the training")
    loss_decimal_place: int = key("digits of the losses in the log", ge=1)

    # --- where and how a run is shown
    eval_batch_size: int = key(
        "users (sequential models) or scores of an evaluation batch",
        ge=1,
        affects="display",
        evaluate=True,
    )
    data_path: str = key(
        "folder that holds the dataset's folder",
        affects="display",
        evaluate=True,
        set_by_benchmark=True,
    )
    checkpoint_dir: str = key("folder for checkpoints", affects="display", set_by_benchmark=True)
    gpu_id: Any = key("number of the GPU", affects="display", evaluate=True)
    use_gpu: bool = key("whether a GPU is used", affects="display", evaluate=True)
    state: str = key("level of the log", affects="display", evaluate=True)
    worker: int = key("processes that load batches", affects="display")
    log_wandb: bool = key("whether Weights & Biases is used", affects="display", inherited=False)
    wandb_project: str = key("project of Weights & Biases", affects="display")
    config_files: Any = key(
        "YAML files of settings", affects="display", default=None, set_by_benchmark=True
    )
    config_file: Any = key("YAML file of settings", default=None, inherited=False)

    # --- what RecBole computes from other keys
    local_rank: int = key("number of the process", affects="display", computed=True)
    MODEL_TYPE: Any = key("kind of the model", computed=True)
    MODEL_INPUT_TYPE: Any = key("kind of the training rows", computed=True)
    eval_type: Any = key("kind of the evaluation", computed=True)
    single_spec: bool = key("whether there is one process", computed=True)
    valid_metric_bigger: bool = key("whether a larger valid_metric is better", computed=True)
    valid_neg_sample_args: dict = key("negative samples of the validation", computed=True)
    test_neg_sample_args: dict = key("negative samples of the test", computed=True)

    @property
    def is_sequential(self) -> bool:
        """Whether the model reads histories in their order."""
        return getattr(self.MODEL_TYPE, "name", None) == "SEQUENTIAL"
