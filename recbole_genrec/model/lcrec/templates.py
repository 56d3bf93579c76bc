"""Instruction templates of LC-Rec (arXiv 2311.09049): six families of tasks, read from one file and tokenised once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_genrec.errors import BackboneError, ConfigError

# task -> what an ask may be made of, and what then answers it
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


@dataclass(frozen=True)
class Template:
    """One way to ask: ``pieces[0] slots[0] pieces[1] .. slots[-1]``, then ``closing``, then the answer; token ids ``[w]``."""

    slots: tuple[str, ...]
    pieces: tuple[Tensor, ...]
    closing: Tensor
    answer: str


class Templates:
    """The tokenised content of a prompt file such as ``properties/prompts/lcrec.yaml``.

    Args:
        content: the file's ``header``, ``response``, ``separator`` and ``tasks``.
        text_tokenizer: of the language model; needs an end token, and its start token opens every prompt if it has one.

    Attributes:
        tasks: templates of each task. separator: ids between the items of a history. end: id of the end token.

    Raises:
        ConfigError: the file lacks something, or a template has slots that its task cannot fill. BackboneError: no end token.
    """

    def __init__(self, content: dict, text_tokenizer):
        check_prompts(content)
        if text_tokenizer.eos_token_id is None:
            raise BackboneError(
                "The backbone's tokenizer has no end token (eos_token), so no response could end. Set eos_token in its "
                "tokenizer_config.json, or choose another backbone."
            )
        self._tokenizer, self.end = text_tokenizer, text_tokenizer.eos_token_id
        start = [] if text_tokenizer.bos_token_id is None else [text_tokenizer.bos_token_id]
        self.separator = self._ids(content["separator"])
        header, response = (
            torch.tensor(start + self._ids(content["header"]).tolist(), dtype=torch.long),
            self._ids(content["response"]),
        )
        self.tasks = {
            task: [
                self._template(entry["ask"], entry["answer"], header, response) for entry in entries
            ]
            for task, entries in content["tasks"].items()
        }

    def _template(self, ask: str, answer: str, header: Tensor, response: Tensor) -> Template:
        *pieces, closing = (self._ids(piece) for piece in _SLOT.split(ask)[::2])
        pieces[0] = torch.cat([header, pieces[0]])
        return Template(
            tuple(_SLOT.findall(ask)),
            tuple(pieces),
            torch.cat([closing, response]),
            *_SLOT.findall(answer),
        )

    def _ids(self, text: str) -> Tensor:
        """Tokens of a piece; a space at its end belongs to what fills the slot."""
        return torch.tensor(
            self._tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"], dtype=torch.long
        )


_SLOT = re.compile(r"\{(\w+)\}")


def pieces_of(content: dict) -> Iterator[str]:
    """Every text between slots; what a vocabulary from scratch is trained on beside the item texts."""
    check_prompts(content)
    yield from (content["header"], content["response"], content["separator"])
    for entries in content["tasks"].values():
        for entry in entries:
            yield from filter(None, (piece.rstrip() for piece in _SLOT.split(entry["ask"])[::2]))


def check_prompts(content: dict) -> None:
    """:class:`ConfigError` that names the first fault of a prompt file."""
    for key, kind in (("header", str), ("response", str), ("separator", str), ("tasks", dict)):
        if not isinstance(content.get(key), kind) or not content[key]:
            raise ConfigError(
                f"The prompt file needs {key!r} ({'text' if kind is str else 'templates by task'})."
            )
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
    if (
        not isinstance(entry, dict)
        or set(entry) != {"ask", "answer"}
        or not all(isinstance(part, str) for part in entry.values())
    ):
        raise ConfigError(
            f"{name} is {entry!r}; it must be {{ask: text with {{slots}}, answer: one {{slot}}}}."
        )
    slots, answer = _SLOT.findall(entry["ask"]), entry["answer"].strip()
    fits = any(
        slots and set(slots) <= asks and answer in {f"{{{word}}}" for word in answers}
        for asks, answers in FORMS[task]
    )
    if not fits or len(set(slots)) < len(slots):
        known = " or ".join(
            f"{_names(asks)} answered by {_names(answers)}" for asks, answers in FORMS[task]
        )
        raise ConfigError(
            f"{name} asks with {_names(slots)} and answers with {answer!r}; {task} asks with {known}, each slot once."
        )


def _names(slots) -> str:
    return ", ".join(f"{{{slot}}}" for slot in sorted(slots)) or "no slot"
