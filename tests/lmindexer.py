"""Small catalogues and settings for the tests of LMIndexer."""

from __future__ import annotations

import itertools

from recbole_genrec.data.content import ItemContent
from recbole_genrec.tokenizer.lmindexer.tokenizer import LMIndexerTokenizer

TINY_LM = {
    "model_type": "t5",
    "d_model": 32,
    "d_ff": 64,
    "num_layers": 1,
    "num_heads": 2,
    "d_kv": 16,
    "dropout_rate": 0.1,
}
KEYS = {
    "indexer_backbone": "scratch",
    "indexer_config": TINY_LM,
    "indexer_vocab_size": 400,
    "codebook_sizes": [4, 4],
    "collision": ["extra_token"],
    "dedup_spare": 2,
    "recon_layers": 1,
    "tau": 1.0,
    "mask_rate": [0.5, 0.7],
    "hard_negatives": 4,
    "w_recon": 1.0,
    "w_contrast": 1.0,
    "w_commit": 1.0,
    "stage_epochs": [1, 1, 1],
    "stage_lr": 0.003,
    "stage_batch": [16, 8],
    "tok_max_len": [16, 16],
    "kmeans_restarts": 2,
    "kmeans_iterations": 20,
    "revive_dead": False,
    "show_progress": False,
    "device": "cpu",
}
COLOURS = ["red", "green", "blue", "grey"]
THINGS = ["soap", "brush", "mirror", "comb"]
PLACES = ["bath", "kitchen"]


def catalogue(repeats: int = 1, places: int = 2) -> ItemContent:
    """Items with three known attributes; each combination ``repeats`` times."""
    texts = []
    for colour, thing, place in itertools.product(COLOURS, THINGS, PLACES[:places]):
        texts += [f"{colour} {thing} {place}"] * repeats
    tokens = ["[PAD]", *(f"i{number}" for number in range(len(texts)))]
    return ItemContent(tokens=tokens, text=["", *texts])


def tokenizer(seed: int = 3, **changes) -> LMIndexerTokenizer:
    return LMIndexerTokenizer({**KEYS, **changes}, seed)
