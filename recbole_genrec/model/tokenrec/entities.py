"""The users and items of TokenRec: collaborative vectors, quantisers and codes; fitted, restored, and inferred for new ones."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from recbole_genrec.collaborative.lightgcn_vectors import GraphVectors, graph_vectors
from recbole_genrec.data.ids import rows_by_token
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.storage.atomic import publish_folder
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer import ItemCodes
from recbole_genrec.tokenizer.mq_quantiser import MQQuantiser

SIDES = ("items", "users")


class Entities:
    """Vectors, quantisers and codes by RecBole id, row 0 = padding.

    Args:
        graph: collaborative vectors of the dataset's users and items, and the layers that they come from.
        quantisers: fitted, one for the ``items`` and one for the ``users``.
        codes: theirs, collisions and all; after :meth:`new_items` the items have more rows than ``graph``.
        added: vectors ``[n, d]`` of the items that are not in ``graph``.
    """

    def __init__(
        self,
        graph: GraphVectors,
        quantisers: dict[str, MQQuantiser],
        codes: dict[str, ItemCodes],
        added: Tensor,
    ):
        self.graph, self.quantisers, self.codes, self.added = graph, quantisers, codes, added

    @classmethod
    def fit(
        cls, config, dataset, tokens: dict[str, list[str]], log: Callable[[str], None]
    ) -> Entities:
        """Vectors of the training split, and quantisers that are fitted to them now or were before.

        Users and items without a training interaction have no part in the fit; their codes are those of the zero vector.

        Raises:
            ConfigError: the codebooks cannot name all users or items.
        """
        graph = graph_vectors(config, dataset, log)
        if config["official_compat"]:  # the embeddings that propagation starts from, as released
            graph = replace(
                graph, user_layers=graph.user_layers[:1], item_layers=graph.item_layers[:1]
            )
        quantisers, codes = {}, {}
        for side in SIDES:
            vectors = getattr(graph, side)
            quantisers[side] = _fit_or_load(
                _quantiser(config, side), vectors, config["cache_dir"], log
            )
            codes[side] = ItemCodes.build(
                quantisers[side].encode(vectors[1:]), quantisers[side].sizes, tokens[side], "none"
            )
            log(codes[side].report().replace("items", side))
        return cls(graph, quantisers, codes, graph.items[:0])

    # --- checkpoints ----------------------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        """Everything, by raw id, as plain values and tensors; for :meth:`restore`."""
        return {
            "graph": {
                field.name: getattr(self.graph, field.name) for field in fields(GraphVectors)
            },
            "quantisers": {side: quantiser.state() for side, quantiser in self.quantisers.items()},
            "codes": {
                side: {**vars(codes), "sizes": list(codes.sizes)}
                for side, codes in self.codes.items()
            },
            "added": self.added,
        }

    @classmethod
    def restore(cls, state: dict, config, tokens: dict[str, list[str]]) -> Entities:
        """Undo :meth:`state`, rows in the order of ``tokens``; users whom the state does not know are new ones.

        Raises:
            ArtefactError: the state belongs to other items.
        """
        stored = {
            side: ItemCodes(**{**codes, "sizes": tuple(codes["sizes"])})
            for side, codes in state["codes"].items()
        }
        users = rows_by_token(stored["users"].codes, stored["users"].tokens, tokens["users"], dim=0)
        codes = {
            "items": stored["items"].aligned(tokens["items"]),
            "users": replace(stored["users"], codes=users, tokens=tokens["users"]),
        }
        in_graph = len(tokens["items"]) - len(state["added"])
        order = {
            "item": (stored["items"].tokens[:in_graph], tokens["items"][:in_graph]),
            "user": (stored["users"].tokens, tokens["users"]),
        }
        graph = {
            name: rows_by_token(value, *order[name.split("_")[0]], dim=value.dim() // 2)
            for name, value in state["graph"].items()
        }
        quantisers = {side: _quantiser(config, side) for side in SIDES}
        for side, quantiser in quantisers.items():
            quantiser.set_state(*state["quantisers"][side])
        return cls(GraphVectors(**graph), quantisers, codes, state["added"])

    # --- what the model reads -------------------------------------------------------------------------------------------------------

    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Item codes ``[n_items, K]``, user codes ``[n_users, K]``, users with training interactions ``[n_users]``, item vectors."""
        vectors = torch.cat([self.graph.items, self.added])
        return (
            self.codes["items"].codes.clone(),
            self.codes["users"].codes.clone(),
            self.graph.user_degree > 0,
            vectors,
        )

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Alphabet sizes of the item and of the user codes."""
        return self.codes["items"].sizes, self.codes["users"].sizes

    def codebooks(self) -> Tensor:
        """All codes of the items and then of the users as vectors ``[sum of the sizes, d_c]``."""
        return torch.cat(
            [book.detach() for side in SIDES for book in self.quantisers[side].network.codebooks]
        )

    # --- new users and items --------------------------------------------------------------------------------------------------------

    def infer_users(self, history: Tensor) -> Tensor:
        """Codes int64 ``[B, K]`` of new users by their histories, item ids ``[B, T]`` padded with 0; nothing learns.

        Items that were added later have no layers to propagate and do not count. Without an item that counts the vector is zero.
        """
        with torch.autocast(
            history.device.type, enabled=False
        ):  # the codes that the user had in float32
            return self.quantisers["users"].encode(self.graph.new_users(self._in_graph(history)))

    def check_new_user(self, history: Tensor) -> None:
        """:class:`DataError` when the item ids ``history [T]`` give no vector."""
        self.graph.new_user(self._in_graph(history))

    def _in_graph(self, items: Tensor) -> Tensor:
        items = items.cpu()
        return items.where(items < len(self.graph.item_degree), 0)

    def new_items(
        self, tokens: list[str], vectors: Tensor | None, users: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Take new items in; their vectors ``[n, d]`` and codes ``[n, K]``.

        Args:
            vectors: ``[n, d]``, or instead users: RecBole ids of those who chose each item.

        Raises:
            ConfigError: one entry for each item is needed, vectors of the size of the others.
            DataError: an item without a vector.
        """
        given, width = (users if vectors is None else vectors), self.graph.items.shape[1]
        if len(given) != len(tokens) or (
            vectors is not None and tuple(vectors.shape[1:]) != (width,)
        ):
            shape = (
                f"vectors of shape {list(vectors.shape)}"
                if users is None
                else f"{len(users)} lists of users"
            )
            raise ConfigError(
                f"{len(tokens)} new items, but {shape}; give one entry for each item, vectors of {width} numbers."
            )
        if vectors is None:
            vectors = torch.stack([self.graph.new_item(chosen) for chosen in users])
        vectors = torch.as_tensor(vectors, dtype=torch.float32)
        for token, usable in zip(
            tokens, (vectors.isfinite().all(1) & vectors.any(1)).tolist(), strict=True
        ):
            if not usable:
                raise DataError(
                    f"The vector of item {token!r} is zero or no number, so the item can never be recommended."
                )
        codes = self.quantisers["items"].encode(vectors)
        self.codes["items"] = self.codes["items"].append(codes, tokens)
        self.added = torch.cat([self.added, vectors])
        return vectors, codes

    # --- reports --------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict:
        """Statistics of both tokenizers."""
        each = {
            side: {**self.codes[side].stats(), **self.quantisers[side].quality} for side in SIDES
        }
        return {"tokenizer": each["items"], "user_tokenizer": each["users"]}


def _quantiser(config, side: str) -> MQQuantiser:
    """Each side draws from a seed of its own (our choice, unpublished)."""
    return MQQuantiser(config, config["seed"] + SIDES.index(side), side)


def _fit_or_load(
    quantiser: MQQuantiser, vectors: Tensor, cache_dir: str, log: Callable[[str], None]
) -> MQQuantiser:
    """Fit to ``vectors [n, d]``, or take over what was stored for the same vectors, settings and seed."""
    values = hashlib.sha256(vectors.numpy().tobytes()).hexdigest()
    folder = (
        Path(cache_dir) / f"mq-{quantiser.name}-{digest(values, quantiser.config, quantiser.seed)}"
    )
    if folder.exists():
        quantiser.set_state(*load_artefact(folder))
        log(f"MQ of the {quantiser.name} not fitted again: reused from {folder}.")
        return quantiser
    started = time.process_time()
    quantiser.fit(vectors, log)
    quantiser.quality["fit_cpu_seconds"] = time.process_time() - started
    with publish_folder(folder) as temporary:
        save_artefact(temporary, *quantiser.state())
    log(f"MQ of the {quantiser.name} stored in {folder}.")
    return quantiser
