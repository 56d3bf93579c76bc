"""``recommend --users``: the lists of many users in a file.

The users are cut into parts. Each part is written as soon as it is done, to a folder beside the
output, so that the same command goes on after a kill and writes the same file. The folder is named
after the key of the job: a command for other lists has a folder of its own. Shards (``--shard``,
or the processes of ``torchrun``) take blocks of the users.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recbole_genrec.data.given_ids import IdText, check_ids, raw_id, read_ids
from recbole_genrec.data.histories.history_digests import changed_users, digests_of
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.listed_items import ListedItems
from recbole_genrec.experiments.served import Served
from recbole_genrec.experiments.trained import load_recommender
from recbole_genrec.model.lists.user_lists import lists_bar
from recbole_genrec.runtime import processes
from recbole_genrec.serving.history_record import Record
from recbole_genrec.serving.job_key import items_key, settings_key, weights_key
from recbole_genrec.serving.list_files import check_format, join_parts, write_part
from recbole_genrec.serving.part_folder import PartFolder
from recbole_genrec.serving.shards import Shard, join_finished, write_shard
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.atomic import check_writable, made_once
from recbole_genrec.storage.digests import digest

PART = 1024
"""Users of a part: what a kill loses at most."""

ALL = "all"
CHANGED = "changed"


@dataclass(frozen=True)
class WrittenLists:
    """What ``recommend_to_file`` did.

    Attributes:
        file: the file with the lists, or ``None`` where other shards are still missing.
        users: users that were asked for.
        listed: those who have a list.
        resumed: users whose lists an earlier call had made.
        shard_file: with shards, the file of this one.
        is_first_process: whether this process speaks for all.
    """

    file: Path | None
    users: int
    listed: int
    resumed: int
    shard_file: Path | None = None
    is_first_process: bool = True

    def sentence(self) -> str:
        """What was done, for people."""
        text = f"Lists of {self.listed:,} users"
        if self.listed < self.users:
            text += f" (of {self.users:,}; the model knows no item of the others)"
        if self.resumed:
            text += f", {self.resumed:,} of them from before an interruption,"
        if self.file is None:
            missing = "the other shards of these lists are not all there yet."
            return f"{text} written to {self.shard_file}; {missing}"
        return f"{text} written to {self.file}"


def recommend_to_file(
    checkpoint: str,
    output: str | os.PathLike,
    users: str | Sequence[str] | IdText = ALL,
    k: int = 20,
    exclude_seen: bool | None = None,
    candidate_file: str | None = None,
    shard: str | None = None,
    excluded_file: str | None = None,
    **changes: Any,
) -> WrittenLists:
    """Write the best next items of many users to a file.

    Args:
        checkpoint: of any model; see
            :func:`~recbole_genrec.experiments.loading.load_recommender`.
        output: a ``.parquet``, ``.csv``, ``.tsv`` or ``.jsonl`` file with the columns of
            :meth:`~recbole_genrec.model.lists.user_lists.UserLists.recommend_all`.
        users: ``all`` users of the data; ``changed``, those whose history is another one than when
            the file was last written, or, without such a file, than in training; a file of raw
            user ids, one a line; or a list of raw user ids, also as somebody typed it. The ids of a
            list may be whole numbers.
        k: length of each list.
        exclude_seen: whether items of a user's history stay out; default as ``exclude_history``.
        candidate_file: a file of raw item ids, one a line, to choose among; default all items.
        shard: ``3/16``: the third of sixteen blocks of the users. Its lists go to
            ``recs.shard-3-of-16.parquet``; when all sixteen are there they become ``recs.parquet``.
        excluded_file: a file of raw item ids, one a line, that no list holds.
        **changes: settings to replace.

    Raises:
        ConfigError: an unknown user or item, a wrong shard or ending, or the dataset's files are
            not there.
        ArtefactError: the file cannot be written, or another process makes the same lists for it.
    """
    checkpoint = local_checkpoint(checkpoint)
    target = Path(output).expanduser()
    check_format(target)
    part_of = Shard.read(shard)
    if k < 1:
        raise ConfigError(f"top is {k}; it must be at least 1.")
    listed = ListedItems(candidate_file, excluded_file)
    with processes.joined(torch.device("cpu")):
        if processes.rank() == 0:
            check_writable(target)
        named = None
        if isinstance(users, IdText):
            named = users.possible
        elif not isinstance(users, str):
            check_ids("users", users, "user")
            named = users = [raw_id(user) for user in users]
        elif users not in (ALL, CHANGED):
            named = users = _users_of_file(users)
        served = load_recommender(checkpoint, users=named, candidate_file=None, **changes)
        candidates = listed.of(served.model.catalogue)
        if isinstance(users, IdText):
            users = users.among((served.histories or {}).__contains__)
        job = _Job(served, target, part_of, k, exclude_seen, candidates)
        return job.carry_out(users, weights_key(checkpoint), changes)


class _Job:
    """One call of :func:`recommend_to_file`.

    Args:
        served: the model and the histories.
        target: the file.
        shard: which of how many blocks of the users.
        k: length of each list.
        exclude_seen: as there.
        candidates: raw item ids, or ``None`` for all items.
    """

    def __init__(
        self,
        served: Served,
        target: Path,
        shard: Shard,
        k: int,
        exclude_seen: bool | None,
        candidates: list[str] | None,
    ) -> None:
        self.served = served
        self.target = target
        self.shard = shard
        self.k = k
        self.exclude_seen = exclude_seen
        self.candidates = candidates
        self.log = logging.getLogger()

    @functools.cached_property
    def _list_parts(self) -> Any:
        """What the lists of all parts share."""
        return self.served.model.list_parts()

    def carry_out(
        self, users: str | Sequence[str], weights: str, changes: dict[str, Any]
    ) -> WrittenLists:
        """Make the lists that are missing and join all of them to the file.

        Args:
            users: ``all``, ``changed``, or raw user ids.
            weights: their digest.
            changes: settings that were replaced.
        """
        histories = self.served.histories
        if histories is None:
            settings = self.served.config.settings
            raise ConfigError(
                f"The files of {settings.dataset} are not in {settings.data_path}. "
                "Give --data_path, the folder that holds the dataset's folder."
            )
        record = Record(self.target)
        now = digests_of(histories)
        everybody = self._chosen(users, record, now)
        of_shard = self.shard.block(everybody)
        key = digest(
            weights,
            settings_key(changes),
            items_key(self.served),
            digest(everybody, now),
            [self.k, self.exclude_seen, self.candidates, self.shard.count],
        )
        # The number of processes and the size of a part say which users a part has.
        cut = digest(key, processes.size(), PART)
        folder = PartFolder(self.target, self.shard.ending, cut)
        first = processes.rank() == 0
        with folder.held() if first else contextlib.nullcontext():
            processes.wait_for_all()
            counts = self._make_parts(folder, of_shard)
            listed, resumed = (int(total) for total in processes.summed(counts))
            result = WrittenLists(None, len(of_shard), listed, resumed, is_first_process=first)
            if first:
                with self._writing():
                    result = self._join(folder, of_shard, key, result)
                    if isinstance(users, str) and result.file is not None:
                        record.update(now)
                self._name_others(folder)
        processes.wait_for_all()
        return result

    def _writing(self) -> contextlib.AbstractContextManager[bool]:
        """One process at a time writes the output and what lies beside it."""
        return made_once(self.target.with_name(f"{self.target.name}.joining"), self.log.info)

    def _name_others(self, folder: PartFolder) -> None:
        """Say which parts of other lists are left; their command may be at work, or go on later."""
        for other in folder.others():
            self.log.info(
                f"{other} holds parts of other lists for {self.target}. Remove it, unless the "
                "command that makes them is running or is to go on."
            )

    def _chosen(self, users: str | Sequence[str], record: Record, now: dict[str, int]) -> list[str]:
        """Raw ids of the users that ``users`` means.

        Args:
            users: ``all``, ``changed``, or raw user ids.
            record: of the histories that the output was made from.
            now: digests of the histories by raw user id.
        """
        if not isinstance(users, str):
            self._check_known(users, now)
            return list(dict.fromkeys(users))
        if users == ALL:
            return list(now)
        before = record.read()
        since = f"{self.target} was last written"
        if before is None:
            before = self.served.model.trained_on
            since = "the training"
        if before is None:
            self.log.warning(
                "Neither the output nor the checkpoint (of an earlier version) says what histories "
                "were, so every user counts as changed."
            )
            before = {}
        changed = changed_users(now, before)
        self.log.info(f"{len(changed):,} of {len(now):,} users have changed since {since}.")
        return changed

    def _check_known(self, users: Sequence[str], now: dict[str, int]) -> None:
        unknown = [user for user in users if user not in now]
        if unknown:
            raise ConfigError(
                f"There is no user {unknown[0]!r} in {self.served.config.settings.dataset} "
                f"({len(unknown)} of {len(users)} ids are unknown)."
            )

    def _parts(
        self, folder: PartFolder, users: list[str], process: int
    ) -> list[tuple[Path, list[str]]]:
        """The files of a process, and the users of each; without users one empty file.

        Args:
            folder: where the files are.
            users: those of all processes.
            process: its number.
        """
        block = Shard(process + 1, processes.size()).block(users)
        starts = range(0, max(1, len(block)), PART)
        return [(folder.part(process, start), block[start : start + PART]) for start in starts]

    def _make_parts(self, folder: PartFolder, users: list[str]) -> list[float]:
        """Write the parts of this process.

        Returns:
            How many users have a list, and how many of them had it already.
        """
        parts = self._parts(folder, users, processes.rank())
        shows = self.served.model.list_options().show_progress and processes.rank() == 0
        bar = lists_bar(sum(len(part) for _, part in parts), shows)
        listed = resumed = 0
        for file, part in parts:
            count_file = file.with_suffix(".json")
            if file.is_file() and count_file.is_file():
                count = read_json(count_file, {"users": int})["users"]
                resumed += count
                bar.update(len(part))
            else:
                count = self._make_part(file, part, bar)
                write_json(count_file, {"users": count})
            listed += count
        bar.close()
        return [listed, resumed]

    def _make_part(self, file: Path, users: list[str], bar: Any) -> int:
        model = self.served.model
        tables = list(
            model.recommend_batches(
                users, self.k, self.exclude_seen, self.candidates, bar, self._list_parts
            )
        )
        write_part(file, tables)
        return sum(table["user_id"].nunique() for table in tables)

    def _join(
        self, folder: PartFolder, users: list[str], key: str, result: WrittenLists
    ) -> WrittenLists:
        """Write the file of the users, or of this shard and then of all shards that are there."""
        of_processes = [self._parts(folder, users, number) for number in range(processes.size())]
        parts = [part for of_process in of_processes for part, _ in of_process]
        if self.shard.count == 1:
            join_parts(parts, self.target)
            folder.remove()
            return replace(result, file=self.target)
        write_shard(parts, self.shard, self.target, key)
        folder.remove()
        joined = join_finished(self.shard, self.target, key, self.log)
        return replace(result, file=joined, shard_file=self.shard.file(self.target))


def _users_of_file(file: str) -> list[str]:
    """Raw user ids in the file that ``--users`` names.

    Raises:
        ConfigError: it is not there, or is no list of ids.
    """
    if not Path(file).exists():
        raise ConfigError(
            f"--users={file} is neither {ALL} nor {CHANGED}, and there is no file of this name. "
            "Give one of these words, or a text file with one raw user id a line."
        )
    return read_ids(file, "user")
