"""What a method may ask of a language model, whichever kind it is.

A *source* (a prompt, a history) is read once for each user. *Queries* then stand behind it: the
codes of a target under teacher forcing, the query vectors of a set, or the beams of a search.
Both are given as embeddings, so what a token is made of is the method's business.

==============================  ==================================================================
a method needs                  it says
==============================  ==================================================================
teacher forcing                 ``decode(queries, read(source, valid))``
item tokens without an order    ``read(..., positions=, sees=without_siblings(item))``
queries that are decoded at     ``decode(..., positions=zeros(Q), sees=only_itself(Q))``
once and see only themselves
vectors added at the input      ``read(table[ids] + strength * projection(vectors[ids]), valid)``
text in, codes or text out      ``text_table``, ``text_logits``, ``CodeVocabulary``
==============================  ==================================================================

A mask ``sees`` is bool (False hides a token) or float (a number added to the attention score).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

EmbedCode = Callable[[Tensor, int], Tensor]
LogProbs = Callable[[Tensor, int], Tensor]
TransformersModule: TypeAlias = Any
"""A module of transformers, whose attributes have no types."""


class Memory(Protocol):
    """The sources of B users as their queries read them."""

    def select(self, rows: Tensor) -> Memory:
        """The memory of some of the users.

        Args:
            rows: int64 ``[B']``, places of the users among the B.
        """
        ...


MemoryT = TypeVar("MemoryT", bound=Memory)


class Backbone(Protocol[MemoryT]):
    """A language model seen as *embeddings in, states out*.

    Attributes:
        d_in: width of the input embeddings.
        d_out: width of the states.
        d_model: hidden size; differs from the other two only for models with projections around
            the stack.
        output_scale: factor on the states before an output layer.
    """

    d_in: int
    d_out: int
    d_model: int
    output_scale: float

    @property
    def text_table(self) -> nn.Embedding:
        """Embedding of the text vocabulary."""
        ...

    @property
    def tied(self) -> bool:
        """Whether the output layer over the text vocabulary is the text table itself."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model can read, in tokens; ``None`` if it sets no limit."""
        ...

    def text_logits(self, states: Tensor) -> Tensor:
        """States ``[..., d_out]`` -> logits over the text vocabulary ``[..., V]``."""
        ...

    def read(
        self,
        source: Tensor,
        valid: Tensor,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> MemoryT:
        """Read the sources once for all their queries.

        Args:
            source: embeddings ``[B, S, d_in]``.
            valid: bool ``[B, S]``, False for padding on the right; at least one True in each row.
            positions: ``[S]`` or ``[B, S]``; ``None`` = 0, 1, 2, ...
            sees: ``[S, S]`` or ``[B, S, S]``, which token (row) sees which (column); ``None`` =
                as the model was trained: all of them, or those before it.
        """
        ...

    def decode(
        self,
        queries: Tensor,
        memory: MemoryT,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> Tensor:
        """States of queries that see the whole source.

        Args:
            queries: embeddings ``[B, Q, d_in]``.
            memory: from :meth:`read`.
            positions: ``[Q]`` or ``[B, Q]``, counted from the end of the source; ``None`` = 0, 1,
                2, ...
            sees: ``[Q, Q]`` or ``[B, Q, Q]``, which query sees which; ``None`` = itself and those
                before it.

        Returns:
            ``[B, Q, d_out]``.
        """
        ...
