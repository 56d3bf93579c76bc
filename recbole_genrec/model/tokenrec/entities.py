"""The users and items of TokenRec: collaborative vectors, quantisers and codes.

They are fitted, restored from a checkpoint, and inferred for new users and items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.collaborative.lightgcn_vectors import GraphVectors, graph_vectors
from recbole_genrec.data.ids import rows_by_token
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer import ItemCodes, fit_or_load
from recbole_genrec.tokenizer.code_sizes import sizes_asked
from recbole_genrec.tokenizer.entity_codes import SIDES, EntityCodes, EntityContent
from recbole_genrec.tokenizer.entity_mq import EntityMQSettings, EntityMQTokenizer
from recbole_genrec.tokenizer.mq_quantiser import MQQuantiser


class Entities:
    """Vectors, quantisers and codes by RecBole id, row 0 = padding.

    Args:
        graph: collaborative vectors of the dataset's users and items, and the layers that they
            come from.
        quantisers: fitted, one for the ``items`` and one for the ``users``.
        codes: theirs, collisions and all; after :meth:`new_items` the items have more rows than
            ``graph``.
        added: vectors ``[n, d]`` of the items that are not in ``graph``.

    Attributes:
        curves: losses of the stages of the fit, by stage and loss.
    """

    def __init__(
        self,
        graph: GraphVectors,
        quantisers: dict[str, MQQuantiser],
        codes: EntityCodes,
        added: Tensor,
    ) -> None:
        self.graph = graph
        self.quantisers = quantisers
        self.codes = codes
        self.added = added
        self.curves: dict[str, dict[str, list[float]]] = {}

    @classmethod
    def fit(
        cls, config: Any, dataset: Any, tokens: dict[str, list[str]], log: Callable[[str], None]
    ) -> Entities:
        """Vectors of the training split, and quantisers fitted to them now or before.

        Args:
            config: the run's ``GenRecConfig``.
            dataset: RecBole's training dataset.
            tokens: raw ids of the ``items`` and of the ``users`` by RecBole id.
            log: takes one line of text.

        Raises:
            ConfigError: the codebooks cannot name all users or items.
        """
        graph = graph_vectors(config, dataset, log)
        settings = config.settings
        if EntityMQSettings.of(config).official_compat:
            # The embeddings that propagation starts from, as released.
            graph = replace(
                graph, user_layers=graph.user_layers[:1], item_layers=graph.item_layers[:1]
            )
        content = EntityContent(tokens["items"], tokens["users"], graph.items, graph.users)
        folder = settings.cache_dir
        values = vars(EntityMQSettings.of(config))
        counts = [len(names) - 1 for names in tokens.values()]
        values = {**values, "codebook_sizes": sizes_asked(values["codebook_sizes"], *counts)}
        tokenizer = EntityMQTokenizer(values, settings.seed)
        codes = fit_or_load(tokenizer, content, folder, settings.seed, log)
        entities = cls(graph, tokenizer.quantisers, codes, graph.items[:0])
        entities.curves = tokenizer.curves
        return entities

    # --- checkpoints --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything, by raw id, as plain values and tensors; for :meth:`restore`."""
        return {
            "graph": {
                field.name: getattr(self.graph, field.name) for field in fields(GraphVectors)
            },
            "quantisers": {side: quantiser.state() for side, quantiser in self.quantisers.items()},
            "codes": {side: self.codes.side(side).plain() for side in SIDES},
            "added": self.added,
        }

    @classmethod
    def restore(cls, state: dict[str, Any], config: Any, tokens: dict[str, list[str]]) -> Entities:
        """Undo :meth:`state`; users whom the state does not know are new ones.

        Args:
            state: of a checkpoint.
            config: the run's ``GenRecConfig``.
            tokens: raw ids by RecBole id, the order of the rows.

        Raises:
            ArtefactError: the state belongs to other items.
        """
        items, users = (ItemCodes.of_plain(state["codes"][side]) for side in SIDES)
        in_graph = len(tokens["items"]) - len(state["added"])
        order = {
            "item": (items.tokens[:in_graph], tokens["items"][:in_graph]),
            "user": (users.tokens, tokens["users"]),
        }
        graph = {}
        for name, value in state["graph"].items():
            kind = name.partition("_")[0]
            # Layers are [L, n, d], degrees [n].
            graph[name] = rows_by_token(value, *order[kind], dim=value.dim() // 2)

        rows = rows_by_token(users.codes, *order["user"], dim=0)
        codes = EntityCodes(
            items.aligned(tokens["items"]), replace(users, codes=rows, tokens=tokens["users"])
        )
        tokenizer = EntityMQTokenizer(config, config.settings.seed)
        quantisers = {side: tokenizer.quantiser(side) for side in SIDES}
        for side, quantiser in quantisers.items():
            quantiser.set_state(*state["quantisers"][side])
        return cls(GraphVectors(**graph), quantisers, codes, state["added"])

    # --- what the model reads -----------------------------------------------------------------

    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The buffers of the model.

        Returns:
            Item codes ``[n_items, K]``, user codes ``[n_users, K]``, users with training
            interactions ``[n_users]``, item vectors ``[n_items, d]``.
        """
        vectors = torch.cat([self.graph.items, self.added])
        known = self.graph.user_degree > 0
        return self.codes.items.codes.clone(), self.codes.users.codes.clone(), known, vectors

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Alphabet sizes of the item and of the user codes."""
        return self.codes.items.sizes, self.codes.users.sizes

    def codebooks(self) -> Tensor:
        """All codes of the items and then of the users as vectors ``[sum of the sizes, d_c]``."""
        books: list[Tensor] = []
        for side in SIDES:
            books += self.quantisers[side].network.codebooks
        return torch.cat(books).detach()

    # --- new users and items ------------------------------------------------------------------

    def infer_users(self, history: Tensor) -> Tensor:
        """Codes int64 ``[B, K]`` of new users by their histories; nothing learns.

        Items that were added later have no layers to propagate and do not count. Without an item
        that counts the vector is zero.

        Args:
            history: item ids ``[B, T]`` padded with 0.
        """
        # In float32 the user has the same codes as outside autocast.
        with torch.autocast(history.device.type, enabled=False):
            return self.quantisers["users"].assign(self.graph.new_users(self._in_graph(history)))

    def check_new_user(self, history: Tensor) -> None:
        """:class:`DataError` when the item ids ``history [T]`` give no vector."""
        self.graph.new_user(self._in_graph(history))

    def _in_graph(self, items: Tensor) -> Tensor:
        items = items.cpu()
        return items.where(items < len(self.graph.item_degree), 0)

    def new_items(
        self, tokens: list[str], vectors: Tensor | None, users: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Take new items in.

        Args:
            tokens: their raw ids.
            vectors: ``[n, d]``.
            users: instead of vectors, RecBole ids of those who chose each item.

        Returns:
            Vectors ``[n, d]`` and codes ``[n, K]``.

        Raises:
            ConfigError: one entry for each item is needed, vectors of the size of the others.
            DataError: an item without a vector.
        """
        vectors = self._vectors_of(tokens, vectors, users)
        usable = vectors.isfinite().all(1) & vectors.any(1)
        if not usable.all():
            token = tokens[int((~usable).nonzero()[0])]
            raise DataError(
                f"The vector of item {token!r} is zero or no number, so the item can never be "
                "recommended."
            )
        codes = self.quantisers["items"].assign(vectors)
        self.codes = replace(self.codes, items=self.codes.items.append(codes, tokens))
        self.added = torch.cat([self.added, vectors])
        return vectors, codes

    def _vectors_of(
        self, tokens: list[str], vectors: Tensor | None, users: Sequence[Tensor] | None
    ) -> Tensor:
        width = self.graph.items.shape[1]
        remedy = f"give one entry for each item, vectors of {width} numbers."
        if vectors is not None:
            if tuple(vectors.shape) != (len(tokens), width):
                raise ConfigError(
                    f"{len(tokens)} new items, but vectors of shape {list(vectors.shape)}; {remedy}"
                )
            return torch.as_tensor(vectors, dtype=torch.float32)
        users = users or []
        if len(users) != len(tokens):
            raise ConfigError(f"{len(tokens)} new items, but {len(users)} lists of users; {remedy}")
        return torch.stack([self.graph.new_item(chosen) for chosen in users])

    # --- reports ------------------------------------------------------------------------------

    def report(self) -> dict[str, dict]:
        """Statistics of both tokenizers."""
        stats = self.codes.stats()
        return {
            "tokenizer": {**stats["items"], **self.quantisers["items"].quality},
            "user_tokenizer": {**stats["users"], **self.quantisers["users"].quality},
        }
