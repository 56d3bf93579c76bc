"""The keys that all models share: type, allowed values, and what they mean."""

from __future__ import annotations

import re

from recbole.utils.argument_list import dataset_arguments, evaluation_arguments, general_arguments

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.rules import Rule, nearest

POLICIES = ("sinkhorn", "nearest_free", "extra_token", "none")
ALIASES = {
    "dedup_token": ["extra_token"],
    "reassign": ["nearest_free"],
    "both": ["sinkhorn", "extra_token"],
}

SHARED_KEYS: dict[str, Rule] = {
    "backbone": Rule(str, "'scratch', a folder, or a hub id"),
    "item_text_fields": Rule(
        list, "columns of the .item file that make the item text, in order", optional=True
    ),
    "text_encoder": Rule(str, "sentence encoder: 'default', a folder, or a hub id"),
    "tokenizer": Rule(str, "item tokenizer, or the folder of stored codes"),
    "codebook_sizes": Rule(list, "one alphabet size per learned level", low=1, item=int),
    "tokenizer_epochs": Rule(int, "epochs of the tokenizer's training", low=0),
    "tokenizer_lr": Rule(float, "learning rate of the tokenizer", low=0),
    "tokenizer_batch_size": Rule(int, "items per batch of the tokenizer's training", low=1),
    "dedup_spare": Rule(int, "free values of the extra token, for new items", low=0),
    "collision": Rule(
        list,
        "policies applied in order: sinkhorn, nearest_free, extra_token, none",
        choices=(*POLICIES, *ALIASES),
    ),
    "cf_dim": Rule(int, "size of the collaborative vectors", low=1),
    "cf_epochs": Rule(int, "epochs of the SASRec that gives the collaborative vectors", low=1),
    "cf_file": Rule(str, "file of collaborative vectors made elsewhere", optional=True),
    "graph_dim": Rule(int, "size of LightGCN's user and item vectors", low=1),
    "graph_layers": Rule(int, "propagation layers of the LightGCN that gives these vectors", low=1),
    "graph_lr": Rule(float, "its learning rate", low=0),
    "graph_reg": Rule(float, "its L2 penalty on the embeddings of a batch", low=0),
    "graph_epochs": Rule(int, "its epochs", low=1),
    "graph_batch": Rule(int, "its batch size, in (user, item) pairs", low=1),
    "graph_user_file": Rule(
        str, "file of user vectors made elsewhere, with graph_item_file", optional=True
    ),
    "graph_item_file": Rule(
        str, "file of item vectors made elsewhere, with graph_user_file", optional=True
    ),
    "allow_external_cf": Rule(
        bool, "whether such files of vectors may be used, whose training data nobody can check"
    ),
    "generator": Rule(str, "generator, where a method offers several"),
    "self_improve": Rule(bool, "refine the item codes while training"),
    "train_rows": Rule(str, "which training rows", choices=("all", "longest", "windows")),
    "beam_width": Rule(int, "beams per user, or 'auto'", choices=("auto",), low=1),
    "beam_max": Rule(int, "widest beam of beam_width: auto", low=1),
    "uncertified": Rule(
        str, "what to do with unproven users at beam_max", choices=("accept", "exact")
    ),
    "score_type": Rule(str, "score of an item", choices=("joint", "level", "renormalised")),
    "score_mode": Rule(str, "beam search, or every item", choices=("beam", "exact")),
    "constraint": Rule(str, "what the beam may emit", choices=("trie", "level", "slice")),
    "search_batch_size": Rule(int, "users searched at once", low=1),
    "candidate_file": Rule(
        str,
        "file of raw item ids, one a line; evaluations rank these above all others",
        optional=True,
    ),
    "subset_norm": Rule(
        str, "over what renormalised scores of candidates sum", choices=("full", "subset")
    ),
    "trie_budget_mb": Rule(float, "memory for dense trie tables, MiB", low=0),
    "preset": Rule(str, "'paper' for the published setting", choices=("paper",), optional=True),
    "resume": Rule(bool, "continue an interrupted run of the same settings"),
    "result_file": Rule(str, "where the JSON result goes", optional=True),
    "save_ranks": Rule(bool, "store the rank of each user's test item beside the result file"),
    "cache_dir": Rule(str, "folder for tokenizers and embeddings"),
    "nproc": Rule(int, "processes on this machine", low=1),
    "fsdp": Rule(bool, "each process keeps a share of the weights instead of a copy"),
    "world_size": Rule(int, "processes on all machines together; -1 = nproc", low=-1),
    "group_offset": Rule(int, "number of the first process of this machine", low=0),
    "ip": Rule(str, "address of the machine of process 0"),
    "port": Rule(int, "free port of that machine", low=1, high=65535),
    "cold_users": Rule(
        float, "share of the users that is kept out of training and reported apart", low=0, high=0.9
    ),
    "valid_users": Rule(
        int, "validate on this many users drawn once with the seed; 0 = all", low=0
    ),
    "precision": Rule(
        str, "number format of training and search", choices=("fp32", "bf16", "fp16")
    ),
    "lr_scheduler": Rule(
        str,
        "learning-rate schedule",
        choices=("constant", "linear", "cosine", "inverse_sqrt", "constant_with_warmup"),
    ),
    "warmup_ratio": Rule(float, "share of the steps with a rising learning rate", low=0, high=1),
    "gradient_accumulation_steps": Rule(int, "batches per optimiser step", low=1),
    "group_by_length": Rule(bool, "batches of similar history length"),
    # RecBole's own keys, which it checks late or not at all
    "seed": Rule(int, "random seed", low=0, high=2**32 - 1),
    "epochs": Rule(int, "training epochs", low=0),
    "train_batch_size": Rule(int, "rows of a training batch", low=1),
    "eval_batch_size": Rule(
        int, "users (sequential models) or scores of an evaluation batch", low=1
    ),
    "learning_rate": Rule(float, "learning rate", low=0),
    "weight_decay": Rule(float, "L2 penalty of the optimiser", low=0),
    "eval_step": Rule(int, "epochs between two validations; 0 = none", low=0),
    "stopping_step": Rule(int, "validations without improvement before training stops", low=0),
    "MAX_ITEM_LIST_LENGTH": Rule(int, "longest history, in items", low=1),
    "topk": Rule(list, "lengths of the evaluated lists", low=1, item=int),
    "metrics": Rule(list, "names of RecBole's metrics"),
    "metric_decimal_place": Rule(int, "digits of the metrics", low=1),
    "shuffle": Rule(bool, "shuffle the training rows"),
    "learner": Rule(
        str, "optimiser", choices=("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
    ),
    "show_progress": Rule(bool, "progress bars"),
    "tail_ratio": Rule(
        float, "share of the items that TailPercentage takes for the tail", low=0, high=1
    ),
    "encoding": Rule(str, "encoding of the dataset's files"),
}
EVAL_ARGS = ("split", "order", "group_by", "mode")
NUMBER = r"\s*-?(\d+\.?\d*(e[+-]?\d+)?|inf)\s*"
INTERVAL = re.compile(rf"\s*[\[(]{NUMBER},{NUMBER}[\])]\s*", re.IGNORECASE)


def check_eval_args(given: object, ranking: bool = False) -> None:
    """Raise :class:`ConfigError` unless RecBole understands all of ``eval_args``: it takes its own defaults for what it does not know."""
    if not isinstance(given, dict):
        raise ConfigError(
            f"eval_args is {given!r}; it must be a dictionary of {', '.join(EVAL_ARGS)}."
        )
    for key in given:
        if key not in EVAL_ARGS:
            near = nearest(str(key), EVAL_ARGS)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"eval_args has no {key!r}; its keys are {', '.join(EVAL_ARGS)}.{hint}"
            )
    modes = given.get("mode", "full")
    for mode in modes.values() if isinstance(modes, dict) else [modes]:
        if not re.fullmatch(r"full|labeled|(uni|pop)\d+", str(mode)):
            raise ConfigError(
                f"eval_args: mode is {mode!r}; use full, uniN or popN (N sampled negatives, for example uni100)."
            )
        if mode == "labeled" and ranking:
            raise ConfigError(
                "eval_args: mode labeled needs labels and metrics of values (AUC, LogLoss); use full, uniN or popN."
            )


def check_recbole_values(values: dict) -> None:
    """Raise :class:`ConfigError` for values of RecBole's keys that it would leave out with a warning, or stumble over after an epoch."""
    check_eval_args(values["eval_args"], values["eval_type"].name == "RANKING")
    if not isinstance(values.get("clip_grad_norm") or {}, dict):
        raise ConfigError(
            f"clip_grad_norm is {values['clip_grad_norm']}; write --clip_grad_norm=\"{{'max_norm': 1.0}}\"."
        )
    given = {key: values.get(key) for key in ("user_inter_num_interval", "item_inter_num_interval")}
    given |= {
        f"val_interval: {field}": interval
        for field, interval in (values.get("val_interval") or {}).items()
    }
    for key, intervals in given.items():
        if intervals is not None and not all(
            INTERVAL.fullmatch(part) for part in str(intervals).split(";")
        ):
            raise ConfigError(
                f'{key} is {intervals!r}; write an interval, for example "[5,inf)", or several with semicolons between.'
            )


# Keys that change where or how a run is shown, not what it computes: they do not enter the run's name.
COSMETIC = {
    "resume",
    "result_file",
    "show_progress",
    "state",
    "checkpoint_dir",
    "data_path",
    "cache_dir",
    "gpu_id",
    "use_gpu",
    "log_wandb",
}


COSMETIC |= {
    "save_ranks",
    "wandb_project",
    "device",
    "worker",
    "search_batch_size",
    "compile_search",
    "eval_batch_size",
    "config_files",
}


COSMETIC |= {"nproc", "fsdp", "world_size", "group_offset", "ip", "port", "local_rank"}


# Keys that RecBole computes from others: never the input of a later run.
COMPUTED = {
    "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "eval_type",
    "device",
    "single_spec",
    "valid_metric_bigger",
    "local_rank",
}


COMPUTED |= {"valid_neg_sample_args", "test_neg_sample_args"}


# What a model of vectors takes over from the run: data, split, seed and device, nothing of the run's own model. Not its history
# length either, so that generators with different ones share the codes.
CARRIED = {"cold_users", *dataset_arguments, *evaluation_arguments, *general_arguments}


CARRIED -= COMPUTED | {"config_file", "log_wandb", "MAX_ITEM_LIST_LENGTH"}
