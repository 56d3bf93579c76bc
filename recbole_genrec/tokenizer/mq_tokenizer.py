"""MQ on item vectors, for every generator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recbole_genrec.tokenizer.collision import check_capacity
from recbole_genrec.tokenizer.mq_quantiser import MQKeys, MQQuantiser
from recbole_genrec.tokenizer.tensor_names import with_prefix, without_prefix
from recbole_genrec.tokenizer.vector_tokenizer import VectorSettings, VectorTokenizer

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class MQSettings(MQKeys, VectorSettings):  # type: ignore[misc]  # sizes may be auto
    """Keys of ``tokenizer: mq``."""


class MQTokenizer(VectorTokenizer):
    """MQ on item vectors; TokenRec itself quantises users and items."""

    name = "mq"
    settings_class = MQSettings
    settings: MQSettings

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Train on the scaled vectors."""
        sizes = self.fitted_sizes(len(x))
        self.quantiser: MQQuantiser = self._quantiser(codebook_sizes=list(sizes))
        check_capacity(len(x), self.quantiser.sizes_for(x), self.settings.collision)
        self.quantiser.fit(x, logging.getLogger().info)
        self.quality |= self.quantiser.quality

    def _quantiser(self, **changes: object) -> MQQuantiser:
        # The vectors are scaled already.
        values = {**vars(self.settings), "standardize": False, **changes}
        return MQQuantiser(values, self.seed, "items", self.progress)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scaling and network."""
        tensors, meta = super().state()
        mq_tensors, mq_meta = self.quantiser.state()
        return {**tensors, **with_prefix("mq.", mq_tensors)}, {**meta, "mq": mq_meta}

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.quantiser = self._quantiser()
        self.quantiser.set_state(without_prefix("mq.", tensors), meta["mq"])
