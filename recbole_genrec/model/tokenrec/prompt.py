"""Encoder input of TokenRec, put together from ids.

The words of a template stand around the tokens of a user and of the history's items. Token ids are
0 = padding and decoder start, 1 = end, the words, one sub-vocabulary for each book of the item
codes, one for each book of the user codes::

    [prefix] [user marker] u_1 .. u_K [middle] { [item marker] i_1 .. i_K } per item [suffix] [end]

Only words that a prompt contains have an id, whatever the vocabulary that they come from: the other
rows would never be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import compose, length_mask, pad_rows, whole
from recbole_genrec.errors import ConfigError

PAD = 0
END = 1
FIRST_WORD = 2
TEMPLATE = re.compile(r"(?P<prefix>[^{}]*)\{user\}(?P<middle>[^{}]*)(\{items\}(?P<suffix>[^{}]*))?")


class Template(NamedTuple):
    """The words of a template.

    Attributes:
        prefix: before the user.
        middle: between the user and the items.
        suffix: after the items; ``None`` = the template shows no items.
    """

    prefix: str
    middle: str
    suffix: str | None


class WordIds:
    """Ids of the words in use, in the order in which they come up.

    Args:
        tokenise: text -> tokens of the backbone's text vocabulary.

    Attributes:
        words: these tokens; ``words[n]`` has id ``n + FIRST_WORD``.
    """

    def __init__(self, tokenise: Callable[[str], Sequence[Hashable]]) -> None:
        self._tokenise = tokenise
        self._ids: dict[Hashable, int] = {}

    def __call__(self, text: str) -> list[int]:
        """Ids of the words of ``text``; new words get the next ids."""
        ids = []
        for token in self._tokenise(text):
            ids.append(self._ids.setdefault(token, FIRST_WORD + len(self._ids)))
        return ids

    @property
    def words(self) -> list[Any]:
        """The words by id."""
        return list(self._ids)


class Prompts(nn.Module):
    """The templates of ``properties/prompts/tokenrec.yaml`` as tensors.

    Args:
        texts: content of that file.
        tokenise: text -> tokens of the backbone's text vocabulary.
        item_sizes: alphabet size of each book of the item codes.
        user_sizes: the same of the user codes.
        source_len: longest encoder input, in tokens.
        dec_len: length of the decoder input, in tokens.

    Attributes:
        words: the text vocabulary's tokens in use; ``words[n]`` has id ``n + FIRST_WORD``.
        n_tokens: rows that an embedding table needs.
        seen: numbers of the templates with a history that training draws from.
        user_only: numbers of those without a history.
        unseen: number of the template that is never trained.

    Raises:
        ConfigError: ``source_len`` leaves no room for an item, or a template has another form.
    """

    prefix_ids: Tensor
    prefix_valid: Tensor
    middle_ids: Tensor
    middle_valid: Tensor
    suffix_ids: Tensor
    suffix_valid: Tensor
    decoder_ids: Tensor
    item_marker: Tensor
    has_items: Tensor
    first_item: Tensor
    first_user: Tensor
    room: Tensor

    def __init__(
        self,
        texts: dict,
        tokenise: Callable[[str], Sequence[Hashable]],
        item_sizes: Sequence[int],
        user_sizes: Sequence[int],
        source_len: int,
        dec_len: int,
    ) -> None:
        super().__init__()
        ids = WordIds(tokenise)
        templates = [_template(text) for text in (*texts["seen"], texts["unseen"])]
        templates += [_template(text) for text in texts["user_only"]]
        self.unseen = len(texts["seen"])
        self.seen = range(self.unseen)
        self.user_only = range(self.unseen + 1, len(templates))

        user_marker = ids(texts["user_marker"])
        item_marker = ids(texts["item_marker"])
        rows = {
            "prefix": [ids(template.prefix) + user_marker for template in templates],
            "middle": [ids(template.middle) for template in templates],
            "suffix": [ids(template.suffix or "") + [END] for template in templates],
        }
        for name, row in rows.items():
            tokens, valid = pad_rows(row)
            self._constant(f"{name}_ids", tokens)
            self._constant(f"{name}_valid", valid)
        sentence = [PAD, *ids(texts["decoder"]), END]
        self._constant("decoder_ids", torch.tensor((sentence + [PAD] * dec_len)[:dec_len]))
        self._constant("item_marker", torch.tensor(item_marker, dtype=torch.long))
        shows_items = [template.suffix is not None for template in templates]
        self._constant("has_items", torch.tensor(shows_items))
        self.words = ids.words

        # The codes' sub-vocabularies follow the words.
        starts = torch.tensor([0, *item_sizes, *user_sizes]).cumsum(0)
        starts += FIRST_WORD + len(self.words)
        self._constant("first_item", starts[: len(item_sizes)])
        self._constant("first_user", starts[len(item_sizes) : -1])
        self.n_tokens = int(starts[-1])

        lengths = [sum(map(len, row)) for row in zip(*rows.values(), strict=True)]
        fixed = torch.tensor(lengths) + len(user_sizes)  # tokens beside the items
        room = (source_len - fixed) // (len(item_marker) + len(item_sizes))
        if int(room[self.has_items].min()) < 1:
            raise ConfigError(
                f"source_len {source_len} leaves no room for an item beside {int(fixed.max())} "
                "tokens of template and user."
            )
        self._constant("room", room)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def shown(self, template: Tensor, length: Tensor, slots: int) -> Tensor:
        """Which items of each history the prompt shows: the last ones that fit, or none.

        Args:
            template: number of the template, ``[B]``.
            length: items of each history, ``[B]``.
            slots: width of the table of histories.

        Returns:
            bool ``[B, slots]``.
        """
        hidden = length_mask(length - self.room[template], slots)  # [B, slots]
        fits = length_mask(length, slots) & ~hidden
        return fits & self.has_items[template].unsqueeze(1)

    def source(
        self, template: Tensor, user_codes: Tensor, item_codes: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token ids and mask ``[B, S]``, right-padded, as short as the longest row allows.

        Args:
            template: number of the template, ``[B]``.
            user_codes: ``[B, K]``.
            item_codes: ``[B, T, K]``.
            shown: bool ``[B, T]``, items to show.
        """
        rows, slots = shown.shape
        users = user_codes + self.first_user  # [B, K]
        markers = self.item_marker.expand(rows, slots, -1)
        items = torch.cat([markers, item_codes + self.first_item], dim=-1)  # [B, T, marker + K]
        ids, lengths = compose(
            (self.prefix_ids[template], self.prefix_valid[template]),
            whole(users),
            (self.middle_ids[template], self.middle_valid[template]),
            (items.flatten(1), shown.repeat_interleave(items.shape[-1], dim=1)),
            (self.suffix_ids[template], self.suffix_valid[template]),
        )
        return ids, length_mask(lengths, ids.shape[1])


def _template(text: str) -> Template:
    match = TEMPLATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"The prompt {text!r} must hold {{user}} once and after it {{items}} at most once."
        )
    return Template(match["prefix"], match["middle"], match["suffix"])
