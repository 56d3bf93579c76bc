"""Which samples of LC-Rec's tasks (arXiv 2311.09049) enter a batch, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from recbole_genrec.data.user_text import KINDS, read_user_texts
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lcrec.instructions import Case
from recbole_genrec.model.lcrec.templates import FORMS, TEXT_TASKS, USER_TASKS

FUSION_SHARE = 0.15  # samples of fusionseqrec for one training target: the release takes 20,000 of 131,837 on Instruments


class TaskMixture:
    """Draws samples of the tasks beside ``seqrec``, in proportion to their natural numbers times ``task_weights``.

    Natural numbers: one sample for each item (``item2index``, ``index2item``) or user with texts (``itemsearch``, ``preferenceobtain``),
    and for a share of the training targets (``fusionseqrec``). Everything drawn comes from training rows, item texts and user texts.

    Args:
        config, dataset: of the model; the dataset holds the training rows.
        has_text: whether the items have texts.
        log: where notices go.

    Attributes:
        tasks: the active ones. people: samples of the users with texts, as one :class:`Case`, and their texts by kind; or empty.
    """

    def __init__(self, config, dataset, has_text: bool, log: Callable[[str], None]):
        self.config, rows = config, dataset.inter_feat
        user, item, length = dataset.uid_field, dataset.iid_field, dataset.item_list_length_field
        history = f"{item}{config['LIST_SUFFIX']}"
        self.people: dict = {}
        path = config["user_text_file"]
        if set(USER_TASKS) & set(config["tasks"]) and path and Path(path).is_file():
            texts = read_user_texts(path, dataset.field2id_token[user])
            self._set_people(rows[user], rows[item], rows[history], rows[length], texts)
        self.tasks = self._active(has_text, log)
        self.generator = torch.Generator().manual_seed(config["seed"])
        trained = torch.cat([rows[item], rows[history].flatten()]).unique()
        self.items = (
            torch.arange(1, dataset.item_num) if config["align_new_items"] else trained[trained > 0]
        )
        targets = len(rows) if config["train_rows"] == "all" else int(rows[length].sum())
        self.per_target = self._per_target(targets)

    def _set_people(
        self,
        user: Tensor,
        item: Tensor,
        history: Tensor,
        length: Tensor,
        texts: dict[int, dict[str, str]],
    ) -> None:
        """The longest training row of each user with texts: ``query`` asks for its target, ``preference`` is told by its history, which
        lacks the last three items of the data."""
        last_row = {
            number: row for row, number in enumerate(user.tolist())
        }  # rows of a user: shortest prefix first
        known = [number for number in texts if number in last_row]
        rows = torch.tensor([last_row[number] for number in known], dtype=torch.long)
        case = Case(
            item[rows],
            history[rows],
            length[rows],
            person=torch.arange(len(known)),
            user=user[rows],
        )
        self.people = (
            {"case": case, **{kind: [texts[number][kind] for number in known] for kind in KINDS}}
            if known
            else {}
        )

    def _active(self, has_text: bool, log: Callable[[str], None]) -> list[str]:
        off = (
            {}
            if has_text
            else dict.fromkeys(TEXT_TASKS, "there is no item text (item_text_fields)")
        )
        if not self.people:
            off |= dict.fromkeys(
                USER_TASKS,
                f"there are no user texts (user_text_file: {self.config['user_text_file'] or '~'})",
            )
        for task in (task for task in self.config["tasks"] if task in off):
            log(f"Task {task} is off: {off[task]}.")
        weights = self.config["task_weights"]
        tasks = [
            task
            for task in FORMS
            if task in self.config["tasks"] and task not in off and weights.get(task, 1) > 0
        ]
        log(f"Tasks: {', '.join(tasks)}")
        return tasks

    def _per_target(self, targets: int) -> dict[str, float]:
        """Samples of each other task for one of ``seqrec``."""
        people, weights = len(self.people.get("query", ())), self.config["task_weights"]
        natural = {
            "item2index": len(self.items),
            "index2item": len(self.items),
            "fusionseqrec": FUSION_SHARE * targets,
        }
        natural |= dict.fromkeys(USER_TASKS, people)
        of_seqrec = weights.get("seqrec", 1) * targets
        return {
            task: weights.get(task, 1) * natural[task] / of_seqrec
            for task in self.tasks
            if task != "seqrec"
        }

    def start_epoch(self, epoch: int) -> None:
        """Draws depend on seed and epoch only, so that a resumed run goes on alike."""
        self.generator.manual_seed((self.config["seed"] << 20) + epoch + 1)

    def numbers(self, n: int, count: int) -> Tensor:
        """``[count]`` draws from 0 .. n - 1, on the CPU."""
        return torch.randint(n, (count,), generator=self.generator)

    def draw(self, batch: Case) -> list[tuple[str, Case]]:
        """Samples of the other tasks for a batch with its ``following`` and ``wanted``, among which ``fusionseqrec`` draws."""
        drawn, places = [], batch.wanted.nonzero()
        for task, share in self.per_target.items():
            expected = share * len(places)
            count = int(expected) + int(torch.rand((), generator=self.generator) < expected % 1)
            if count:
                drawn.append((task, self._case(task, count, batch, places)))
        return drawn

    def _case(self, task: str, count: int, batch: Case, places: Tensor) -> Case:
        if task == "fusionseqrec":
            row, slot = places[self.numbers(len(places), count).to(places.device)].unbind(1)
            user = None if batch.user is None else batch.user[row]
            return Case(
                batch.following[row, slot],
                batch.history[row, : int(slot.max()) + 1],
                slot + 1,
                user=user,
            )
        if task in USER_TASKS:
            return self.people["case"].pick(
                self.numbers(len(self.people["query"]), count), places.device
            )
        return Case(self.items[self.numbers(len(self.items), count)].to(places.device))


def check_tasks(tasks: Sequence[str], weights: dict) -> None:
    """:class:`ConfigError` for tasks or weights that do not exist or cannot be trained."""
    for key, names in (("tasks", tasks), ("task_weights", weights)):
        unknown = sorted(set(names) - set(FORMS))
        if unknown:
            raise ConfigError(f"{key} names {unknown[0]!r}; the tasks are {', '.join(FORMS)}.")
    numbers = [isinstance(weight, (int, float)) and weight >= 0 for weight in weights.values()]
    if not all(numbers) or "seqrec" not in tasks or weights.get("seqrec", 1) <= 0:
        raise ConfigError(
            f"tasks {list(tasks)} with task_weights {weights} cannot be trained: weights are numbers from 0 on, and seqrec, the task that "
            "recommends, must be there with a weight above 0."
        )
