"""TokenRec's tokenizer (arXiv 2406.10450).

MQ on collaborative vectors, once for items and users.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from torch import Tensor

from recbole_genrec.settings.tokenizer_keys import TokenizerSettings
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.entity_codes import (
    SIDES,
    EntityCodes,
    EntityContent,
    EntityTokenizer,
)
from recbole_genrec.tokenizer.mq_quantiser import MQKeys, MQQuantiser
from recbole_genrec.tokenizer.tensor_names import with_prefix, without_prefix


class EntityMQSettings(MQKeys, TokenizerSettings):
    """Keys of TokenRec's tokenizer."""


class EntityMQTokenizer(EntityTokenizer):
    """Two :class:`MQQuantiser`; each side draws from a seed of its own (our choice, unpublished).

    Users and items without a training interaction have zero vectors. They have no part in the fit;
    their codes are those of the zero vector. Equal codes are allowed.

    Args:
        config: a ``GenRecConfig``, or values by key.
        seed: of everything random.

    Attributes:
        quantisers: by side, after :meth:`fit` or :meth:`set_state`.
    """

    name = "mq-entities"
    settings_class = EntityMQSettings
    settings: EntityMQSettings

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.quantisers: dict[str, MQQuantiser] = {}

    def quantiser(self, side: str) -> MQQuantiser:
        """A quantiser that knows nothing yet."""
        return MQQuantiser(vars(self.settings), self.seed + SIDES.index(side), side, self.progress)

    def fit(self, content: EntityContent) -> EntityCodes:
        """Fit the quantiser of the items, then that of the users.

        All in the order of the raw ids: the numbering changes nobody's codes.

        Raises:
            ConfigError: the codebooks cannot name all users or items.
        """
        ordered = content.by_raw_id()
        codes = {}
        for side in SIDES:
            vectors = ordered.vectors(side)
            self.quantisers[side] = self._fitted(side, vectors)
            codes[side] = ItemCodes.build(
                self.quantisers[side].assign(vectors[1:]),
                self.quantisers[side].sizes,
                ordered.tokens(side),
                "none",
            )
        return self.aligned(EntityCodes(codes["items"], codes["users"]), content)

    def _fitted(self, side: str, vectors: Tensor) -> MQQuantiser:
        quantiser = self.quantiser(side)
        started = time.process_time()
        quantiser.fit(vectors, logging.getLogger().info)
        quantiser.quality["fit_cpu_seconds"] = time.process_time() - started
        return quantiser

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Both quantisers."""
        tensors, meta = super().state()
        for side, quantiser in self.quantisers.items():
            side_tensors, side_meta = quantiser.state()
            tensors |= with_prefix(f"{side}.", side_tensors)
            meta[side] = side_meta
        return tensors, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        for side in SIDES:
            self.quantisers[side] = self.quantiser(side)
            self.quantisers[side].set_state(without_prefix(f"{side}.", tensors), meta[side])
