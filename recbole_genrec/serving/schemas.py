"""The bodies of requests and answers; what they do not name is refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)


def _as_id(value: Any) -> str:
    """A raw id as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("an id is a text or a whole number")


Id = Annotated[
    str,
    BeforeValidator(_as_id),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
]


class Body(BaseModel):
    """A body of a request."""

    model_config = ConfigDict(extra="forbid")


class RecommendBody(Body):
    """A question for the best next items, after a history or for a user of the data."""

    history: list[Id] | None = Field(None, description="item ids, oldest first")
    user: Id | None = Field(None, description="a user of the dataset, instead of a history")
    k: StrictInt = Field(10, ge=1, description="length of the list")
    candidates: list[Id] | None = Field(None, description="choose among these items only")
    exclude_seen: StrictBool | None = Field(
        None, description="leave the history's items out; default as the model was evaluated"
    )
    excluded: list[Id] | None = Field(
        None, description="leave these items out too, such as sold-out ones; unknown ids are passed"
    )


class BatchBody(Body):
    """Several questions at once."""

    requests: list[RecommendBody] = Field(min_length=1)


class TraceBody(RecommendBody):
    """A question whose search is shown."""

    shown: StrictInt = Field(10, ge=1, le=50, description="prefixes of each level")


class NewItemBody(Body):
    """A new item."""

    text: StrictStr = Field(min_length=1, max_length=10_000, description="title and description")
    item: Id | None = Field(None, description="its id; default a new one")


class Row(BaseModel):
    """One place of a list.

    ``certified`` says whether the list up to this place is proven to be the exact best of the
    catalogue; null where every item was scored anyway. ``codes`` is null for models without codes.
    """

    rank: int
    item: str
    title: str
    text: str
    score: float
    certified: bool | None
    codes: list[int] | None


class ListAnswer(BaseModel):
    """A list, best first."""

    items: list[Row]


class BatchAnswer(BaseModel):
    """A list or an error for each question, in their order."""

    answers: list[ListAnswer | ErrorAnswer]


class ErrorAnswer(BaseModel):
    """What was wrong, in a sentence."""

    error: str


class ItemAnswer(BaseModel):
    """An item of the catalogue."""

    item: str
    title: str
    codes: list[int] | None = None


class ItemsAnswer(BaseModel):
    """Items that match."""

    items: list[ItemAnswer]


class TraceNode(BaseModel):
    """A prefix of codes; see ``model/lists/beam_trace.py``."""

    node: int
    parent: int
    code: int
    score: float | None
    items: int
    ranks: list[int]


class TraceLevel(BaseModel):
    """One level of the walk through the tree of items."""

    alphabet: int
    possible: int
    followed: int | None
    nodes: list[TraceNode]


class TraceAnswer(BaseModel):
    """A list and how the search came to it."""

    levels: list[TraceLevel]
    items: list[Row]


class HealthAnswer(BaseModel):
    """What is served, and how it is doing."""

    status: str
    model: str
    dataset: str
    n_items: int
    waiting: int
    has_codes: bool
    has_walk: bool
    code_sizes: list[int] | None
    takes_new_items: bool
    example_text: str
    excludes_seen: bool
    max_k: int
    limits: dict[str, Any]


BatchAnswer.model_rebuild()
