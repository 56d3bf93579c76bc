"""One Markdown table from the result files of several runs on one dataset.

python benchmarks/table.py saved/STORE-amazon-beauty-*.json saved/SASRec-amazon-beauty-*.json > benchmarks/results/amazon-beauty.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20")


def row(result: dict) -> str:
    """Test metrics of one run, the epoch that was tested, the epochs that were trained, parameters and CPU minutes."""
    valid = [epoch.get("valid", {}).get("ndcg@10", -1.0) for epoch in result["epochs"]]
    cells = [f"{result['test_result'][metric]:.4f}" for metric in METRICS]
    best = valid.index(max(valid)) + 1 if valid else 0
    cells += [f"{result['best_valid_score']:.4f}", f"{best} of {len(valid)}"]
    cells += [f"{result['parameters']:,}", f"{result['seconds']['cpu'] / 60:.0f}"]
    return f"| {result['model']} | " + " | ".join(cells) + " |"


def details(result: dict) -> str:
    """What the numbers of one run stand on."""
    config, versions = result["config"], result["versions"]
    text = f"* {result['model']}: `{result['command']}`, seed {result['seed']}, commit {result['commit']}"
    text += f", batch {config['train_batch_size']}, learning rate {config['learning_rate']}"
    text += f", training rows `{config.get('train_rows') or 'all'}`"
    if config.get("valid_users"):
        text += f", validated on {config['valid_users']} users"
    if config.get("loss_type"):
        text += f", loss {config['loss_type']}"
    search = result["report"].get("search")
    if search:
        tokenizer = result["report"]["tokenizer"]
        perplexities = ", ".join(f"{level['perplexity']:.0f}/{level['size']}" for level in tokenizer["levels"])
        text += (
            f"; backbone {config['backbone']} {config['backbone_config']}, item text {config['item_text_fields']}, no sentence encoder"
            f"; beam {search['beam_width']}, score `{search['score_type']}`, constraint {search['constraint']}"
            f", certified top 10 of {search['certified@10']:.1%} of the users; perplexity of the code levels {perplexities}"
            f"; {tokenizer['before']['collision_rate']:.1%} of the items collide before repair"
            f" (largest group {tokenizer['before']['largest_group']})"
            f"; reconstruction loss {tokenizer['reconstruction_loss']:.3f} nats a token,"
            f" {tokenizer['reconstruction_loss_shuffled']:.3f} with another item's dense tokens"
        )
    return text + f"; torch {versions['torch']}, recbole {versions['recbole']}"


def main(files: list[str]) -> None:
    """Print the table, best NDCG@10 first, and the details of each run."""
    results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    results.sort(key=lambda result: -result["test_result"]["ndcg@10"])
    print(f"# {results[0]['dataset']}, leave-one-out, all items ranked, history not masked, one seed\n")
    print("| model | " + " | ".join(METRICS) + " | valid ndcg@10 | best epoch | parameters | CPU-min |")
    print("|---" * (len(METRICS) + 5) + "|")
    print("\n".join(row(result) for result in results) + "\n")
    print("\n".join(details(result) for result in results))


if __name__ == "__main__":
    main(sys.argv[1:])
