"""Keys that other versions of RecBole and other programs use, and what they are called here."""

from __future__ import annotations

from recbole_genrec.settings.rules import did_you_mean

OTHER_NAMES = {
    "lr": "learning_rate",
    "batch_size": "train_batch_size",
    "training_batch_size": "train_batch_size",
    "test_batch_size": "eval_batch_size",
    "epoch": "epochs",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "num_train_epochs": "epochs",
    "optimizer": "learner",
    "optimiser": "learner",
    "optim": "learner",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "patience": "stopping_step",
    "early_stop": "stopping_step",
    "early_stopping": "stopping_step",
    "random_seed": "seed",
    "k": "topk",
    "top_k": "topk",
    "topks": "topk",
    "max_len": "MAX_ITEM_LIST_LENGTH",
    "maxlen": "MAX_ITEM_LIST_LENGTH",
    "max_length": "MAX_ITEM_LIST_LENGTH",
    "max_seq_len": "MAX_ITEM_LIST_LENGTH",
    "max_seq_length": "MAX_ITEM_LIST_LENGTH",
    "max_his_len": "MAX_ITEM_LIST_LENGTH",
    "num_beams": "beam_width",
    "beam": "beam_width",
    "beam_size": "beam_width",
    "num_workers": "worker",
    "n_gpu": "nproc",
    "num_gpus": "nproc",
    "output_dir": "checkpoint_dir",
    "save_dir": "checkpoint_dir",
    "data_dir": "data_path",
    "dataset_path": "data_path",
    "scheduler": "lr_scheduler",
    "lr_scheduler_type": "lr_scheduler",
    "warmup_steps": "warmup_ratio",
    "accumulation_steps": "gradient_accumulation_steps",
    "sep": "field_separator",
    "separator": "field_separator",
    "delimiter": "field_separator",
    "text_fields": "item_text_fields",
    "init_tokenizer": "tokenizer",
    "collision_mode": "collision",
    "index_spare": "dedup_spare",
    "scorer": "score_type",
    "cf_embedding_path": "cf_file",
    "candidate_subset": "candidate_file",
}
"""Common names of keys, by what people write."""

CHANGED = {
    "device": "Write --use_gpu=False for the processor, or --gpu_id=0 for a GPU",
    "cuda": "Write --use_gpu=False for the processor, or --gpu_id=0 for a GPU",
    "multi_gpus": "Write --nproc=2 for two processes",
    "fp16": "Write --precision=fp16",
    "bf16": "Write --precision=bf16",
    "max_grad_norm": "Write --clip_grad_norm=\"{'max_norm': 1.0}\"",
    "grad_clip": "Write --clip_grad_norm=\"{'max_norm': 1.0}\"",
    "min_user_inter_num": 'RecBole 1 writes --user_inter_num_interval="[5,inf)"',
    "max_user_inter_num": 'RecBole 1 writes --user_inter_num_interval="[0,50]"',
    "min_item_inter_num": 'RecBole 1 writes --item_inter_num_interval="[5,inf)"',
    "max_item_inter_num": 'RecBole 1 writes --item_inter_num_interval="[0,50]"',
    "lowest_val": "RecBole 1 writes --val_interval=\"{'rating': '[3,inf)'}\"",
    "highest_val": "RecBole 1 writes --val_interval=\"{'rating': '[0,3]'}\"",
    "equal_val": "RecBole 1 writes --val_interval=\"{'rating': '[3,3]'}\"",
    "not_equal_val": "RecBole 1 writes --val_interval=\"{'rating': '[0,3);(3,inf)'}\"",
    "drop_filter_field": 'RecBole 1 writes --unused_col="{inter: [rating]}"',
    "fields_in_same_space": "RecBole 1 writes --alias_of_item_id=[column]",
    "eval_setting": 'RecBole 1 writes --eval_args="{order: TO, split: {LS: valid_and_test}}"',
    "group_by_user": 'RecBole 1 writes --eval_args="{group_by: user}"',
    "split_ratio": 'RecBole 1 writes --eval_args="{split: {RS: [0.8, 0.1, 0.1]}}"',
    "leave_one_num": 'RecBole 1 writes --eval_args="{split: {LS: valid_and_test}}"',
    "split": 'Write --eval_args="{split: {LS: valid_and_test}}"',
    "order": 'Write --eval_args="{order: TO}"',
    "group_by": 'Write --eval_args="{group_by: user}"',
    "real_time_process": "RecBole 1 has no such choice; leave it out",
    "training_neg_sample_num": 'RecBole 1.1 writes --train_neg_sample_args="{distribution: '
    'uniform, sample_num: 1}"',
    "neg_sampling": 'RecBole 1.1 writes --train_neg_sample_args="{distribution: uniform, '
    'sample_num: 1}"',
}
"""Keys that became another form, and the sentence that says which."""


def advice(name: str, known: set[str]) -> str:
    """What to write in place of an unknown key; empty when nothing is near.

    Args:
        name: the key that nobody reads.
        known: the keys of the run.
    """
    lowered = name.lower()
    if lowered in CHANGED:
        return f" {CHANGED[lowered]}."
    if OTHER_NAMES.get(lowered) in known:
        return f" Did you mean {OTHER_NAMES[lowered]}?"
    return did_you_mean(name, known)
