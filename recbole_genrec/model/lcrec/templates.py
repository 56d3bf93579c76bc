"""Instruction templates of LC-Rec (arXiv 2311.09049): six families of tasks.

They are read from one file and tokenised once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import torch
from torch import Tensor

from recbole_genrec.backbone import token_ids
from recbole_genrec.errors import BackboneError, ConfigError

# Task -> which slots may ask, and which slots then answer.
FORMS: dict[str, list[tuple[set[str], set[str]]]] = {
    "seqrec": [({"history"}, {"index"})],
    "item2index": [({"title", "text"}, {"index"})],
    "index2item": [({"index"}, {"title", "text"})],
    "fusionseqrec": [({"history"}, {"title", "text"}), ({"titles"}, {"index"})],
    "itemsearch": [({"history", "query", "preference"}, {"index"})],
    "preferenceobtain": [({"history"}, {"preference"})],
}
TEXT_TASKS = ("item2index", "index2item", "fusionseqrec")
USER_TASKS = ("itemsearch", "preferenceobtain")
LISTS = ("history", "titles")

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """One way to ask: ``pieces[0] slots[0] pieces[1] .. slots[-1]``, then ``closing``, the answer.

    Attributes:
        slots: names of the slots, in their order.
        pieces: token ids ``[w]`` of the text before each slot.
        closing: token ids ``[w]`` of the text after the last slot.
        answer: name of the slot that answers.
    """

    slots: tuple[str, ...]
    pieces: tuple[Tensor, ...]
    closing: Tensor
    answer: str


class Templates:
    """The tokenised content of a prompt file such as ``properties/prompts/lcrec.yaml``.

    Args:
        content: the file's ``header``, ``response``, ``separator`` and ``tasks``.
        text_tokenizer: of the language model. It needs an end token. If it has a start token,
            every prompt begins with it.

    Attributes:
        tasks: templates of each task.
        separator: ids between the items of a history ``[w]``.
        end: id of the end token.

    Raises:
        ConfigError: the file lacks something, or a template has slots that its task cannot fill.
        BackboneError: there is no end token.
    """

    def __init__(self, content: dict, text_tokenizer):
        check_prompts(content)
        if text_tokenizer.eos_token_id is None:
            raise BackboneError(
                "The backbone's tokenizer has no end token (eos_token), so no response could end. "
                "Set eos_token in its tokenizer_config.json, or choose another backbone."
            )
        self._tokenizer = text_tokenizer
        self.end = text_tokenizer.eos_token_id
        self.separator = self._ids(content["separator"])

        header = self._ids(content["header"])
        if text_tokenizer.bos_token_id is not None:
            header = torch.cat([torch.tensor([text_tokenizer.bos_token_id]), header])
        response = self._ids(content["response"])
        self.tasks: dict[str, list[Template]] = {}
        for task, entries in content["tasks"].items():
            self.tasks[task] = [
                self._template(entry["ask"], entry["answer"], header, response) for entry in entries
            ]

    def require(self, tasks: Sequence[str]) -> None:
        """Refuse tasks without templates.

        Args:
            tasks: names of the tasks that are trained.

        Raises:
            ConfigError: names the tasks that the file has no templates for.
        """
        missing = [task for task in tasks if task not in self.tasks]
        if missing:
            raise ConfigError(
                f"The prompt file has no templates for {', '.join(missing)}. "
                "Add some, or leave these tasks out of tasks."
            )

    def _template(self, ask: str, answer: str, header: Tensor, response: Tensor) -> Template:
        texts = SLOT.split(ask)[::2]  # the texts between the slots
        *pieces, closing = [self._ids(text) for text in texts]
        pieces[0] = torch.cat([header, pieces[0]])
        closing = torch.cat([closing, response])
        (answer_slot,) = SLOT.findall(answer)
        return Template(tuple(SLOT.findall(ask)), tuple(pieces), closing, answer_slot)

    def _ids(self, text: str) -> Tensor:
        """Token ids ``[w]`` of a text; a space at its end belongs to what fills the slot."""
        ids = token_ids(self._tokenizer, text.rstrip())
        return torch.tensor(ids, dtype=torch.long)


def with_prompt_set(content: dict, prompt_set: str) -> dict:
    """The content of a prompt file with the templates that ``prompt_set`` names.

    Args:
        content: the file's ``header``, ``response``, ``separator``, ``tasks`` and perhaps
            ``further``: more templates by task.
        prompt_set: ``few``, or ``all`` for those of ``further`` too, behind the others.

    Raises:
        ConfigError: ``further`` holds no lists of templates by task.
    """
    content = dict(content)
    further = content.pop("further", None) or {}
    are_lists = isinstance(further, dict) and all(isinstance(n, list) for n in further.values())
    if not are_lists:
        raise ConfigError("The prompt file needs lists of templates by task under 'further'.")
    if prompt_set == "all" and isinstance(content.get("tasks"), dict):
        tasks = dict(content["tasks"])
        for task, entries in further.items():
            tasks[task] = [*tasks.get(task, []), *entries]
        content["tasks"] = tasks
    return content


def chosen_templates(numbers: list[int] | Literal[0, "all"], count: int) -> list[int]:
    """Numbers of the templates of ``seqrec`` that are tested.

    Args:
        numbers: the key ``test_prompt_ids``.
        count: how many templates there are.

    Raises:
        ConfigError: a template does not exist.
    """
    known = list(range(count))
    if numbers == "all":
        return known
    chosen = numbers or [0]
    if not set(chosen) <= set(known):
        raise ConfigError(f"test_prompt_ids is {chosen}; seqrec has templates 0 to {known[-1]}.")
    return chosen


def pieces_of(content: dict) -> Iterator[str]:
    """Every text between slots, for a vocabulary from scratch.

    Args:
        content: what the prompt file holds.

    Yields:
        The texts, without spaces at their ends.
    """
    check_prompts(content)
    yield content["header"]
    yield content["response"]
    yield content["separator"]
    for entries in content["tasks"].values():
        for entry in entries:
            for text in SLOT.split(entry["ask"])[::2]:
                if text.rstrip():
                    yield text.rstrip()


# --- checks of a prompt file ----------------------------------------------------------------------


def check_prompts(content: dict) -> None:
    """Refuse a prompt file with a fault.

    Args:
        content: what the file holds.

    Raises:
        ConfigError: names the first fault.
    """
    kinds = {"header": str, "response": str, "separator": str, "tasks": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind) or not content[key]:
            needed = "text" if kind is str else "templates by task"
            raise ConfigError(f"The prompt file needs {key!r} ({needed}).")
    unknown = sorted(set(content["tasks"]) - set(FORMS))
    if unknown:
        raise ConfigError(
            f"The prompt file has templates of {unknown[0]!r}; the tasks are {', '.join(FORMS)}."
        )
    for task, entries in content["tasks"].items():
        if not isinstance(entries, list) or not entries:
            raise ConfigError(f"The prompt file needs a list of templates for {task}.")
        for number, entry in enumerate(entries):
            _check_template(f"Template {number} of {task}", task, entry)


def _check_template(name: str, task: str, entry: object) -> None:
    """Refuse a template that is no pair of texts, or whose slots its task cannot fill."""
    if not _is_pair_of_texts(entry):
        raise ConfigError(
            f"{name} is {entry!r}; it must be {{ask: text with {{slots}}, answer: one {{slot}}}}."
        )
    slots = SLOT.findall(entry["ask"])
    answer = entry["answer"].strip()
    has_form = any(_fits(slots, answer, asks, answers) for asks, answers in FORMS[task])
    repeats = len(set(slots)) < len(slots)
    if repeats or not has_form:
        forms = " or ".join(
            f"{_listed(asks)} answered by {_listed(answers)}" for asks, answers in FORMS[task]
        )
        raise ConfigError(
            f"{name} asks with {_listed(slots)} and answers with {answer!r}; "
            f"{task} asks with {forms}, each slot once."
        )


def _is_pair_of_texts(entry: object) -> TypeGuard[dict[str, str]]:
    if not isinstance(entry, dict) or set(entry) != {"ask", "answer"}:
        return False
    return all(isinstance(text, str) for text in entry.values())


def _fits(slots: Sequence[str], answer: str, asks: set[str], answers: set[str]) -> bool:
    """Whether the slots of a template are those of one form of its task."""
    answers_in_braces = {f"{{{slot}}}" for slot in answers}
    return bool(slots) and set(slots) <= asks and answer in answers_in_braces


def _listed(slots) -> str:
    return ", ".join(f"{{{slot}}}" for slot in sorted(slots)) or "no slot"
