"""Every published setting trains: sizes and epochs are cut, the algorithms are the published ones.

On the most popular films of ml-100k, whose titles and genres are texts. The language models are
folders with random weights, which need larger learning rates than pretrained ones.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import recbole
import torch
from language_models import FAMILIES, save_base

from recbole_genrec import run_recbole_genrec
from recbole_genrec.backbone import load_encoder_decoder

ITEMS, USERS = 100, 200
T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_ff": 64,
    "num_layers": 1,
    "num_heads": 2,
    "d_kv": 16,
    "dropout_rate": 0.1,
    "feed_forward_proj": "relu",
}
RQVAE = {"hidden_sizes": [64, 32], "tokenizer_epochs": 100, "tokenizer_eval_interval": 10}
RANDOM_WEIGHTS = {"learning_rate": 0.003, "lr_scheduler": "constant", "warmup_ratio": 0.0}
COLLABORATIVE = {"cf_epochs": 2, "graph_epochs": 10}
CUT = {
    "TIGER": {**RQVAE, "backbone_config": T5, "epochs": 6, "eval_step": 2},
    "LETTER": {
        **RQVAE,
        "backbone_config": T5,
        **RANDOM_WEIGHTS,
        "epochs": 4,
        "train_batch_size": 64,
    },
    "LCRec": {
        **RQVAE,
        **RANDOM_WEIGHTS,
        "backbone": "llama",
        "codebook_sizes": [16, 16],
        "learning_rate": 0.005,
        "epochs": 3,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 16,
        "max_length": 160,
        "text_max_len": 12,
        "test_prompt_ids": 0,
    },
    "STORE": {
        **RANDOM_WEIGHTS,
        "backbone": "opt",
        "lora_rank": 4,
        "code_lr": 0.01,
        "tokenizer_epochs": 4,
        "tokenizer_lr": 0.003,
        "epochs": 8,
        "stopping_step": 8,
    },
    "TokenRec": {
        **RANDOM_WEIGHTS,
        "backbone": "t5",
        "code_dim": 16,
        "tokenizer_epochs": 40,
        "source_len": 200,
        "epochs": 4,
    },
    "SETRec": {**RANDOM_WEIGHTS, "backbone": "t5", "cf_dim": 16, "ae_layers": [32], "epochs": 4},
    "MetaID": {
        **RANDOM_WEIGHTS,
        "backbone": "t5",
        "path_dim": 16,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 64,
        "epochs": 4,
        "precision": "fp32",  # fp16 is for GPUs
    },
    "LMIndexer": {
        **RANDOM_WEIGHTS,
        "indexer_backbone": "t5",
        "codebook_sizes": [32, 32],
        "stage_epochs": [20, 20, 5],
        "stage_batch": [32, 8],
        "tok_max_len": [24, 24],
        "max_source_length": 128,
        "item_max_length": 16,
        "train_batch_size": 32,
        "epochs": 6,
    },
}


@pytest.fixture(scope="module")
def popular(tmp_path_factory) -> Path:
    """The folder of a smaller ml-100k: its most popular films, and users with few of them."""
    source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    folder = tmp_path_factory.mktemp("data")
    target = folder / "ml-100k"
    target.mkdir()
    rows = pd.read_csv(source / "ml-100k.inter", sep="\t", dtype=str)
    user, item = rows.columns[:2]
    films = rows[item].value_counts().index[:ITEMS]
    rows = rows[rows[item].isin(films)]
    counts = rows[user].value_counts()
    users = counts[counts >= 6].index[-USERS:]
    rows[rows[user].isin(users)].to_csv(target / "ml-100k.inter", sep="\t", index=False)
    (target / "ml-100k.item").write_bytes((source / "ml-100k.item").read_bytes())
    return folder


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, str]:
    """Folders of a LLaMA, an OPT and a T5 with random weights and a vocabulary of words."""
    folder = tmp_path_factory.mktemp("backbones")
    places = {}
    for family in ("llama", "opt"):
        places[family] = save_base(folder / family, family)
    torch.manual_seed(0)
    shape = {**T5, "vocab_size": 400, "pad_token_id": 0, "eos_token_id": 1}
    load_encoder_decoder("scratch", shape).save_pretrained(folder / "t5")
    for file in (folder / "opt").glob("*token*.json"):
        (folder / "t5" / file.name).write_text(file.read_text())
    places["t5"] = str(folder / "t5")
    return places


@pytest.mark.slow
@pytest.mark.parametrize("model", CUT)
def test_a_published_setting_trains(model, popular, backbones, tmp_path):
    cut = {**COLLABORATIVE, **CUT[model]}
    for name in ("backbone", "indexer_backbone"):
        if name in cut:
            cut[name] = backbones[cut[name]]
    result = run_recbole_genrec(
        model,
        "ml-100k",
        config_dict={
            "preset": "paper",
            "data_path": str(popular),
            "cache_dir": str(tmp_path / "cache"),
            "checkpoint_dir": str(tmp_path / "saved"),
            "gpu_id": "",
            "show_progress": False,
            "eval_batch_size": 64,
            **cut,
        },
    )
    assert result["config"]["preset"] == "paper"
    metrics = result["test_result"]
    assert all(math.isfinite(value) for value in metrics.values())
    losses = torch.tensor([entry["loss"] for entry in result["epochs"]])
    assert torch.isfinite(losses).all()
    n_users, chance = USERS, 20 / ITEMS
    deviation = math.sqrt(chance * (1 - chance) / n_users)
    assert metrics["recall@20"] > chance + 2 * deviation, "better than a random list"

    codes = result["report"].get("tokenizer")
    if codes is None:
        assert model == "SETRec", "its tokens are vectors"
        return
    learned = codes["levels"][: codes["before"]["levels"]]
    possible = min(ITEMS, math.prod(level["size"] for level in learned))
    assert codes["before"]["unique_ids"] > 0.5 * possible
    for level in learned:
        assert level["perplexity"] > 0.25 * level["size"]
    if "best_epoch" in codes and "curve" in codes:
        looks = codes["curve"][1:]
        best = next(look for look in looks if look["epoch"] == codes["best_epoch"])
        trained = [look for look in looks if look["recon"] <= best["recon"]]
        assert best["excess_rate"] == min(look["excess_rate"] for look in trained)


def test_every_published_setting_has_its_test():
    folder = Path(__file__).parents[2] / "properties" / "paper"
    assert {file.stem for file in folder.glob("*.yaml")} == set(CUT)
    assert {"llama", "opt"} <= set(FAMILIES)
