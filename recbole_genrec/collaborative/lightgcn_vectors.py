"""Collaborative vectors of users and items.

LightGCN (arXiv 2002.02126) on the training split alone, for TokenRec (arXiv 2406.10450).

The propagated vectors are what counts, not the embeddings that they start from. Layers and degrees
are kept, so that users and items which appear later get a vector from the same model by
propagation, without any training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import Dataset
from recbole.sampler import Sampler
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.collaborative.external import external_file
from recbole_genrec.collaborative.training import settings_that_count, stored_vectors, trained_model
from recbole_genrec.collaborative.training_split import edges_only, read_sequences, training_split
from recbole_genrec.data.ids import raw_ids, rows_by_token
from recbole_genrec.data.vectors.vector_files import read_vectors
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.runtime.randomness import kept_randomness
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys
from recbole_genrec.storage.artefacts import check_tensors
from recbole_genrec.storage.digests import digest, file_digest

FILES = {"users": "graph_user_file", "items": "graph_item_file"}


@dataclass(frozen=True, eq=False)
class GraphVectors:
    """Vectors by RecBole id.

    Rows of the padding entry, and of users and items without a training edge, are zero.

    Attributes:
        user_layers: float32 ``[n_layers + 1, n_users, d]``, layer 0 = learned embeddings (eq. 3);
            one layer when read from a file.
        item_layers: the same of the items.
        user_degree: int64 ``[n_users]``, training edges of each user.
        item_degree: the same of the items.
    """

    user_layers: Tensor
    item_layers: Tensor
    user_degree: Tensor
    item_degree: Tensor

    @cached_property
    def users(self) -> Tensor:
        """Propagated vectors, float32 ``[n_users, d]``.

        The mean of all layers (eq. 4 with equal weights).
        """
        return self.user_layers.mean(0)

    @cached_property
    def items(self) -> Tensor:
        """Propagated vectors of the items, float32 ``[n_items, d]``."""
        return self.item_layers.mean(0)

    def new_user(self, items: Tensor) -> Tensor:
        """Vector ``[d]`` of a user who is no row here; nothing learns.

        Computed from the RecBole ids ``items [m]`` of the history.

        Layer 0 is zero, layer l + 1 one propagation (eq. 3) from layer l of the items as they are.
        Ids that occur twice count once; items without a training edge, padding among them, do not
        count (both our choice, unpublished).

        Raises:
            DataError: no item of the history has a training edge, or the vectors are a file's.
        """
        _check_neighbours(self.item_layers, self.item_degree, items, "user", "items")
        return self.new_users(items.unsqueeze(0))[0]

    def new_users(self, histories: Tensor) -> Tensor:
        """:meth:`new_user` of many, ``[B, d]``, from ``histories [B, T]`` padded with 0.

        Zero without an item that counts.
        """
        _check_layers(self.item_layers, "user", "items")
        return _propagated(self.item_layers, self.item_degree, histories)

    def new_item(self, users: Tensor) -> Tensor:
        """Vector ``[d]`` of an item that is no row here, see :meth:`new_user`.

        Args:
            users: RecBole ids ``[m]`` of those who chose it.
        """
        _check_neighbours(self.user_layers, self.user_degree, users, "item", "users")
        return _propagated(self.user_layers, self.user_degree, users.unsqueeze(0))[0]


def _check_layers(layers: Tensor, new: str, known: str) -> None:
    if len(layers) == 1:
        raise DataError(
            f"Vectors of a file have no layers, so a new {new} cannot get one; nor have those of "
            f"official_compat. Leave {FILES[known]} and "
            "official_compat out to train them."
        )


def _check_neighbours(
    layers: Tensor, degree: Tensor, neighbours: Tensor, new: str, known: str
) -> None:
    _check_layers(layers, new, known)
    if not (degree[neighbours] > 0).any():
        raise DataError(
            f"The new {new} has no {known} with a training interaction, hence no collaborative "
            "vector. Give it at least one."
        )


def _propagated(layers: Tensor, degree: Tensor, neighbours: Tensor) -> Tensor:
    """Mean over the layers of new nodes ``[B, d]`` with these ``neighbours [B, T]``.

    Repeated and unknown neighbours do not count.
    """
    ids = neighbours.sort(1).values
    counts = (degree[ids] > 0) & ~pad(ids[:, 1:] == ids[:, :-1], (1, 0))
    scale = torch.where(
        counts, (counts.sum(1, keepdim=True) * degree[ids]).to(layers.dtype).rsqrt(), 0
    )
    return torch.einsum("bt,lbtd->bd", scale, layers[:-1, ids]) / len(layers)


def graph_vectors(config, dataset, log: Callable[[str], None] = print) -> GraphVectors:
    """Vectors of the users and items of ``dataset``: stored, trained now and stored, or from files.

    Edges are the (user, item) pairs of all training interactions, whatever ``train_rows`` and
    ``MAX_ITEM_LIST_LENGTH``. Users without a training row in ``dataset`` have no edges, so that a
    user who was taken out of it is unknown here too.

    Args:
        config: the run's ``GenRecConfig``; reads the keys ``graph_*``, ``allow_external_cf`` and
            ``cache_dir``.
        dataset: RecBole's training dataset.
        log: takes one line of text.

    Raises:
        ArtefactError: the stored vectors are damaged.
        ConfigError: a file of vectors without the other, or without ``allow_external_cf: true``.
        DataError: the dataset or the files cannot be used.
    """
    items, users = raw_ids(dataset).values()
    present = {users[user] for user in dataset.inter_feat[dataset.uid_field].unique().tolist()}
    sequences = {
        user: sequence for user, sequence in read_sequences(config).items() if user in present
    }
    graph = TrainingGraph(config, sequences, log).load()
    vectors = GraphVectors(
        rows_by_token(graph.user_layers, graph.user_tokens, users, dim=1),
        rows_by_token(graph.item_layers, graph.item_tokens, items, dim=1),
        rows_by_token(graph.user_degree, graph.user_tokens, users, dim=0),
        rows_by_token(graph.item_degree, graph.item_tokens, items, dim=0),
    )
    alone = [int((degree[1:] == 0).sum()) for degree in (vectors.user_degree, vectors.item_degree)]
    if any(alone):
        log(
            f"Collaborative vectors: {alone[0]} users and {alone[1]} items have no training "
            "interaction; theirs are zero."
        )
    return vectors


@dataclass(frozen=True, eq=False)
class StoredGraph:
    """What is kept of a trained graph.

    The tensors of :class:`GraphVectors` by raw id, without padding row.
    """

    user_tokens: list[str]
    item_tokens: list[str]
    user_layers: Tensor
    item_layers: Tensor
    user_degree: Tensor
    item_degree: Tensor


class TrainingGraph:
    """The graph of training ``sequences`` and its vectors, all by raw ids.

    Args:
        config: the run's ``GenRecConfig``.
        sequences: raw item ids by raw user id, from the training split.
        log: takes one line of text.

    Raises:
        ConfigError: a file of vectors without the other, or without ``allow_external_cf: true``.
    """

    def __init__(self, config, sequences: dict[str, list[str]], log: Callable[[str], None] = print):
        self.run_config = config
        self.sequences = sequences
        self.log = log
        files = {kind: external_file(config, key) for kind, key in FILES.items()}
        if None in files.values() and any(files.values()):
            raise ConfigError(
                f"{' and '.join(FILES.values())} belong together: give both or neither."
            )
        self.files = {kind: file for kind, file in files.items() if file is not None}

    @cached_property
    def config(self):
        """Settings of the LightGCN that gives the vectors."""
        settings = CollaborativeKeys.of(self.run_config)
        return self.run_config.derived(
            "LightGCN",
            embedding_size=settings.graph_dim,
            n_layers=settings.graph_layers,
            reg_weight=settings.graph_reg,
            require_pow=True,
            epochs=settings.graph_epochs,
            learning_rate=settings.graph_lr,
            train_batch_size=settings.graph_batch,
            learner="adam",
            weight_decay=0.0,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the edges and of all that the vectors depend on besides."""
        edges = {user: sorted(set(sequence)) for user, sequence in self.sequences.items()}
        if self.files:
            return digest(edges, {kind: file_digest(file) for kind, file in self.files.items()})
        return digest(edges, settings_that_count(self.config))

    def load(self) -> StoredGraph:
        """The vectors: from the files, stored, or trained now and stored.

        For the errors see :func:`graph_vectors`.
        """
        if self.files:
            return self._from_files()
        folder = Path(self.run_config.settings.cache_dir) / f"graph-{self.fingerprint}"
        tensors, meta = stored_vectors(folder, self.fingerprint, self._train, self.log)
        users, items = len(meta["user_tokens"]), len(meta["item_tokens"])
        shapes = {
            "user_layers": (None, users, None),
            "item_layers": (None, items, None),
            "user_degree": (users,),
            "item_degree": (items,),
        }
        check_tensors(folder, tensors, shapes)
        return StoredGraph(**meta, **tensors)

    def _train(self) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
        """RecBole's LightGCN with uniform negatives among the items that the user does not have.

        The edges of a user who has all items count in the graph, and train nothing.
        """
        config = self.config
        with kept_randomness():
            data = edges_only(training_split(self.run_config.derived("SASRec")), self.sequences)
            users, items = (
                data.field2id_token[field][1:].tolist()
                for field in (data.uid_field, data.iid_field)
            )
            degrees = [
                torch.bincount(data.inter_feat[field])[1:]
                for field in (data.uid_field, data.iid_field)
            ]
            pairs = self._pairs_with_negatives(data, degrees[0] < len(items))
            rows = TrainDataLoader(
                config, pairs, Sampler("train", pairs).set_phase("train"), shuffle=True
            )
            model = trained_model(config, data, rows, self.log)
            layers = [layer[:, 1:].detach().cpu() for layer in model.layers()]
        names = ("user_layers", "item_layers", "user_degree", "item_degree")
        return dict(zip(names, (*layers, *degrees), strict=True)), {
            "user_tokens": users,
            "item_tokens": items,
        }

    def _pairs_with_negatives(self, data: Dataset, has_negatives: Tensor) -> Dataset:
        """The edges of users who lack an item.

        Args:
            data: all edges.
            has_negatives: bool ``[users]``, without the padding user.

        Raises:
            DataError: no user lacks an item.
        """
        if has_negatives.all():
            return data
        if not has_negatives.any():
            raise DataError(
                "Every user has every item of the training split, so there is no negative that "
                "vectors of LightGCN could be learned from. Give vectors of your own "
                "(graph_user_file and graph_item_file)."
            )
        self.log(
            f"Users who have all items of the training split: {int((~has_negatives).sum())}. They "
            "stay in the graph of LightGCN, and nothing is learned from their pairs."
        )
        users = data.inter_feat[data.uid_field]
        return data.copy(data.inter_feat[has_negatives[users - 1]])

    def _from_files(self) -> StoredGraph:
        names = " and ".join(map(str, self.files.values()))
        self.log(
            f"WARNING: collaborative vectors come from {names}; whether they saw held-out "
            "interactions is unchecked."
        )
        edges = [
            (user, item)
            for user, sequence in self.sequences.items()
            for item in dict.fromkeys(sequence)
        ]
        tokens: list[Any] = []
        layers: list[Any] = []
        degrees: list[Any] = []
        for (kind, file), ends in zip(self.files.items(), zip(*edges, strict=True), strict=True):
            ids, vectors = read_vectors(file)
            row = {token: number for number, token in enumerate(ids)}
            missing = [end for end in dict.fromkeys(ends) if end not in row]
            if missing:
                raise DataError(
                    f"{file} lacks {len(missing)} of the {kind} in the training split, such as "
                    f"{missing[:3]}. Add their lines."
                )
            tokens.append(ids)
            layers.append(torch.from_numpy(vectors).unsqueeze(0))
            degrees.append(
                torch.bincount(torch.tensor([row[end] for end in ends]), minlength=len(ids))
            )
        widths = [layer.shape[-1] for layer in layers]
        if widths[0] != widths[1]:
            raise DataError(
                f"{names}, line 1: the vectors have {widths[0]} and {widths[1]} numbers; users and "
                "items need equally many."
            )
        return StoredGraph(*tokens, *layers, *degrees)
