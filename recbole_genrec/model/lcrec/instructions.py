"""Prompts and responses of LC-Rec (arXiv 2311.09049) as token ids.

They are built from item ids through the present code table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_genrec.backbone import TextTable, compose, constant, whole
from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.errors import BackboneError
from recbole_genrec.model.lcrec.cases import Case, HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.templates import LISTS, Template, Templates

IGNORED = -100  # label of a token that is no target


class Instructions(nn.Module):
    """Fills templates.

    Sequences that are too long lose the oldest items of their history, never a part of an item.

    Args:
        templates: the tokenised prompt file.
        codes_of: items ``[...]`` -> token ids of their codes ``[..., L]``, by the present table.
        limit: tokens of the longest sequence, response and end token included.
    """

    end: Tensor

    def __init__(self, templates: Templates, codes_of: Callable[[Tensor], Tensor], limit: int):
        super().__init__()
        self.templates = templates
        self.codes_of = codes_of
        self.limit = limit
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
                cast(TextTable, self.texts[slot]).extend_to(spaced)

    # --- sequences --------------------------------------------------------------------------------

    def prompts(self, template: Template, case: Case, max_answer: int) -> tuple[Tensor, Tensor]:
        """Everything before the response.

        Args:
            template: how to ask.
            case: what fills it, ``n`` prompts.
            max_answer: tokens of the longest response.

        Returns:
            Ids ``[n, S]``, right-padded, and lengths ``[n]``.
        """
        answer_lengths = torch.full_like(case.item, max_answer)
        segments, _ = self._trunk(template, case, answer_lengths)
        return compose(*segments, self._closing(template, case))

    def sequences(self, template: Template, case: Case) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts with their responses.

        Args:
            template: how to ask.
            case: what fills it, ``n`` prompts.

        Returns:
            Ids and labels ``[n, S]``, right-padded, and lengths ``[n]``. The label of a response
            token is its id, every other label is -100.
        """
        answer = self._fill(template.answer, case)
        answer_lengths = (answer[1].sum(1) + 1).unsqueeze(1)  # [n, 1], with the end token
        segments, _ = self._trunk(template, case, answer_lengths.squeeze(1))
        end = constant(self.end, len(case.item))
        ids, lengths = compose(*segments, self._closing(template, case), answer, end)

        from_end = lengths.unsqueeze(1) - torch.arange(ids.shape[1], device=ids.device)  # [n, S]
        is_response = (from_end > 0) & (from_end <= answer_lengths)
        return ids, torch.where(is_response, ids, IGNORED), lengths

    def tree(self, template: Template, case: TargetsCase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sequences of every beginning of each history, which share what they have in common.

        Args:
            template: one whose last slot is the history.
            case: what fills it, ``n`` histories.

        Returns:
            Trunk ids ``[n, S]``; branch ids ``[n, T, W]``: closing, codes of the following item,
            end; how many tokens of its trunk a branch continues ``[n, T]``; labels ``[n, T, W]``.
        """
        answer = pad(self.codes_of(case.following), (0, 1), value=int(self.templates.end))
        answer_lengths = case.length.new_full(case.length.shape, answer.shape[-1])
        segments, shown = self._trunk(template, case, answer_lengths)
        ids, lengths = compose(*segments)

        # A branch continues its trunk up to its item: the tokens of later items are cut off.
        n_tokens = shown.sum(-1)  # [n, T]
        n_later = n_tokens.flip(1).cumsum(1).flip(1) - n_tokens
        attach = lengths.unsqueeze(1) - n_later
        is_target = case.is_target & (n_tokens > 0)

        closing = template.closing.to(ids.device).expand(*is_target.shape, -1)  # [n, T, w]
        branches = torch.cat([closing, answer], dim=-1)
        labels = torch.cat([torch.full_like(closing, IGNORED), answer], dim=-1)
        labels = labels.masked_fill(~is_target.unsqueeze(-1), IGNORED)
        return ids, branches, attach * is_target, labels

    def _trunk(
        self, template: Template, case: Case, answer_lengths: Tensor
    ) -> tuple[list[Segment], Tensor]:
        """Segments up to the last slot.

        Args:
            template: how to ask.
            case: what fills it, ``n`` prompts.
            answer_lengths: tokens of the responses ``[n]``.

        Returns:
            The segments, and the validity ``[n, T, w]`` of the history among them; without one T
            is 0.
        """
        n_rows = len(case.item)
        device = case.item.device
        segments: list[Segment] = []
        place = None  # of the history, which takes the remaining room
        for piece, slot in zip(template.pieces, template.slots, strict=True):
            segments.append(constant(piece.to(device), n_rows))
            if slot in LISTS:
                place = len(segments)
            else:
                segments.append(self._fill(slot, case))
        room = self.limit - len(template.closing) - answer_lengths  # [n]
        for _, valid in segments:
            room = room - valid.sum(1)

        shown = torch.zeros(n_rows, 0, 0, dtype=torch.bool, device=device)
        if place is not None:
            ids, shown = self._listing(template.slots[place // 2], case, room)
            segments.insert(place, (ids.flatten(1), shown.flatten(1)))
        self._check_room(room - shown.sum((1, 2)), case)
        return segments, shown

    def _closing(self, template: Template, case: Case) -> Segment:
        return constant(template.closing.to(case.item.device), len(case.item))

    # --- slots ------------------------------------------------------------------------------------

    def _fill(self, slot: str, case: Case) -> Segment:
        """Ids and validity ``[n, w]`` of a slot that is no list."""
        if slot == "index":
            return whole(self.codes_of(case.item))
        if slot in ("preference", "query"):
            return self.texts[slot](case.person)
        return self.texts[slot](case.item)

    def _listing(self, slot: str, case: Case, room: Tensor) -> Segment:
        """A history: each item with the separator before it.

        The latest items that fit into the room are shown, at least one.

        Args:
            slot: ``history`` for codes, ``titles`` for titles.
            case: a :class:`HistoryCase`, ``n`` histories.
            room: tokens that the history may take ``[n]``.

        Returns:
            Ids and validity ``[n, T, w]``.
        """
        assert isinstance(case, HistoryCase)
        if slot == "history":
            ids, valid = whole(self.codes_of(case.history))  # [n, T, L]
        else:
            ids, valid = self.texts["title"](case.history)
        separator = self.templates.separator.to(ids.device)
        width = len(separator)

        # An item is shown if the tokens from it to the last item fit.
        slots = torch.arange(ids.shape[1], device=ids.device)
        length = case.length.unsqueeze(1)
        is_item = slots < length  # [n, T]
        cost = (valid.sum(-1) + width) * is_item
        cost_from_here = cost.flip(1).cumsum(1).flip(1) - width
        fits = cost_from_here <= room.unsqueeze(1)
        is_shown = is_item & (fits | (slots == length - 1))

        # The first item that is shown has no separator before it.
        has_separator = is_shown & pad(is_shown[:, :-1], (1, 0))
        separators = separator.expand(*ids.shape[:2], -1)  # [n, T, width]
        separators_valid = has_separator.unsqueeze(-1).expand(-1, -1, width)
        items_valid = valid & is_shown.unsqueeze(-1)
        return (
            torch.cat([separators, ids], dim=-1),
            torch.cat([separators_valid, items_valid], dim=-1),
        )

    def _check_room(self, left: Tensor, case: Case) -> None:
        """Refuse sequences that are too long.

        Args:
            left: tokens that are left in each sequence ``[n]``; negative = too long.
            case: what the sequences are about.

        Raises:
            BackboneError: names the first sequence that is too long.
        """
        over = (left < 0).nonzero()
        if not len(over):
            return
        row = int(over[0])
        if case.user is not None and len(self.user_names):
            name = str(self.user_names[int(case.user[row])])
            subject = f"of user {name!r}"
        else:
            subject = f"about the item with id {int(case.item[row])}"
        needed = self.limit - int(left[row])
        raise BackboneError(
            f"The prompt {subject} and its response need {needed} tokens even with a single item "
            f"of history, and {self.limit} fit (the smaller one of max_length and the backbone's "
            "context). Raise max_length and the context (max_position_embeddings in "
            "backbone_config), lower text_max_len, or shorten the templates (prompt_file)."
        )
