"""The codes of a catalogue: what every tokenizer returns and every model reads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.collision import (
    collision_stats,
    item_groups,
    parse_policies,
    resolve_collisions,
)

PADDING = "[PAD]"
KIND = "item_codes"
FIT_AGAIN = "Fit the tokenizer again."
COLLAPSE = 0.05
"""A level whose perplexity is below this share of its size counts as collapsed (our choice)."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """Codes of all items, checked when made; :class:`ArtefactError` says what is wrong.

    Attributes:
        codes: int64 ``[n_items, L]``; row 0 = padding item, all zeros; level l holds 0 ..
            ``sizes[l]`` - 1.
        sizes: alphabet size of each level.
        tokens: raw item id of each row, row 0 = "[PAD]".
        stats_before: :func:`collision_stats` of the learned codes, before the collision policies.
        policy: the collision policies; rows are unique when the last one is ``nearest_free`` or
            ``extra_token``.
    """

    codes: Tensor
    sizes: tuple[int, ...]
    tokens: list[str]
    stats_before: dict
    policy: list[str]

    def __post_init__(self) -> None:
        codes, sizes = self.codes, self.sizes
        if (
            codes.dtype != torch.long
            or codes.dim() != 2
            or codes.shape[0] < 2
            or codes.shape[1] != len(sizes)
            or not sizes
        ):
            raise _wrong(
                f"expected int64 [items + padding, {len(sizes)} levels], got {codes.dtype} "
                f"{list(codes.shape)}"
            )
        if (
            len(self.tokens) != len(codes)
            or self.tokens[0] != PADDING
            or len(set(self.tokens)) != len(codes)
        ):
            raise _wrong(
                f"{len(codes)} rows need as many different item ids, the first of them "
                f"{PADDING!r}; got {len(self.tokens)} ids"
            )
        if codes[0].any():
            raise _wrong(f"row 0 is the padding item and must be zeros, got {codes[0].tolist()}")
        outside = (codes < 0) | (codes >= torch.tensor(sizes))
        if outside.any():
            row, level = torch.nonzero(outside)[0].tolist()
            raise _wrong(
                f"item {self.tokens[row]!r} has code {int(codes[row, level])} at level {level}, "
                f"whose size is {sizes[level]}"
            )
        if parse_policies(self.policy)[-1] in ("nearest_free", "extra_token"):
            group, count = item_groups(codes[1:])
            if len(count) < len(group):
                twins = 1 + torch.nonzero(group == count.argmax()).flatten()[:2]
                names = [self.tokens[row] for row in twins.tolist()]
                raise _wrong(
                    f"items {names} have the same codes {codes[twins[0]].tolist()} although "
                    f"collision is {self.policy}"
                )

    @classmethod
    def build(
        cls,
        learned: Tensor,
        sizes: Sequence[int],
        tokens: list[str],
        policies: str | Sequence[str],
        **options: Any,
    ) -> ItemCodes:
        """Resolve the collisions of the ``learned [n, M]`` codes and add the padding row.

        ``tokens`` has n + 1 entries, "[PAD]" first; ``options`` go to :func:`resolve_collisions`.
        """
        policies = parse_policies(policies)
        learned = learned.cpu().long()
        codes, sizes = resolve_collisions(learned, sizes, policies, **options)
        padded = torch.cat([codes.new_zeros(1, codes.shape[1]), codes])
        return cls(padded, sizes, list(tokens), collision_stats(learned), policies)

    @property
    def n_items(self) -> int:
        """Number of rows, the padding item included (RecBole's ``item_num``)."""
        return len(self.codes)

    @property
    def n_levels(self) -> int:
        """L, the number of codes of an item."""
        return len(self.sizes)

    @property
    def n_learned(self) -> int:
        """M, the levels that the tokenizer learned; an extra token comes after them."""
        return self.stats_before["levels"]

    def stats(self) -> dict:
        """``levels``: size, codes used, entropy (nats) and perplexity of each; ``nmi [L][L]``.

        ``unique_ids``; ``before`` = before repair.

        NMI of two levels is their mutual information over the mean of their entropies, 0 where both
        are constant.
        """
        real = self.codes[1:]
        entropy = [code_entropy(column) for column in real.unbind(1)]
        nmi = torch.eye(self.n_levels).tolist()
        for a, b in itertools.combinations(range(self.n_levels), 2):
            shared = entropy[a] + entropy[b] - code_entropy(real[:, a] * self.sizes[b] + real[:, b])
            nmi[a][b] = nmi[b][a] = (
                max(0.0, 2 * shared / (entropy[a] + entropy[b])) if entropy[a] + entropy[b] else 0.0
            )
        used = used_per_level(real)
        return {
            "levels": [
                {"size": size, "used": n, "entropy": h, "perplexity": float(torch.tensor(h).exp())}
                for size, n, h in zip(self.sizes, used, entropy, strict=True)
            ],
            "nmi": nmi,
            "unique_ids": collision_stats(real)["unique_ids"],
            "before": dict(self.stats_before),
        }

    def report(self, what: str = "items") -> str:
        """The statistics as a table for people; ``what`` the rows are."""
        stats, before = self.stats(), self.stats_before
        published = 1 - before["unique_ids"] / before["items"]
        lines = [
            f"Codes of {self.n_items - 1} {what}, {self.n_levels} levels, collision: "
            f"{', '.join(self.policy)}",
            f"  unique ids {stats['unique_ids']}; before repair {before['unique_ids']}, "
            f"{before['collision_rate']:.2%} of the {what} collide, largest group "
            f"{before['largest_group']}; collision rate as published {published:.2%}",
            "  level   size   used  entropy  perplexity  of size  NMI with the levels before",
        ]
        for number, level in enumerate(stats["levels"]):
            name = str(number) if number < self.n_learned else f"{number}+"
            nmi = " ".join(f"{value:.2f}" for value in stats["nmi"][number][:number])
            share = level["perplexity"] / level["size"]
            numbers = f"{level['size']:>7}{level['used']:>7}{level['entropy']:>9.3f}"
            numbers += f"{level['perplexity']:>12.1f}{share:>9.1%}"
            lines.append(f"  {name:>5}{numbers}  {nmi}".rstrip())
        if self.n_levels > self.n_learned:
            lines.append(f"  + counts {what} with the same codes")
        return "\n".join(lines)

    def warnings(self, what: str = "items") -> list[str]:
        """One message per learned level that collapsed; ``what`` the rows are."""
        return [
            f"LEVEL {number} OF THE CODES COLLAPSED: perplexity {level['perplexity']:.1f} of "
            f"{level['size']} codes "
            f"({level['used']} used by {self.n_items - 1} {what}). Such codes hardly tell {what} "
            "apart. Check that the item texts differ and that text_encoder can read them, "
            "standardise the item vectors, train the tokenizer longer or with another seed, or use "
            "smaller codebook_sizes."
            for number, level in enumerate(self.stats()["levels"][: self.n_learned])
            if level["perplexity"] < COLLAPSE * level["size"]
        ]

    def aligned(self, tokens: Sequence[str]) -> ItemCodes:
        """The same codes with rows in the order of ``tokens`` ("[PAD]" first).

        Internal item ids differ between runs, raw ids do not.

        :class:`ArtefactError` when the item sets differ.
        """
        tokens = list(tokens)
        row_of = {token: row for row, token in enumerate(self.tokens)}
        missing = [token for token in tokens if token not in row_of]
        distinct = set(tokens)
        surplus = [token for token in self.tokens if token not in distinct]
        if missing or surplus or len(tokens) != len(distinct):
            raise ArtefactError(
                f"These codes belong to other items: {len(missing)} items of the data have no "
                f"codes{_examples(missing)}, "
                f"{len(surplus)} items with codes are not in the data{_examples(surplus)}, "
                f"{len(tokens) - len(distinct)} items are named twice. "
                "Fit the tokenizer on this dataset, or use the dataset that the codes were made "
                "for."
            )
        return replace(self, codes=self.codes[[row_of[token] for token in tokens]], tokens=tokens)

    def append(self, codes: Tensor, tokens: Sequence[str]) -> ItemCodes:
        """These codes and, after them, ``codes [m, L]`` of new items with raw ids ``tokens``.

        Nothing that was there changes.
        """
        return replace(self, codes=torch.cat([self.codes, codes]), tokens=[*self.tokens, *tokens])

    def plain(self) -> dict[str, Any]:
        """The attributes as plain values and tensors, for a checkpoint."""
        return {**vars(self), "sizes": list(self.sizes)}

    @classmethod
    def of_plain(cls, stored: dict[str, Any]) -> ItemCodes:
        """Undo :meth:`plain`.

        Args:
            stored: what :meth:`plain` gave.

        Raises:
            ArtefactError: it is no table of codes.
        """
        return cls(**{**stored, "sizes": tuple(stored["sizes"])})

    def save(self, folder: str | os.PathLike) -> None:
        """Store as an artefact: safetensors and JSON."""
        meta = {
            "kind": KIND,
            "sizes": list(self.sizes),
            "tokens": self.tokens,
            "stats_before": self.stats_before,
            "policy": self.policy,
        }
        save_artefact(folder, {"codes": self.codes}, meta)

    @classmethod
    def load(cls, folder: str | os.PathLike, advice: str = FIT_AGAIN) -> ItemCodes:
        """Read what :meth:`save` wrote.

        Args:
            folder: where it is.
            advice: what to do about a damaged one, as a sentence.

        Raises:
            ArtefactError: it is damaged or something else.
        """
        tensors, meta = load_artefact(folder, advice)
        if meta.get("kind") != KIND:
            raise ArtefactError(
                f"{folder} holds {meta.get('kind', 'something else')!r}, not item codes. Name the "
                "folder that ItemCodes.save wrote."
            )
        with explained(str(folder), advice):
            return cls(
                tensors["codes"],
                tuple(meta["sizes"]),
                meta["tokens"],
                meta["stats_before"],
                meta["policy"],
            )


def _wrong(what: str) -> ArtefactError:
    return ArtefactError(
        f"These item codes are unusable: {what}. Fit the tokenizer again, or repair the program "
        "that made them."
    )


def code_entropy(codes: Tensor) -> float:
    """Shannon entropy of ``codes [n]`` in nats."""
    share = codes.unique(return_counts=True)[1].double() / len(codes)
    return max(0.0, -float((share * share.log()).sum()))


def used_per_level(codes: Tensor) -> list[int]:
    """How many different codes ``codes [n, L]`` have at each level."""
    return [len(column.unique()) for column in codes.unbind(1)]


def _examples(tokens: list[str]) -> str:
    return f" (such as {', '.join(map(repr, tokens[:3]))})" if tokens else ""
