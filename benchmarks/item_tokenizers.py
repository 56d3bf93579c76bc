"""Tokenizers side by side: code use, perplexity, collisions before repair, reconstruction error,
CPU time of the fit, and how many codes two items share that follow each other in a training
sequence, against two random items.

OMP_NUM_THREADS=1 python benchmarks/item_tokenizers.py --dataset=amazon-beauty
--names=rkmeans,rqvae,letter
"""

from __future__ import annotations

import numpy as np
import torch
from common import arguments, load, write_result

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.tokenizer import fit_or_load, make_tokenizer

HEADER = [
    "tokenizer",
    "codes used",
    "perplexity",
    "colliding items",
    "largest group",
    "reconstruction error",
    "shared codes",
    "CPU-s",
]


def shared_codes(codes: torch.Tensor, pairs: torch.Tensor) -> list[float]:
    """Share of ``pairs [P, 2]`` of items that agree in their first 1, 2, ..., L codes (``codes
    [n_items, L]``).
    """
    left, right = codes[pairs].unbind(1)
    return (left == right).cumprod(1).double().mean(0).tolist()


def main() -> None:
    options = arguments(__doc__, names="rkmeans,rqvae,letter", cache_dir=".cache")
    rows, results, pairs = [], {}, None
    for name in options.names.split(","):
        config, dataset, _ = load(
            "TimelineRec", options, tokenizer=name, cache_dir=options.cache_dir
        )
        content = ItemContent.from_dataset(dataset, config)
        content.interactions = TrainingInteractions(config)
        if pairs is None:
            following = [
                np.stack([items[:-1], items[1:]], axis=1) for items in content.item_sequences()
            ]
            pairs = torch.from_numpy(np.concatenate(following))
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            others = torch.stack(
                [
                    pairs[:, 0],
                    pairs[
                        torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)), 1
                    ],
                ],
                dim=1,
            )
        tokenizer = make_tokenizer(config, config["seed"])
        codes = fit_or_load(
            tokenizer, content, options.cache_dir, config["seed"], lambda message: None
        )
        learned = codes.codes[:, : codes.n_learned]
        stats, quality = codes.stats(), tokenizer.quality
        result = {
            "used": [level["used"] for level in stats["levels"]],
            "perplexity": [level["perplexity"] for level in stats["levels"]],
            "before_repair": stats["before"],
            "unique_ids": stats["unique_ids"],
            "shared_followers": shared_codes(learned, pairs),
            "shared_random": shared_codes(learned, others),
            **quality,
        }
        results[name] = result
        levels = slice(0, codes.n_learned)
        rows.append(
            [
                name,
                " ".join(map(str, result["used"][levels])),
                " ".join(f"{value:.0f}" for value in result["perplexity"][levels]),
                f"{stats['before']['collision_rate']:.1%}",
                str(stats["before"]["largest_group"]),
                f"{quality['reconstruction_error']:.3f}"
                if "reconstruction_error" in quality
                else "-",
                " ".join(
                    f"{a:.3f}/{b:.4f}"
                    for a, b in zip(
                        result["shared_followers"], result["shared_random"], strict=True
                    )
                ),
                f"{quality['fit_cpu_seconds']:.0f}",
            ]
        )
    about = (
        f"{options.dataset}, seed {config['seed']}, item text {config['item_text_fields']}, "
        f"text encoder {config['text_encoder']}"
    )
    notes = (
        f"{about}, one fit each. Codes and collisions are those before repair, without the "
        "extra code. Reconstruction error: mean squared "
        "error of the standardised input. Shared codes: share of pairs that agree in the "
        "first 1, 2, ... codes, items that follow each "
        "other in a training sequence / random pairs of the same items. The time of LETTER "
        "leaves out the SASRec behind it."
    )
    write_result(
        "item_tokenizers",
        f"Tokenizers on {options.dataset}",
        {"dataset": options.dataset, "tokenizers": results},
        HEADER,
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
