"""What a report shows of one run: its result file, its ranks, and what its checkpoint adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.runs import Run


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


@dataclass
class Analysis:
    """What a checkpoint tells beyond the result file.

    Attributes:
        left_out: why a section is missing, by its name.
        users: test users whose lists were made.
        of_users: all test users.
        ranks: of these users.
        metrics: their metrics, by RecBole's evaluator.
        catalogue: metrics of the lists together, by RecBole's evaluator.
        shown: how often each item of the catalogue stands in a list, highest first.
        popularity: users by the number of training interactions of their target.
        history: users by the length of their history.
        examples: some users with their lists.
        searched_users: users behind ``given_codes`` and ``widths``.
        given_codes: recall when the first codes are known.
        widths: the search by beam width.
        levels: use of the codes.
        tree: its root.
        item_map: the items in the plane.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    users: int = 0
    of_users: int = 0
    ranks: UserRanks | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    catalogue: dict[str, float] = field(default_factory=dict)
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    popularity: list[Group] = field(default_factory=list)
    history: list[Group] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    searched_users: int = 0
    given_codes: list[GivenCodes] = field(default_factory=list)
    widths: list[BeamWidth] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    tree: CodeNode | None = None
    item_map: ItemMap | None = None


@dataclass(frozen=True)
class ReportEntry:
    """One run in a report.

    Attributes:
        name: for headings; differs from run to run.
        run: the run.
        ranks: of all test users, saved or analysed; None where neither is there.
        analysis: of its checkpoint.
        without: why there is no analysis.
    """

    name: str
    run: Run
    ranks: UserRanks | None = None
    analysis: Analysis | None = None
    without: str | None = None

    @property
    def result(self) -> dict[str, Any]:
        """The content of the result file."""
        return self.run.result or {}
