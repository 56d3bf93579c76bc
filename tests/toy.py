"""A small generated dataset in RecBole's format, and our models small enough for a test."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.model.registry import build_model

ADJECTIVES = ["red", "green", "soft", "dry", "cold", "sweet", "dark", "light"]
NOUNS = ["soap", "brush", "cream", "mirror", "comb", "lotion", "powder", "oil"]

SMALL = {
    "train_batch_size": 32,
    "epochs": 2,
    "MAX_ITEM_LIST_LENGTH": 8,
    "item_text_fields": ["title", "brand"],
    "topk": [5, 10],
    "show_progress": False,
    "gpu_id": "",
}
TINY = {  # a small STORE
    **SMALL,
    "backbone_config": {
        "model_type": "opt",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 256,
        "dropout": 0.0,
    },
    "text_vocab_size": 400,
    "text_max_len": 16,
    "align_text_len": 16,
    "codebook_sizes": [8, 8, 8],
    "pca_dim": 8,
    "tokenizer_epochs": 2,
    "tokenizer_batch_size": 16,
    "align_batch": 8,
}
TINY_T5 = {
    "backbone_config": {
        "model_type": "t5",
        "d_model": 32,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "d_kv": 16,
        "dropout_rate": 0.0,
    }
}
TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TINY_LLAMA |= {"intermediate_size": 64, "max_position_embeddings": 512}
FIRST_TIMELINE = {  # TimelineRec before its second recipe
    "depth": "mlp",
    "item_parts": None,
    "positions": "absolute",
    "norm": "pre",
    "score_mode": "beam",
    "train_rows": "longest",
    "weight_decay": 0.01,
    "lr_scheduler": "cosine",
    "warmup_ratio": 0.02,
    "clip_grad_norm": None,
    "group_by_length": True,
    "batch_targets": 0,
}
TINY_OF = {
    "STORE": TINY,
    "LCRec": {
        **SMALL,
        "backbone_config": TINY_LLAMA,
        "text_vocab_size": 400,
        "codebook_sizes": [8, 8],
    },
    "TIGER": {**SMALL, **TINY_T5, "codebook_sizes": [8, 8]},
    "LETTER": {
        **SMALL,
        **TINY_T5,
        "codebook_sizes": [8, 8],
        "tokenizer_epochs": 2,
        "cf_dim": 8,
        "code_dim": 8,
        "cf_epochs": 1,
    },
    "TokenRec": {
        **SMALL,
        **TINY_T5,
        "graph_dim": 16,
        "graph_epochs": 2,
        "codebook_sizes": [8, 8],
        "code_dim": 8,
        "hidden_sizes": [16],
        "tokenizer_epochs": 3,
        "proj_hidden": 16,
        "proj_dropout": 0.0,
        "dec_len": 4,
    },
    "SETRec": {**SMALL, **TINY_T5, "cf_dim": 8, "cf_epochs": 1, "n_sem": 2, "ae_layers": [16]},
    "MetaID": {
        **SMALL,
        **TINY_T5,
        "codebook_sizes": [6],
        "walks_per_node": 4,
        "walk_length": 10,
        "path_dim": 8,
        "tokenizer_epochs": 2,
    },
    "LMIndexer": {
        **SMALL,
        "indexer_config": {**TINY_T5["backbone_config"], "num_layers": 1, "dropout_rate": 0.1},
        "indexer_vocab_size": 400,
        "codebook_sizes": [8, 8],
        "stage_epochs": [1, 1, 1],
        "stage_lr": 0.003,
        "tok_max_len": [16, 16],
    },
    "TimelineRec": {
        **SMALL,
        "codebook_sizes": [8, 8],
        "d_model": 32,
        "n_heads": 2,
        "timeline_dropout": 0.0,
        "beam_width": 20,
        **FIRST_TIMELINE,
    },
}


def write_dataset(
    folder: Path, name: str = "toy", n_users: int = 60, n_items: int = 40, seed: int = 0
) -> Path:
    """``folder/name/name.{inter,item}``: users walk along a ring of items; titles repeat the
    ring's neighbourhood.
    """
    draw = random.Random(seed)
    target = folder / name
    target.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(n_users):
        start, length = draw.randrange(n_items), draw.randrange(5, 14)
        rows += [
            f"u{user}\ti{(start + step + draw.randrange(2)) % n_items}\t{step}"
            for step in range(length)
        ]
    (target / f"{name}.inter").write_text("\n".join(rows) + "\n")
    items = ["item_id:token\ttitle:token_seq\tbrand:token"]
    for item in range(n_items):
        items.append(
            f"i{item}\t{ADJECTIVES[item // 8 % 8]} {NOUNS[item % 8]} no {item}\tbrand{item // 10}"
        )
    (target / f"{name}.item").write_text("\n".join(items) + "\n")
    return folder


def event_histories(histories: Mapping[str, Sequence[str]]) -> EventHistories:
    """Raw item ids by raw user id, as columns of numbers."""
    users = np.arange(len(histories))
    counts = np.array([len(items) for items in histories.values()])
    events = [item for items in histories.values() for item in items]
    tokens, chosen = np.unique(events, return_inverse=True)
    numbers = dict(zip(histories, users, strict=True))
    return EventHistories(users, counts, chosen, np.array(list(histories)), tokens, numbers)


def toy_config(folder: Path, model: str = "STORE", **changes) -> GenRecConfig:
    """Configuration of a tiny run on :func:`write_dataset`."""
    return GenRecConfig(
        model, "toy", config_dict={**TINY_OF[model], "data_path": str(folder), **changes}
    )


def toy_model(folder: Path, model: str = "STORE", **changes):
    """``(model, config, loaders)`` of a tiny untrained model."""
    config = toy_config(folder, model, **changes)
    dataset = create_dataset(config)
    loaders = make_loaders(config, dataset, True)
    return build_model(config, loaders[0]._dataset).eval(), config, loaders
