"""What a method has so that self-improvement can refine its codes: the hooks, and when they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from recbole_genrec.decoding import CodeDecoder
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.self_improve.content import content_vectors
from recbole_genrec.model.self_improve.improvement import SelfImprovement
from recbole_genrec.model.self_improve.old_checkpoints import rename_old_state
from recbole_genrec.tokenizer import ItemCodes

STATE = "self_improvement."
"""Begins the names of the weights and counters of self-improvement."""

PREFIX = STATE + "item_prefix."
"""Begins the names of the weights that read the content of an item."""


class SelfImproving(GenRecModel):
    """A method with discrete item codes, which ``self_improve`` may refine while it trains.

    A method writes :attr:`alignment_loss` and :attr:`item_decoder`; one that leaves them out
    refuses ``self_improve``.

    Attributes:
        self_improvement: what refreshes the codes while the model trains; ``None`` = nothing does.
        codes: buffer int64 ``[n_items, L]``, row 0 = padding item.
        codes_version: buffer, rises with every change of the table.
        item_codes: the same codes with raw ids, alphabet sizes and the policy for collisions.
    """

    self_improvement: Any  # a SelfImprovement, or None
    codes: Tensor
    codes_version: Tensor
    item_codes: ItemCodes
    vocabulary: Any  # with the rows of the codes, in methods that have one

    # ``alignment_loss(items [B])``: cross-entropy of the first ``n_aligned`` codes of the items,
    # given their content, in the unit of ``loss``.
    alignment_loss: Callable[[Tensor], Tensor]

    # ``item_decoder(items [B])``: next-code log-probabilities (``score_type: level``), given the
    # content of the items in the place of a history.
    item_decoder: Callable[[Tensor], CodeDecoder]

    # ``description_loss(items [B])``: cross-entropy of the words of the items given their codes,
    # for ``si_back_weight``; a method that writes no words leaves it out.
    description_loss: Callable[[Tensor], Tensor]

    # Whether the method reads the words of ``si_embed_text: text`` through :meth:`item_source`.
    reads_prefix_words: bool = False

    # Keys of self_improve whose task is in the method's loss already, and what weighs it there. The
    # method's task is then the only one of its kind.
    own_tasks: ClassVar[Mapping[str, str]] = {}

    # Whether new items have the vectors that :meth:`content_vectors` gives, whatever these are.
    prefix_follows_items: bool = False

    def __init__(self, config: Any, dataset: Any, stored: dict | None = None) -> None:
        super().__init__(config, dataset, stored)
        self.self_improvement = None

    @classmethod
    def build(cls, config: Any, dataset: Any, stored: dict | None = None) -> Any:
        """As the base's, with :class:`SelfImprovement` where ``self_improve`` is on."""
        model = super().build(config, dataset, stored)
        if model.settings.self_improve:
            model.self_improvement = SelfImprovement(model, model.settings)
        return model

    @property
    def prefix_width(self) -> int | None:
        """Width of the vectors of :meth:`item_prefix`; ``None`` = the method has a text prompt."""
        return None

    @classmethod
    def has_text_prompt(cls) -> bool:
        """Whether the method reads the words of an item itself and has no :attr:`prefix_width`."""
        return cls.prefix_width in (None, SelfImproving.prefix_width)

    def content_vectors(self) -> Tensor:
        """Standardised content vectors of all items ``[n_items, D]``, row 0 = padding item."""
        return content_vectors(self)

    @property
    def alignment_weight(self) -> float:
        """Weight of the task content -> codes; 0 = nothing teaches it."""
        return self.settings.si_align_weight

    def item_prefix(self, items: Tensor) -> Tensor:
        """The content of items as input vectors.

        Args:
            items: item ids ``[B]``.

        Returns:
            ``[B, 2, prefix_width]``: a marker of the task, and the projected content vector.
        """
        return self.self_improvement.item_prefix(items)

    def item_source(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`item_prefix`, or the words of items with ``si_embed_text: text``.

        Args:
            items: item ids ``[B]``.

        Returns:
            ``[B, S, prefix_width]``, a marker of the task first, and which of them count
            ``[B, S]``.
        """
        return self.self_improvement.item_prefix.source(items)

    def reserved_codes(self) -> Tensor:
        """Codes ``[R, L]`` that no item may take; none by default."""
        return self.codes[:0]

    def code_rows(self, level: int) -> list[Tensor]:
        """The weights with a row for each code of a level, as views ``[V, d]``, each once.

        Args:
            level: number of the level, from 0.
        """
        return self.vocabulary.level_rows(level)

    @property
    def n_aligned(self) -> int:
        """Levels that ``alignment_loss`` covers: the learned ones.

        With self_improve they are all levels, because a refresh decodes each of them.
        """
        if self.self_improvement is None:
            return self.item_codes.n_learned
        return len(self.level_sizes)

    def starting_weights(self, stored: dict[str, Any]) -> dict[str, Any]:
        """As the base's, without the epochs and refreshes that the earlier training has counted.

        What reads the content of items is taken over where the earlier training had it.
        """
        weights = dict(stored)
        rename_old_state(self, weights, "")
        others = {name: weights[name] for name in weights if not name.startswith(STATE)}
        fresh = {name: value for name, value in self.state_dict().items() if name.startswith(STATE)}
        learned = {
            name: weights[name] for name in fresh if name.startswith(PREFIX) and name in weights
        }
        return others | fresh | learned

    def refine_codes(self) -> None:
        """Refresh the codes of all items now, whatever the schedule says.

        The refresh is logged and counted as one of the schedule's, and the new table is stored
        beside the checkpoints.

        Raises:
            ConfigError: self_improve is off.
        """
        if self.self_improvement is None:
            raise ConfigError(
                f"refine_codes needs self_improve: True, and this {type(self).__name__} was made "
                "without it: it has not learned to code an item from its content. Train it with "
                "--self_improve=True."
            )
        self.self_improvement.refine_codes(self)

    # --- training -------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Any) -> Any:
        """As the base's, and the tasks of self_improve.

        Raises:
            ConfigError: self_improve is on, but something that it needs is missing.
        """
        if self.self_improvement is None:
            if self.settings.self_improve:
                raise ConfigError(
                    f"self_improve: True, but the constructor of {type(self).__name__} was called "
                    "directly, which leaves it out. Use registry.build_model(config, dataset)."
                )
            return super().calculate_loss(interaction)
        self.self_improvement.check_trainer(self._epoch_hook_seen)
        losses = super().calculate_loss(interaction)
        return self.self_improvement.with_alignment(self, losses)

    def on_epoch_start(self, epoch: int) -> Any:
        """As the base's; with self_improve the codes may be refreshed."""
        if self.self_improvement is not None:
            self.self_improvement.on_epoch_start(self, epoch)
        return super().on_epoch_start(epoch)

    def rate_factor(self) -> float:
        """As the base's; after a refresh the rate rises anew with ``si_rewarm_steps``."""
        if self.self_improvement is None:
            return super().rate_factor()
        return self.self_improvement.rate_factor()

    def other_parameter(self) -> dict:
        """As the base's, with what self_improve adds."""
        parameter = super().other_parameter()
        if self.self_improvement is not None:
            parameter |= self.self_improvement.other_parameter()
        return parameter
