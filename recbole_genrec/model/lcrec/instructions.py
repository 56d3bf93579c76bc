"""Prompts and responses of LC-Rec (arXiv 2311.09049) as token ids, put together from item ids through the present code table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_genrec.backbone import TextTable, compose, constant
from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.errors import BackboneError
from recbole_genrec.model.lcrec.templates import LISTS, Template, Templates

IGNORED = -100


@dataclass(frozen=True)
class Case:
    """What fills the slots of n prompts of one task.

    ``item [n]``: the item that is described or comes next. ``history [n, T]`` and ``length [n]``: items before it, right-padded.
    ``following [n, T]``: the item after each position of the history. ``wanted [n, T]``: bool, those of them that are targets.
    ``person [n]``: row of the user texts. ``user [n]``: RecBole's user ids, for messages.
    """

    item: Tensor
    history: Tensor | None = None
    length: Tensor | None = None
    following: Tensor | None = None
    wanted: Tensor | None = None
    person: Tensor | None = None
    user: Tensor | None = None

    def pick(self, rows: Tensor, device: torch.device) -> Case:
        """Some of the prompts, by their ``rows [m]``."""
        return replace(
            self,
            **{
                name: value[rows].to(device)
                for name, value in vars(self).items()
                if value is not None
            },
        )


class Instructions(nn.Module):
    """Fills templates.

    Args:
        templates: the tokenised prompt file.
        codes_of: items ``[...]`` -> token ids of their codes ``[..., L]``, by the present code table.
        limit: tokens of the longest sequence, response and end token included.

    Sequences that are too long lose the oldest items of their history, never a part of an item.
    """

    def __init__(self, templates: Templates, codes_of: Callable[[Tensor], Tensor], limit: int):
        super().__init__()
        self.templates, self.codes_of, self.limit = templates, codes_of, limit
        self.register_buffer("end", torch.tensor([templates.end]), persistent=False)
        self.texts = nn.ModuleDict()
        self.user_names: Sequence[str] = ()

    def set_texts(self, text_tokenizer, texts: dict[str, list[str]], max_length: int) -> None:
        """Tokenise the texts by slot; those that are there already stay.

        Args:
            text_tokenizer: of the language model.
            texts: ``title`` and ``text`` by item id, ``preference`` and ``query`` by person.
            max_length: tokens that are kept of each text.
        """
        for slot, lines in texts.items():
            spaced = [f" {line}" if line else "" for line in lines]
            if slot not in self.texts:
                table = TextTable(text_tokenizer, spaced, max_length)
                self.texts[slot] = table.to(self.end.device)
            else:
                self.texts[slot].append(spaced[len(self.texts[slot]) :])

    # --- slots ----------------------------------------------------------------------------------------------------------------------

    def _words(self, slot: str, rows: Tensor) -> Segment:
        return self.texts[slot](rows)

    def fill(self, slot: str, case: Case) -> Segment:
        """Ids and validity ``[n, w]`` of a slot that is no list."""
        if slot == "index":
            codes = self.codes_of(case.item)
            return codes, torch.ones_like(codes, dtype=torch.bool)
        return self._words(slot, case.person if slot in ("preference", "query") else case.item)

    def listing(self, slot: str, case: Case, room: Tensor) -> Segment:
        """Ids and validity ``[n, T, w]`` of a history: what is shown of each item with the separator before it.

        The latest items that fit into ``room [n]`` tokens are shown, at least one.
        """
        if slot == "history":
            ids = self.codes_of(case.history)
            valid = torch.ones_like(ids, dtype=torch.bool)
        else:
            ids, valid = self._words("title", case.history)
        separator = self.templates.separator.to(ids.device)
        slots = torch.arange(ids.shape[1], device=ids.device)
        present = slots < case.length.unsqueeze(1)
        cost = (valid.sum(-1) + len(separator)) * present
        from_here = cost.flip(1).cumsum(1).flip(1) - len(separator)
        kept = present & (
            (from_here <= room.unsqueeze(1)) | (slots == case.length.unsqueeze(1) - 1)
        )
        not_first = kept & pad(kept[:, :-1], (1, 0))
        ids = torch.cat([separator.expand(*ids.shape[:2], -1), ids], dim=-1)
        return ids, torch.cat(
            [not_first.unsqueeze(-1).expand(-1, -1, len(separator)), valid & kept.unsqueeze(-1)],
            dim=-1,
        )

    # --- sequences ------------------------------------------------------------------------------------------------------------------

    def trunk(
        self, template: Template, case: Case, answer: Tensor
    ) -> tuple[list[Segment], Tensor | None]:
        """Segments up to the last slot, and the validity ``[n, T, w]`` of the history among them, if there is one.

        ``answer [n]``: tokens of the response.
        """
        rows, device = len(case.item), case.item.device
        segments: list[Segment | None] = []
        for piece, slot in zip(template.pieces, template.slots, strict=True):
            segments += [
                constant(piece.to(device), rows),
                None if slot in LISTS else self.fill(slot, case),
            ]
        room = (
            self.limit
            - len(template.closing)
            - answer
            - sum(segment[1].sum(1) for segment in segments if segment)
        )
        if None not in segments:
            self._check(room, case)
            return segments, None
        at = segments.index(None)
        ids, shown = self.listing(template.slots[at // 2], case, room)
        segments[at] = ids.flatten(1), shown.flatten(1)
        self._check(room - shown.sum((1, 2)), case)
        return segments, shown

    def prompts(self, template: Template, case: Case, answer: int) -> tuple[Tensor, Tensor]:
        """Ids ``[n, S]``, right-padded, and lengths ``[n]`` of everything before a response of up to ``answer`` tokens."""
        segments, _ = self.trunk(template, case, torch.full_like(case.item, answer))
        return compose(*segments, constant(template.closing.to(case.item.device), len(case.item)))

    def sequences(self, template: Template, case: Case) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts with their responses: ids and labels ``[n, S]``, right-padded, and lengths ``[n]``.

        The label of a response token is its id, every other one is -100.
        """
        rows, answer = len(case.item), self.fill(template.answer, case)
        tokens = answer[1].sum(1) + 1
        segments, _ = self.trunk(template, case, tokens)
        closing = constant(template.closing.to(case.item.device), rows)
        ids, lengths = compose(*segments, closing, answer, constant(self.end, rows))
        from_end = lengths.unsqueeze(1) - torch.arange(ids.shape[1], device=ids.device)
        return (
            ids,
            torch.where((from_end > 0) & (from_end <= tokens.unsqueeze(1)), ids, IGNORED),
            lengths,
        )

    def tree(self, template: Template, case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sequences of every beginning of each history, which share what they have in common.

        Args:
            template: one whose last slot is the history. case: with ``following`` and ``wanted``.

        Returns:
            Trunk ids ``[n, S]``; branch ids ``[n, T, W]``: closing, codes of the following item, end; how many tokens of its trunk a
            branch continues ``[n, T]``; labels ``[n, T, W]``.
        """
        answer = pad(self.codes_of(case.following), (0, 1), value=int(self.templates.end))
        segments, shown = self.trunk(
            template, case, case.length.new_full(case.length.shape, answer.shape[-1])
        )
        ids, lengths = compose(*segments)
        tokens = shown.sum(-1)
        attach = lengths.unsqueeze(1) - (tokens.flip(1).cumsum(1).flip(1) - tokens)
        wanted = case.wanted & (tokens > 0)
        closing = template.closing.to(ids.device).expand(*wanted.shape, -1)
        labels = torch.cat([torch.full_like(closing, IGNORED), answer], dim=-1).masked_fill(
            ~wanted.unsqueeze(-1), IGNORED
        )
        return ids, torch.cat([closing, answer], dim=-1), attach * wanted, labels

    def _check(self, left: Tensor, case: Case) -> None:
        """:class:`BackboneError` for the first sequence for which no room is ``left [n]``."""
        over = (left < 0).nonzero()
        if not len(over):
            return
        row = int(over[0])
        known = case.user is not None and len(self.user_names)
        whose = (
            f"of user {str(self.user_names[int(case.user[row])])!r}"
            if known
            else f"about the item with id {int(case.item[row])}"
        )
        raise BackboneError(
            f"The prompt {whose} and its response need {self.limit - int(left[row])} tokens even with a single item of history, and "
            f"{self.limit} fit (the smaller one of max_length and the backbone's context). Raise max_length and the context "
            "(max_position_embeddings in backbone_config), lower text_max_len, or shorten the templates (prompt_file)."
        )
