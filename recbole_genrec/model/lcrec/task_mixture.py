"""Which samples of LC-Rec's tasks (arXiv 2311.09049) enter a batch, and what they consist of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from recbole_genrec.data.ids import history_column
from recbole_genrec.data.items.user_text import KINDS, read_user_texts
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lcrec.cases import Case, HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.keys import LCRecSettings
from recbole_genrec.model.lcrec.shared_batch import own_rows, own_samples, whole_batch
from recbole_genrec.model.lcrec.templates import FORMS, TEXT_TASKS, USER_TASKS
from recbole_genrec.runtime import processes

# Samples of fusionseqrec per training target: the release takes 20,000 of 131,837 on Instruments.
FUSION_SHARE = 0.15


class TaskMixture:
    """Draws samples of the tasks beside ``seqrec``.

    They are drawn in proportion to their natural numbers times ``task_weights``. The natural
    number is one sample for each item (``item2index``, ``index2item``), one for each user with
    texts (``itemsearch``, ``preferenceobtain``), and one for a share of the training targets
    (``fusionseqrec``). All samples come from training rows, item texts and user texts. Several
    processes draw the samples of the whole batch, each the same ones, and share them.

    Args:
        settings: the settings of the run.
        dataset: RecBole's training dataset.
        has_text: whether the items have texts.
        log: takes notices.

    Attributes:
        tasks: the active tasks.
        people: the samples of the users with texts, where there are some.
        person_texts: the texts of these users by kind; empty where there are none.
        items: the items that ``item2index`` and ``index2item`` draw from.
        per_target: samples of each other task for one training target.
        generator: draws everything, on the CPU; at the same place in all processes.
    """

    people: HistoryCase

    def __init__(
        self,
        settings: LCRecSettings,
        dataset,
        has_text: bool,
        log: Callable[[str], None],
    ):
        self.settings = settings
        rows = dataset.inter_feat
        item = dataset.iid_field
        length = dataset.item_list_length_field
        history = history_column(dataset.config)

        self.person_texts: dict[str, list[str]] = {}
        asks_users = set(USER_TASKS) & set(settings.tasks)
        path = settings.user_text_file
        if asks_users and path and Path(path).is_file():
            user = dataset.uid_field
            texts = read_user_texts(path, dataset.field2id_token[user])
            self._set_people(rows[user], rows[item], rows[history], rows[length], texts)
        self.tasks = self._active(has_text, log)
        self.generator = torch.Generator().manual_seed(settings.seed)

        self.items = torch.arange(1, dataset.item_num)
        if not settings.align_new_items:
            trained = torch.cat([rows[item], rows[history].flatten()]).unique()
            self.items = trained[trained > 0]

        n_targets = len(rows)
        if settings.train_rows != "all":
            n_targets = int(rows[length].sum())
        self.per_target = self._per_target(n_targets)

    # --- what may be drawn ------------------------------------------------------------------------

    def _set_people(
        self,
        user: Tensor,
        item: Tensor,
        history: Tensor,
        length: Tensor,
        texts: dict[int, dict[str, str]],
    ) -> None:
        """Take the longest training row of each user with texts.

        ``query`` asks for its target. ``preference`` is told from its history, which lacks the
        last three items of the data.

        Args:
            user: user of each training row ``[n]``.
            item: target of each row ``[n]``.
            history: items before it ``[n, T]``.
            length: number of these ``[n]``.
            texts: by RecBole's user id and kind.
        """
        # The rows of a user stand in the order of their length, so the last one is the longest.
        last_row = {number: row for row, number in enumerate(user.tolist())}
        users = [number for number in texts if number in last_row]
        if not users:
            return
        rows = torch.tensor([last_row[number] for number in users], dtype=torch.long)
        person = torch.arange(len(users))
        self.people = HistoryCase(
            item[rows], history[rows], length[rows], person=person, user=user[rows]
        )
        for kind in KINDS:
            self.person_texts[kind] = [texts[number][kind] for number in users]

    def _active(self, has_text: bool, log: Callable[[str], None]) -> list[str]:
        """The tasks that are trained; those that lack their texts are off."""
        reasons: dict[str, str] = {}
        if not has_text:
            reasons |= dict.fromkeys(TEXT_TASKS, "there is no item text (item_text_fields)")
        if not self.person_texts:
            file = self.settings.user_text_file or "~"
            reason = f"there are no user texts (user_text_file: {file})"
            reasons |= dict.fromkeys(USER_TASKS, reason)

        chosen = list(self.settings.tasks)
        if self.settings.self_improve and "item2index" not in chosen:
            chosen.append("item2index")  # what a refresh asks the model
        for task in chosen:
            if task in reasons:
                log(f"Task {task} is off: {reasons[task]}.")
        weights = self.settings.task_weights
        tasks = [
            task
            for task in FORMS
            if task in chosen and task not in reasons and weights.get(task, 1) > 0
        ]
        log(f"Tasks: {', '.join(tasks)}")
        return tasks

    def _per_target(self, n_targets: int) -> dict[str, float]:
        """Samples of each other task for one of ``seqrec``."""
        if not n_targets:  # a checkpoint that serves without its data
            return dict.fromkeys((task for task in self.tasks if task != "seqrec"), 0.0)
        n_people = len(self.person_texts.get("query", ()))
        natural = {
            "item2index": len(self.items),
            "index2item": len(self.items),
            "fusionseqrec": FUSION_SHARE * n_targets,
            "itemsearch": n_people,
            "preferenceobtain": n_people,
        }
        weights = self.settings.task_weights
        n_seqrec = weights.get("seqrec", 1) * n_targets
        return {
            task: weights.get(task, 1) * natural[task] / n_seqrec
            for task in self.tasks
            if task != "seqrec"
        }

    # --- draws ------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Let the draws depend on seed and epoch alone, so that a resumed run makes the same.

        Args:
            epoch: number of the epoch, counted from 0.
        """
        self.generator.manual_seed((self.settings.seed << 20) + epoch + 1)

    def numbers(self, n: int, count: int) -> Tensor:
        """Draws from 0 .. n - 1 for the samples of this process, on the CPU.

        Args:
            n: how many numbers there are.
            count: how many samples this process has of those that all share.

        Returns:
            ``[count]``.
        """
        (total,) = processes.summed([count])
        return self._numbers(n, int(total))[own_rows(int(total))]

    def _numbers(self, n: int, count: int) -> Tensor:
        """As :meth:`numbers`, for the samples of all processes."""
        return torch.randint(n, (count,), generator=self.generator)

    def draw(self, batch: TargetsCase) -> list[tuple[str, Case]]:
        """Samples of the other tasks for a batch of recommendations.

        Args:
            batch: among whose targets ``fusionseqrec`` draws; the rows of this process.

        Returns:
            Names of tasks, each with the samples of this process.
        """
        drawn: list[tuple[str, Case]] = []
        batch = whole_batch(batch)
        targets = batch.is_target.nonzero()  # [P, 2]
        for task, share in self.per_target.items():
            expected = share * len(targets)
            rounds_up = torch.rand((), generator=self.generator) < expected % 1
            count = int(expected) + int(rounds_up)
            if count:
                drawn.append((task, own_samples(self._case(task, count, batch, targets))))
        return drawn

    def _case(self, task: str, count: int, batch: TargetsCase, targets: Tensor) -> Case:
        """Draw samples of a task.

        Args:
            task: name of the task.
            count: how many samples are drawn.
            batch: the recommendations of the whole batch.
            targets: row and position of their targets ``[P, 2]``.
        """
        device = targets.device
        if task == "fusionseqrec":
            numbers = self._numbers(len(targets), count).to(device)
            row, position = targets[numbers].unbind(1)  # [count]
            user = None
            if batch.user is not None:
                user = batch.user[row]
            history = batch.history[row, : int(position.max()) + 1]
            return HistoryCase(batch.following[row, position], history, position + 1, user=user)
        if task in USER_TASKS:
            numbers = self._numbers(len(self.people.item), count)
            return self.people.pick(numbers, device)
        numbers = self._numbers(len(self.items), count)
        return Case(self.items[numbers].to(device))


def check_tasks(tasks: Sequence[str], weights: dict) -> None:
    """Refuse tasks or weights that do not exist or cannot be trained.

    Args:
        tasks: the key ``tasks``.
        weights: the key ``task_weights``.

    Raises:
        ConfigError: names the first fault.
    """
    for key, names in (("tasks", tasks), ("task_weights", weights)):
        unknown = sorted(set(names) - set(FORMS))
        if unknown:
            raise ConfigError(f"{key} names {unknown[0]!r}; the tasks are {', '.join(FORMS)}.")
    are_weights = all(
        isinstance(weight, (int, float)) and weight >= 0 for weight in weights.values()
    )
    recommends = "seqrec" in tasks and weights.get("seqrec", 1)
    if not are_weights or not recommends:
        raise ConfigError(
            f"tasks {list(tasks)} with task_weights {weights} cannot be trained: weights are "
            "numbers from 0 on, and seqrec, the task that recommends, must be there with a weight "
            "above 0."
        )
