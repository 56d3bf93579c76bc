"""Per-user ranks of the test target, which a paired comparison of two models needs.

A rank is the position of a user's target in the ranked list, 1 = first, 0 = not among the first
``depth``. With one target a user Recall@k is the share of users with a rank of 1..k, and NDCG@k the
mean of 1 / log2(rank + 1) over them (0 for the others).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.report.metric_names import is_of_rank, kind, place
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.storage.digests import digest

ADVICE = "Run or evaluate the model again with --save_ranks=True, which writes them anew."
"""What to do about damaged ranks."""
SHORT = torch.iinfo(torch.int16).max
"""The longest list whose ranks int16 holds; earlier versions stored those of longer ones in it."""


@dataclass(frozen=True)
class UserRanks:
    """Test ranks of one run.

    Args:
        ranks: int64 ``[n_users]``, 1..depth, or 0 for a target below the list.
        users: raw user ids, in the order of ``ranks``.
        depth: length of the ranked lists, ``max(topk)``.
        targets: raw id of each user's test item, where it is known: two models are compared by
            users who have the same one.
        cases_digest: of ranks :meth:`without_names` the digest of all users and targets, else "".
        test_digest: :func:`digest_of_test` of the result that they belong to; "" where it is not
            known.
    """

    ranks: np.ndarray
    users: tuple[str, ...]
    depth: int
    targets: tuple[str, ...] = ()
    cases_digest: str = ""
    test_digest: str = ""

    def recall(self, k: int) -> np.ndarray:
        """Recall@k of each user, float64 ``[n_users]``; k must not exceed ``depth``."""
        return self._within(k).astype(np.float64)

    def ndcg(self, k: int) -> np.ndarray:
        """NDCG@k of each user, float64 ``[n_users]``; k must not exceed ``depth``."""
        return np.where(self._within(k), 1 / np.log2(np.maximum(self.ranks, 1) + 1), 0.0)

    def has(self, metric: str) -> bool:
        """Whether a metric follows from these ranks."""
        return is_of_rank(metric) and place(metric) <= self.depth

    def values(self, metric: str) -> np.ndarray:
        """A metric of each user, float64 ``[n_users]``.

        Args:
            metric: ``recall@k`` or ``ndcg@k``; k must not exceed ``depth``.
        """
        by_place = self.recall if kind(metric) == "recall" else self.ndcg
        return by_place(place(metric))

    def _within(self, k: int) -> np.ndarray:
        if k > self.depth:
            raise ConfigError(
                f"The ranks reach down to place {self.depth}; "
                f"metrics at {k} need --topk with {k} in the runs."
            )
        return (self.ranks >= 1) & (self.ranks <= k)

    def without_names(self) -> UserRanks:
        """The ranks alone: they say nothing of the data, whose licence may forbid to pass it on.

        They are in the order of the SHA-256 of user and target, so that ranks of several models on
        the same test are in the same order.
        """
        if self.cases_digest:
            return self
        keys = [hashlib.sha256("\0".join(case).encode("utf-8")).digest() for case in self._cases()]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        together = hashlib.sha256(b"".join(sorted(keys))).hexdigest()[:16]
        return UserRanks(self.ranks[order], (), self.depth, (), together, self.test_digest)

    def save(self, folder: str | os.PathLike) -> None:
        """Store as an artefact: ranks int16, of longer lists int32; users and targets as JSON.

        Such a folder is small enough to be kept for every run of a table, so that further seeds and
        rows can join it later: .3 MB for 22,000 users, .01 MB :meth:`without_names`.
        """
        meta: dict[str, Any] = {"depth": self.depth}
        if self.test_digest:
            meta["test_digest"] = self.test_digest
        if self.cases_digest:
            meta["cases_digest"] = self.cases_digest
            save_artefact(folder, {"packed_ranks": _packed(self.ranks.tolist())}, meta)
            return
        kind = torch.int16 if self.depth <= SHORT else torch.int32
        tensors = {
            "ranks": torch.from_numpy(self.ranks).to(kind),
            "cases": _packed([list(self.users), list(self.targets)]),
        }
        save_artefact(folder, tensors, meta)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> UserRanks:
        """Undo :meth:`save`.

        Raises:
            ArtefactError: the folder is missing, damaged or holds something else.
        """
        tensors, meta = load_artefact(folder, ADVICE)
        loaded: UserRanks | None = None
        with contextlib.suppress(KeyError, TypeError, ValueError, zlib.error):
            loaded = _loaded(tensors, meta)
        if loaded is None:
            raise ArtefactError(f"{folder} holds no test ranks. {ADVICE}")
        return loaded

    def by_case(self, metric: str) -> dict[tuple[str, str], float]:
        """A metric of each user.

        Args:
            metric: ``recall@k`` or ``ndcg@k``.

        Returns:
            The metric by (user, target); the target is empty where it is not known. Of ranks
            :meth:`without_names` by (digest of the cases, place among them).
        """
        return dict(zip(self._cases(), self.values(metric).tolist(), strict=True))

    def _cases(self) -> list[tuple[str, str]]:
        if self.cases_digest:
            return [(self.cases_digest, str(place)) for place in range(len(self.ranks))]
        return list(zip(self.users, self.targets or ("",) * len(self.users), strict=True))


def in_one_form(ranks: Iterable[UserRanks]) -> list[UserRanks]:
    """The ranks in one form: where some are without names, all are."""
    forms = list(ranks)
    if any(form.cases_digest for form in forms):
        return [form.without_names() for form in forms]
    return forms


def _packed(value: object) -> Tensor:
    """Plain values as compressed JSON, uint8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    packed = zlib.compress(text.encode("utf-8"), 9)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    """Undo :func:`_packed`."""
    return json.loads(zlib.decompress(packed.numpy().tobytes()))


def _loaded(tensors: dict[str, Tensor], meta: dict[str, Any]) -> UserRanks:
    """Ranks of a stored artefact; earlier versions kept users and targets in the JSON.

    Raises:
        KeyError, TypeError, ValueError, zlib.error: they hold no ranks.
    """
    depth = int(meta["depth"])
    test_digest = str(meta.get("test_digest", ""))
    if "packed_ranks" in tensors:
        numbers = np.array(_unpacked(tensors["packed_ranks"]), dtype=np.int64)
        return UserRanks(numbers, (), depth, (), str(meta["cases_digest"]), test_digest)
    if "cases" in tensors:
        users, targets = _unpacked(tensors["cases"])
    else:
        users = meta["users"]
        targets = meta.get("targets", [])
    ranks = tensors["ranks"].numpy().astype(np.int64)
    if len(users) != len(ranks):
        raise ValueError("users and ranks differ in number")
    if tensors["ranks"].dtype == torch.int16 and depth > SHORT:
        raise ValueError("ranks do not fit into int16")
    return UserRanks(ranks, tuple(users), depth, tuple(targets), test_digest=test_digest)


def digest_of_test(metrics: Mapping[str, float]) -> str:
    """By what ranks and a result know each other.

    Args:
        metrics: ``test_result`` of the result.
    """
    return digest(dict(metrics))


def ranks_folder(result_file: str | os.PathLike) -> Path:
    """Where the ranks of a result file lie: ``<name>.ranks`` beside ``<name>.json``.

    Other names keep all of their parts: ``toy.Pop.ranks`` beside ``toy.Pop``.
    """
    return beside(result_file, ".ranks")


def beside(result_file: str | os.PathLike, suffix: str) -> Path:
    """A file beside a result file, whose name differs by its suffix alone.

    Args:
        result_file: the result file.
        suffix: takes the place of ``.json``, or follows a name that does not end so.
    """
    file = Path(result_file)
    return file.with_name(file.name.removesuffix(".json") + suffix)


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
    data = dataset_of(loader)
    users = data.inter_feat[data.uid_field]
    items = data.inter_feat[data.iid_field]
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
