"""Where on the path of codes is a tree worse than a softmax over items?

The probabilities that any model gives the items are split along the codes of the first checkpoint:
log p(item) = log p(first code) + log p(item | first code). The table shows minus the mean of both
over held-out items of validation, in nats, beside Recall@10 and NDCG@10, each with the items of the
history in the list and without. The last rows take the first code from one model and the rest from
another.

    OMP_NUM_THREADS=1 python benchmarks/levels.py --checkpoints=tree.pth,flat.pth --users=3000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.experiments.ensemble_members import Case, Member, load_members

BATCH = 500
TOP = 10
OUTSIDE = -1e9


class Split:
    """Log-probabilities of items along one code.

    Args:
        codes: first code of each item ``[n_items]``; row 0 is the padding item.
    """

    def __init__(self, codes: Tensor) -> None:
        self.group = codes.clone()
        self.group[0] = codes.max() + 1

    def __call__(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(first code) and log p(item | first code), both ``[B, n_items]``."""
        n_groups = int(self.group.max()) + 1
        shares = torch.zeros(len(scores), n_groups).index_add(1, self.group, scores.exp())
        first = shares.clamp_min(1e-30).log()[:, self.group]
        return first, scores - first


def figures(scores: Tensor, targets: Tensor) -> Tensor:
    """Recall and NDCG of the ten best of each row, ``[B, 2]``."""
    of_target = scores.gather(1, targets.unsqueeze(1))
    rank = (scores > of_target).sum(1)
    is_hit = rank < TOP
    return torch.stack([is_hit.float(), is_hit / torch.log2(rank + 2.0)], 1)


def scores_of(member: Member, cases: Sequence[Case]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, histories and targets of some rows of validation."""
    interaction, scores, rows, targets = member.batch("valid", cases)
    scores = scores.clone()
    scores[:, 0] = OUTSIDE
    in_order = torch.as_tensor(targets)[torch.argsort(torch.as_tensor(rows))]
    model = member.trained.model
    return scores, interaction[model.ITEM_SEQ], in_order


def measured(members: Sequence[Member], users: int) -> dict[str, Tensor]:
    """For each row of the table Recall, NDCG, both masked, and both parts of -log p."""
    split = Split(members[0].trained.model.codes[:, 0].cpu())
    cases = sorted(members[0].rows("valid"))
    chosen = np.random.default_rng(0).permutation(len(cases))[:users]
    collected: dict[str, list[Tensor]] = {}
    for start in range(0, len(chosen), BATCH):
        batch = [cases[place] for place in chosen[start : start + BATCH]]
        parts = {}
        for number, member in enumerate(members, start=1):
            scores, history, targets = scores_of(member, batch)
            parts[f"{number}"] = split(scores)
        rows = dict(parts)
        for one, other in permutations(parts, 2):
            rows[f"first code of {one}, rest of {other}"] = parts[one][0], parts[other][1]
        for name, (first, rest) in rows.items():
            total = first + rest
            masked = total.scatter(1, history, OUTSIDE)
            column = targets.unsqueeze(1)
            losses = torch.cat([-first.gather(1, column), -rest.gather(1, column)], 1)
            values = [figures(total, targets), figures(masked, targets), losses]
            collected.setdefault(name, []).append(torch.cat(values, 1))
    return {name: torch.cat(values).mean(0) for name, values in collected.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", required=True, help="the first has the codes")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--data_path", default="dataset")
    options = parser.parse_args()
    checkpoints = options.checkpoints.split(",")
    members = load_members(checkpoints, {"data_path": options.data_path})
    print("| scores of | R@10 | N@10 | R@10 masked | N@10 masked | first code | rest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, values in measured(members, options.users).items():
        shown = [f"{value:.4f}" for value in values[:4].tolist()]
        shown += [f"{value:.2f}" for value in values[4:].tolist()]
        print(f"| {name} | {' | '.join(shown)} |")
    for number, checkpoint in enumerate(checkpoints, start=1):
        print(f"{number}: {checkpoint}")


if __name__ == "__main__":
    main()
