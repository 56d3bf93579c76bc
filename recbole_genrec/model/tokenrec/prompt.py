"""Encoder input of TokenRec: the words of a template around the tokens of a user and of the history's items, put together from ids.

Token ids are 0 = padding and decoder start, 1 = end, the words, one sub-vocabulary for each book of the item codes, one for each book of
the user codes::

    [prefix] [user marker] u_1 .. u_K [middle] { [item marker] i_1 .. i_K } per item [suffix] [end]

Only words that a prompt contains have an id, whatever the vocabulary that they come from: the other rows would never be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import compose, pad_rows
from recbole_genrec.errors import ConfigError

PAD, END = 0, 1
TEMPLATE = re.compile(r"(?P<prefix>[^{}]*)\{user\}(?P<middle>[^{}]*)(\{items\}(?P<suffix>[^{}]*))?")


class Prompts(nn.Module):
    """The templates of ``properties/prompts/tokenrec.yaml`` as tensors.

    Args:
        texts: content of that file.
        tokenise: text -> tokens of the backbone's text vocabulary.
        item_sizes: alphabet size of each book of the item codes. user_sizes: the same of the user codes.
        source_len: longest encoder input. dec_len: length of the decoder input.

    Attributes:
        words: the text vocabulary's tokens in use; ``words[n]`` has id ``n + 2``.
        n_tokens: rows that an embedding table needs.
        seen: numbers of the templates with a history that training draws from. user_only: of those without a history.
        unseen: number of the template that is never trained.
    """

    def __init__(
        self,
        texts: dict,
        tokenise: Callable[[str], Sequence[Hashable]],
        item_sizes: Sequence[int],
        user_sizes: Sequence[int],
        source_len: int,
        dec_len: int,
    ):
        super().__init__()
        found: dict[Hashable, int] = {}

        def ids(text: str) -> list[int]:
            return [found.setdefault(token, len(found) + 2) for token in tokenise(text)]

        templates = [*texts["seen"], texts["unseen"], *texts["user_only"]]
        parts = [_parts(text) for text in templates]
        user_marker, item_marker = ids(texts["user_marker"]), ids(texts["item_marker"])
        rows = {
            "prefix": [ids(prefix) + user_marker for prefix, _, _ in parts],
            "middle": [ids(middle) for _, middle, _ in parts],
            "suffix": [ids(suffix or "") + [END] for _, _, suffix in parts],
        }
        for name, pieces in rows.items():
            tokens, valid = pad_rows(pieces)
            self._constant(f"{name}_ids", tokens)
            self._constant(f"{name}_valid", valid)
        sentence = [PAD, *ids(texts["decoder"]), END]
        self._constant("decoder_ids", torch.tensor((sentence + [PAD] * dec_len)[:dec_len]))
        self._constant("item_marker", torch.tensor(item_marker, dtype=torch.long))
        self._constant("has_items", torch.tensor([suffix is not None for _, _, suffix in parts]))
        self.words = list(found)
        sizes = torch.tensor([0, *item_sizes, *user_sizes]).cumsum(0) + len(found) + 2
        self._constant("first_item", sizes[: len(item_sizes)])
        self._constant("first_user", sizes[len(item_sizes) : -1])
        self.n_tokens = int(sizes[-1])
        self.seen, self.unseen = range(len(texts["seen"])), len(texts["seen"])
        self.user_only = range(self.unseen + 1, len(templates))
        fixed = torch.tensor(
            [sum(map(len, row)) for row in zip(*rows.values(), strict=True)]
        ) + len(user_sizes)
        room = (source_len - fixed) // (len(item_marker) + len(item_sizes))
        if int(room[self.has_items].min()) < 1:
            raise ConfigError(
                f"source_len {source_len} leaves no room for an item beside {int(fixed.max())} tokens of template and user."
            )
        self._constant("room", room)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def shown(self, template: Tensor, length: Tensor, slots: int) -> Tensor:
        """Which of the ``slots`` items of each history ``[B]`` the prompt shows, bool ``[B, slots]``: the last ones that fit, or none."""
        at = torch.arange(slots, device=length.device)
        fits = (at < length.unsqueeze(1)) & (at >= (length - self.room[template]).unsqueeze(1))
        return fits & self.has_items[template].unsqueeze(1)

    def source(
        self, template: Tensor, user_codes: Tensor, item_codes: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token ids and mask ``[B, S]``, right-padded, as short as the longest row allows.

        Args:
            template: number ``[B]``. user_codes: ``[B, K]``. item_codes: ``[B, T, K]``. shown: bool ``[B, T]``, items to show.
        """
        rows, slots = shown.shape
        users = user_codes + self.first_user
        items = torch.cat(
            [self.item_marker.expand(rows, slots, -1), item_codes + self.first_item], dim=-1
        )
        ids, lengths = compose(
            (self.prefix_ids[template], self.prefix_valid[template]),
            (users, torch.ones_like(users, dtype=torch.bool)),
            (self.middle_ids[template], self.middle_valid[template]),
            (items.flatten(1), shown.repeat_interleave(items.shape[-1], dim=1)),
            (self.suffix_ids[template], self.suffix_valid[template]),
        )
        return ids, torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)


def _parts(text: str) -> tuple[str, str, str | None]:
    """What stands before the user, between user and items, and after the items (``None`` without items)."""
    match = TEMPLATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"The prompt {text!r} must hold {{user}} once and after it {{items}} at most once."
        )
    return match["prefix"], match["middle"], match["suffix"]
