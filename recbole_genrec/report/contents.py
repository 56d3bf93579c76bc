"""What a report shows of one run: its result file, its ranks, and what its checkpoint adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.runs import Run

Reason = str
"""Why something is left out, as a sentence."""


@dataclass(frozen=True)
class Item:
    """An item as people see it.

    Attributes:
        token: raw item id.
        title: its text, or the raw id where there is none.
        codes: its code at each level; empty for models without codes.
    """

    token: str
    title: str
    codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Level:
    """How one level of the codes is used.

    Attributes:
        size: codes of the level's alphabet.
        used: codes that some item has.
        perplexity: exponential of the entropy of the codes over the items.
        prefixes: distinct code sequences down to this level.
        sharing: items whose codes down to this level another item has too.
    """

    size: int
    used: int
    perplexity: float
    prefixes: int
    sharing: int


@dataclass
class CodeNode:
    """A node of the code tree: the items whose codes begin alike.

    Attributes:
        codes: the codes down to this node.
        n_items: items below it.
        words: words that are frequent in the texts of these items and rare elsewhere.
        children: nodes with one more code, the smallest code first.
        items: items of a node that is not divided further.
    """

    codes: tuple[int, ...]
    n_items: int
    words: tuple[str, ...] = ()
    children: list[CodeNode] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class ItemMap:
    """Items in the plane.

    Attributes:
        points: float ``[n, 2]``, the two principal components of the item vectors.
        items: the n items.
        of_items: number of items of the catalogue, of which n are drawn.
        explained: share of the variance that the two components hold.
        source: what the vectors are.
    """

    points: np.ndarray
    items: list[Item]
    of_items: int
    explained: float
    source: str


@dataclass(frozen=True)
class Group:
    """Test users who have something in common.

    Attributes:
        label: what they have in common.
        users: how many they are.
        metrics: their mean metrics by name.
    """

    label: str
    users: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class GivenCodes:
    """Where a hit is lost: the target's first codes are given and the others are searched.

    Attributes:
        n_codes: number of codes that are given; 0 = the list of the model.
        candidates: mean number of items that begin with these codes.
        metrics: mean metrics of the target's rank among them.
    """

    n_codes: int
    candidates: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class BeamWidth:
    """The search with another beam width.

    Attributes:
        width: of the beam.
        certified: share of users with a proven list, by its length.
        metrics: mean metrics of the lists.
    """

    width: int
    certified: dict[int, float]
    metrics: dict[str, float]


@dataclass(frozen=True)
class ListedItem:
    """An item of a recommended list.

    Attributes:
        item: the item.
        is_target: whether it is the held-out item.
    """

    item: Item
    is_target: bool


@dataclass(frozen=True)
class Example:
    """One test user.

    Attributes:
        user: raw user id.
        history: the last items before the target, oldest first.
        n_history: number of all items before the target.
        target: the held-out item.
        rank: its place in the list; 0 = not among the first.
        items: the list, best first.
    """

    user: str
    history: list[Item]
    n_history: int
    target: Item
    rank: int
    items: list[ListedItem]


@dataclass(frozen=True)
class CodeAnalysis:
    """The codes of a model.

    Attributes:
        levels: their use, level by level.
        tree: its root.
        item_map: the items in the plane, or why there is no map.
    """

    levels: list[Level]
    tree: CodeNode
    item_map: ItemMap | Reason


@dataclass(frozen=True)
class ListAnalysis:
    """The lists of test users.

    Attributes:
        users: how many they are.
        ranks: of their targets.
        metrics: of the lists, by RecBole's evaluator.
        catalogue: metrics of all lists together, by RecBole's evaluator.
        shown: how often each item of the catalogue stands in a list, highest first.
        popularity: users by the number of training interactions of their target.
        history: users by the length of their history.
        examples: some users with their lists.
    """

    users: int
    ranks: UserRanks
    metrics: dict[str, float]
    catalogue: dict[str, float]
    shown: np.ndarray
    popularity: list[Group]
    history: list[Group]
    examples: list[Example]


@dataclass(frozen=True)
class SearchAnalysis:
    """The search of a generative model.

    Attributes:
        users: test users who were searched for.
        given_codes: recall when the first codes are known.
        widths: the search by beam width, or why there are no beams.
    """

    users: int
    given_codes: list[GivenCodes]
    widths: list[BeamWidth] | Reason


@dataclass(frozen=True)
class Analysis:
    """What a checkpoint tells beyond the result file, part by part, or why a part is missing.

    Attributes:
        codes: of the items.
        lists: of the test users.
        search: that makes the lists.
        of_users: all test users.
    """

    codes: CodeAnalysis | Reason
    lists: ListAnalysis | Reason
    search: SearchAnalysis | Reason
    of_users: int = 0

    @property
    def item_map(self) -> ItemMap | Reason:
        """The items in the plane."""
        return self.codes if isinstance(self.codes, str) else self.codes.item_map

    @property
    def given_codes(self) -> list[GivenCodes] | Reason:
        """The recall when the first codes are known."""
        return self.search if isinstance(self.search, str) else self.search.given_codes

    @property
    def widths(self) -> list[BeamWidth] | Reason:
        """The search by beam width."""
        return self.search if isinstance(self.search, str) else self.search.widths

    @property
    def ranks(self) -> UserRanks | None:
        """The ranks of the users who got lists."""
        return None if isinstance(self.lists, str) else self.lists.ranks


@dataclass(frozen=True)
class ReportEntry:
    """One run in a report.

    Attributes:
        name: for headings; differs from run to run.
        run: the run.
        ranks: of all test users, saved or analysed; None where neither is there.
        analysis: of its checkpoint, or why there is none.
    """

    name: str
    run: Run
    ranks: UserRanks | None = None
    analysis: Analysis | Reason = "No checkpoint was given."

    @property
    def result(self) -> dict[str, Any]:
        """The content of the result file."""
        return self.run.result or {}
