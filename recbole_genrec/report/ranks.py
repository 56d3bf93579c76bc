"""Per-user ranks of the test target, which a paired comparison of two models needs.

A rank is the position of a user's target in the ranked list, 1 = first, 0 = not among the first
``depth``. With one target a user Recall@k is the share of users with a rank of 1..k, and NDCG@k the
mean of 1 / log2(rank + 1) over them (0 for the others).
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact


@dataclass(frozen=True)
class UserRanks:
    """Test ranks of one run.

    Args:
        ranks: int64 ``[n_users]``, 1..depth, or 0 for a target below the list.
        users: raw user ids, in the order of ``ranks``.
        depth: length of the ranked lists, ``max(topk)``.
        targets: raw id of each user's test item, where it is known: two models are compared by
            users who have the same one.
    """

    ranks: np.ndarray
    users: tuple[str, ...]
    depth: int
    targets: tuple[str, ...] = ()

    def recall(self, k: int) -> np.ndarray:
        """Recall@k of each user, float64 ``[n_users]``; k must not exceed ``depth``."""
        return self._within(k).astype(np.float64)

    def ndcg(self, k: int) -> np.ndarray:
        """NDCG@k of each user, float64 ``[n_users]``; k must not exceed ``depth``."""
        return np.where(self._within(k), 1 / np.log2(np.maximum(self.ranks, 1) + 1), 0.0)

    def _within(self, k: int) -> np.ndarray:
        if k > self.depth:
            raise ConfigError(
                f"The ranks reach down to place {self.depth}; "
                f"metrics at {k} need --topk with {k} in the runs."
            )
        return (self.ranks >= 1) & (self.ranks <= k)

    def save(self, folder: str | os.PathLike) -> None:
        """Store as an artefact: ranks int16, users and targets as compressed JSON.

        Such a folder is small enough to be kept for every run of a table, so that further seeds and
        rows can join it later: .3 MB for 22,000 users.
        """
        tensors = {
            "ranks": torch.from_numpy(self.ranks).to(torch.int16),
            "cases": _packed([list(self.users), list(self.targets)]),
        }
        save_artefact(folder, tensors, {"depth": self.depth})

    @classmethod
    def load(cls, folder: str | os.PathLike) -> UserRanks:
        """Undo :meth:`save`.

        Raises:
            ArtefactError: the folder is missing, damaged or holds something else.
        """
        tensors, meta = load_artefact(folder)
        loaded: UserRanks | None = None
        with contextlib.suppress(KeyError, TypeError, ValueError, zlib.error):
            users, targets = _cases(tensors, meta)
            ranks = tensors["ranks"].numpy().astype(np.int64)
            loaded = cls(ranks, tuple(users), int(meta["depth"]), tuple(targets))
        if loaded is None or len(loaded.users) != len(loaded.ranks):
            raise ArtefactError(
                f"{folder} holds no test ranks. "
                f"Delete the folder and run the model again with --save_ranks=True."
            )
        return loaded

    def by_case(self, metric: str) -> dict[tuple[str, str], float]:
        """A metric of each user.

        Args:
            metric: ``recall@k`` or ``ndcg@k``.

        Returns:
            The metric by (user, target); the target is empty where it is not known.
        """
        name, _, k = metric.partition("@")
        values = self.recall(int(k)) if name == "recall" else self.ndcg(int(k))
        targets = self.targets or ("",) * len(self.users)
        cases = zip(self.users, targets, strict=True)
        return dict(zip(cases, values.tolist(), strict=True))


def _packed(value: object) -> Tensor:
    """Plain values as compressed JSON, uint8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    packed = zlib.compress(text.encode("utf-8"), 9)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _cases(tensors: dict[str, Tensor], meta: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Users and targets; earlier versions kept them in the JSON."""
    if "cases" not in tensors:
        return meta["users"], meta.get("targets", [])
    users, targets = json.loads(zlib.decompress(tensors["cases"].numpy().tobytes()))
    return users, targets


def ranks_folder(result_file: str | os.PathLike) -> Path:
    """Where the ranks of a result file lie: ``<name>.ranks`` beside ``<name>.json``."""
    return Path(result_file).with_suffix(".ranks")


def ranks_from_hits(hits: Tensor) -> np.ndarray:
    """Ranks from what RecBole collects for its metrics.

    Args:
        hits: RecBole's ``rec.topk`` ``[n_users, depth + 1]``. Its columns say whether place 1, 2,
            ... holds the target; the last one counts the targets of the user.

    Returns:
        int64 ``[n_users]``, 0 for a target below the list.
    """
    places = hits[:, :-1].bool()  # [n_users, depth]
    first = places.int().argmax(1) + 1
    ranks = torch.where(places.any(1), first, 0)
    return ranks.cpu().numpy().astype(np.int64)


def evaluated_cases(loader: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The users of a full-ranking loader, in the order of their evaluation, and their test items.

    General models are evaluated by ascending internal id, sequential ones in the order of the
    interactions, so only raw ids align two models.

    Args:
        loader: RecBole's loader of the test split.

    Returns:
        Raw ids of the users and of their test items.

    Raises:
        ConfigError: sampled evaluation, or a user with several targets; ranks are one number a
            user.
    """
    from recbole.data.dataloader import FullSortEvalDataLoader

    if not isinstance(loader, FullSortEvalDataLoader):
        raise ConfigError(
            "Ranks and ensembles need eval_args with mode: full; sampled candidates give no rank "
            "among all items."
        )
    data = loader._dataset
    users, items = data.inter_feat[data.uid_field], data.inter_feat[data.iid_field]
    if len(users.unique()) != len(users):
        raise ConfigError(
            "Ranks and ensembles need one test target a user: eval_args with split: "
            "{LS: valid_and_test}."
        )
    target = torch.zeros(data.user_num, dtype=items.dtype).index_put((users,), items)
    order = users if loader.is_sequential else loader.uid_list
    user_tokens = data.id2token(data.uid_field, order.numpy())
    item_tokens = data.id2token(data.iid_field, target[order].numpy())
    return tuple(map(str, user_tokens)), tuple(map(str, item_tokens))
