"""META ID's identifiers (arXiv 2406.08477): a cluster and a rank there, for users and items alike.

==================================  ============================================================
specification                       here
==================================  ============================================================
walks along user-item-user-item     ``walks.py``: ``BipartiteGraph.walks``
skip-gram with negative sampling    ``skip_gram.py``: ``SkipGram``
joint spherical clustering          ``quantiser/node_clusters.py``: ``NodeClusters.fit``
rank in the cluster                 ``quantiser/node_clusters.py``: ``ranks``
users and items without an edge     :meth:`MetaPathTokenizer.fit`
new users and items                 :meth:`MetaPathTokenizer.place`
==================================  ============================================================

Only the training split is seen. Any generator takes the codes of the items; ``model/metaid/``
also writes its users with them (:attr:`MetaPathTokenizer.user_codes`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import FitKeys, TokenizerSettings
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.code_sizes import effective_sizes
from recbole_genrec.tokenizer.codes import PADDING, ItemCodes
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.entity_codes import EntityCodes
from recbole_genrec.tokenizer.free_codes import FreeCodes
from recbole_genrec.tokenizer.quantiser.node_clusters import NodeClusters
from recbole_genrec.tokenizer.skip_gram import SkipGram, SkipGramSettings, SkipGramStage
from recbole_genrec.tokenizer.walks import BipartiteGraph

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class MetaPathSettings(FitKeys, TokenizerSettings):
    """Keys of ``tokenizer: metapath``."""

    codebook_sizes: list[int] = key(
        "one entry, the number of clusters; the size of the second level, the ranks, follows",
        ge=1,
        affects="tokenizer",
    )
    walks_per_node: int = key("walks that start at each user and item", ge=1, affects="tokenizer")
    walk_length: int = key("users and items of a walk", ge=2, affects="tokenizer")
    path_dim: int = key("size of the skip-gram vectors", ge=1, affects="tokenizer")
    path_window: int = key(
        "places before and after a node that are its context", ge=1, affects="tokenizer"
    )
    path_negatives: int = key("negatives for each pair", ge=1, affects="tokenizer")
    clustering: Literal["spherical", "euclidean"] = key(
        "distance of the clusters: cosine or Euclidean", affects="tokenizer"
    )
    balanced: bool = key(
        "no cluster gets more than its share, which makes ranks fewer", affects="tokenizer"
    )
    fine_headroom: int = key("free ranks for new items", ge=0, affects="tokenizer")


class MetaPathTokenizer(ItemTokenizer):
    """Clusters of skip-gram vectors of users and items.

    Attributes:
        user_codes: codes of the users, over the same two alphabets as those of the items; no pair
            belongs to two of them.
        clusters: of the nodes that have a training edge. One more follows for those without.
        item_vectors: skip-gram vectors float32 ``[n_items, d]`` in the order of
            :attr:`item_tokens`; zero for padding and without a training edge.
        user_vectors: the same of the users, in the order of ``user_codes.tokens``.
        item_tokens: raw ids of the items, "[PAD]" first.
        members: users and items in each cluster, int64 ``[K + 1]``.
    """

    name = "metapath"
    uses_text = False
    uses_interactions = True
    places_by_users = True
    settings_class = MetaPathSettings
    settings: MetaPathSettings

    user_codes: ItemCodes
    clusters: NodeClusters
    item_vectors: Tensor
    user_vectors: Tensor
    item_tokens: list[str]
    members: Tensor

    def interactions_key(self, content: ItemContent) -> object:
        """As the base says, with the users of the dataset, all of whom get codes."""
        return [super().interactions_key(content), sorted(content.users)]

    # --- the fit ------------------------------------------------------------------------------

    def fit(self, content: ItemContent) -> ItemCodes:
        """Walks, vectors, clusters, ranks; all in the order of the raw ids.

        Items and users without a training edge go to one more cluster, in the order of their raw
        ids, items first.

        Raises:
            ConfigError: ``codebook_sizes`` has more than one entry.
        """
        graph = BipartiteGraph.of(content.user_sequences())
        n_clusters = self._n_clusters(graph.n_nodes)
        vectors = self._vectors(graph)  # [N, d]
        fitted = self.loop().compute("clusters", lambda: self._clustered(vectors, n_clusters))
        self.clusters = NodeClusters(fitted["centroids"], self._spherical)

        lonely_items = sorted(set(content.tokens[1:]) - set(graph.items))
        lonely_users = sorted(set(content.users[1:]) - set(graph.users))
        self._count_lonely(lonely_items, lonely_users)
        rank = torch.arange(len(lonely_items) + len(lonely_users))
        extra = torch.stack([torch.full_like(rank, self.n_clusters), rank], dim=1)
        nowhere = vectors.new_zeros(len(extra), vectors.shape[1])

        connected = (len(graph.items), len(graph.users))
        lonely = (len(lonely_items), len(lonely_users))
        item_codes, user_codes = _by_kind(fitted["codes"], connected, extra, lonely)
        self.item_vectors, self.user_vectors = _by_kind(vectors, connected, nowhere, lonely)
        self.item_tokens = [PADDING, *graph.items, *lonely_items]
        user_tokens = [PADDING, *graph.users, *lonely_users]

        nodes = torch.cat([item_codes[1:], user_codes[1:]])
        sizes = (self.n_clusters + 1, int(nodes[:, 1].max()) + 1 + self.settings.fine_headroom)
        self.members = torch.bincount(nodes[:, 0], minlength=sizes[0])
        self.user_codes = _checked_codes(user_codes, sizes, user_tokens)
        items = _checked_codes(item_codes, sizes, self.item_tokens)
        self.entities(items)
        return items.aligned(content.tokens)

    def _vectors(self, graph: BipartiteGraph) -> Tensor:
        """Skip-gram vectors float32 ``[N, d]`` on the CPU."""
        settings = self.settings
        walks = graph.walks(settings.walks_per_node, settings.walk_length, self.seed)
        how = SkipGramSettings(
            settings.path_window,
            settings.path_negatives,
            settings.tokenizer_batch_size,
            settings.tokenizer_epochs,
            settings.tokenizer_lr,
            self.seed,
        )
        with seeded(self.seed):
            network = SkipGram(graph.n_nodes, settings.path_dim).to(self.settings.chosen_device)
            self.loop().train(SkipGramStage(network, walks, how))
        return network.centres.weight.detach().cpu().clone()

    def _n_clusters(self, n_nodes: int) -> int:
        sizes = self.settings.codebook_sizes
        if len(sizes) != 1:
            raise ConfigError(
                f"codebook_sizes is {sizes}, but tokenizer: metapath learns one level, the "
                "clusters; the ranks in them make the second one. Write "
                "--codebook_sizes=[100]."
            )
        (asked,) = sizes
        (n_clusters,) = effective_sizes(n_nodes, sizes)
        if n_clusters < asked:
            logging.getLogger().info(
                f"{n_nodes:,} users and items: {n_clusters} clusters instead of {asked}."
            )
        return n_clusters

    def _clustered(self, vectors: Tensor, n_clusters: int) -> dict[str, Tensor]:
        clusters = NodeClusters.fit(vectors, n_clusters, self._spherical)
        codes = clusters.codes(vectors, self.settings.balanced)
        return {"centroids": clusters.centroids, "codes": codes}

    def _count_lonely(self, items: Sequence[str], users: Sequence[str]) -> None:
        self.quality["items_without_interaction"] = len(items)
        self.quality["users_without_interaction"] = len(users)
        if items or users:
            logging.getLogger().info(
                f"{len(items)} items and {len(users)} users have no training interaction; they "
                f"are in a cluster of their own, {self.n_clusters}."
            )

    @property
    def _spherical(self) -> bool:
        return self.settings.clustering == "spherical"

    # --- users and items ----------------------------------------------------------------------

    @property
    def n_clusters(self) -> int:
        """K, the clusters of nodes with a training edge; K is also the number of the extra one."""
        return len(self.clusters.centroids)

    def entities(self, items: ItemCodes) -> EntityCodes:
        """The codes of the users beside codes of the items.

        Raises:
            ArtefactError: an item has the codes of a user or of another item.
        """
        return EntityCodes(items, self.user_codes, shared=True)

    def side_vectors(self) -> Tensor:
        """Centroids of the clusters, float32 ``[K + 1, d]``; zero for the extra one."""
        centroids = self.clusters.centroids.float()
        return torch.cat([centroids, centroids.new_zeros(1, centroids.shape[1])])

    # --- new users and items ------------------------------------------------------------------

    def nearby(self, vectors: Tensor) -> Tensor:
        """The cluster of new nodes, int64 ``[n]``: the nearest, or the extra one.

        Args:
            vectors: mean of the vectors of a node's neighbours, ``[n, d]``; zero where it has
                none.
        """
        nearest = self.clusters.distances(vectors).argmin(1)
        return nearest.where(vectors.cpu().any(1), self.n_clusters)

    def new_pairs(self, vectors: Tensor) -> Tensor:
        """Codes of users who are new, int64 ``[n, 2]``: cluster, and the rank after its last one.

        A rank that does not exist gives way to the last that does (our choice).

        Args:
            vectors: as in :meth:`nearby`.
        """
        clusters = self.nearby(vectors)
        last = self.user_codes.sizes[1] - 1
        return torch.stack([clusters, self.members[clusters].clamp(max=last)], dim=1)

    def encode(self, new: NewItems) -> Tensor:
        """Cluster and rank 0 of new items; :meth:`place` finds their free ranks.

        Raises:
            ConfigError: neither vectors nor users are given, or they do not fit.
        """
        clusters = self.nearby(self._new_vectors(new))
        return torch.stack([clusters, torch.zeros_like(clusters)], dim=1)

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """The first free rank of the nearest cluster, or of the next one that has any.

        Ranks of users are not free.

        Raises:
            ConfigError: as :meth:`encode`; or no rank is free.
        """
        if len(sizes) != 2:
            raise ConfigError(
                f"tokenizer: metapath gives an item two codes, not {len(sizes)}, so it cannot "
                "place new items here."
            )
        vectors = self._new_vectors(new)
        clusters = self.nearby(vectors)
        order = self.clusters.distances(vectors).argsort(1)  # [n, K]
        free = FreeCodes(torch.cat([existing, self.user_codes.codes[1:]]), sizes)
        placed, moved = [], 0
        for cluster, nearest in zip(clusters.tolist(), order.tolist(), strict=True):
            codes, n_kept = self._first_free(free, cluster, nearest, sizes)
            placed.append(codes)
            moved += n_kept == 0
        return torch.tensor(placed), moved

    def _first_free(
        self, free: FreeCodes, cluster: int, nearest: Sequence[int], sizes: Sequence[int]
    ) -> tuple[tuple[int, ...], int]:
        def rank(prefix: tuple[int, ...]) -> Sequence[int]:
            if prefix:
                return range(sizes[1])
            return [*nearest, self.n_clusters]

        if free.full(()):
            raise ConfigError(
                "Every rank of every cluster is taken, so no new item can be placed. Fit with a "
                f"larger --fine_headroom than {self.settings.fine_headroom}."
            )
        return free.take([cluster], rank)

    def _new_vectors(self, new: NewItems) -> Tensor:
        """Vectors float32 ``[n, d]`` of new items: given, or the mean of those of their users."""
        width = self.item_vectors.shape[1]
        if new.vectors is not None:
            vectors = torch.as_tensor(new.vectors, dtype=torch.float32)
            if vectors.shape != (len(new), width) or not vectors.isfinite().all():
                raise ConfigError(
                    f"{len(new)} new items with vectors of shape {list(vectors.shape)}: tokenizer: "
                    f"metapath needs finite numbers of shape [{len(new)}, {width}]."
                )
            return vectors
        if new.users is None or len(new.users) != len(new):
            raise ConfigError(
                "tokenizer: metapath places items by their interactions. Give for each new item "
                "the users who chose it (users=), or a path vector (vectors=)."
            )
        row = {token: number for number, token in enumerate(self.user_codes.tokens)}
        return torch.stack([self._mean_of_users(users, row) for users in new.users])

    def _mean_of_users(self, users: Sequence[str], row: dict[str, int]) -> Tensor:
        """Mean ``[d]`` of the users that training knew; zero for an item that nobody chose."""
        rows = [row[user] for user in users if user in row]
        if len(users) and not rows:
            raise ConfigError(
                f"Training knew none of the users of a new item ({', '.join(users[:3])}), so they "
                "say nothing about its place. Give users of the training data."
            )
        return mean_of_known(self.user_vectors[rows].unsqueeze(0))[0]

    # --- the store ----------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Clusters, vectors and codes of the users."""
        tensors, meta = super().state()
        tensors |= {
            "centroids": self.clusters.centroids,
            "item_vectors": self.item_vectors,
            "user_vectors": self.user_vectors,
            "user_codes": self.user_codes.codes,
            "members": self.members,
        }
        meta |= {
            "items": self.item_tokens,
            "users": self.user_codes.tokens,
            "sizes": list(self.user_codes.sizes),
            "user_stats": self.user_codes.stats_before,
        }
        return tensors, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`.

        Raises:
            ArtefactError: the tensors do not belong together.
        """
        super().set_state(tensors, meta)
        self.clusters = NodeClusters(tensors["centroids"], self._spherical)
        self.item_tokens = meta["items"]
        self.item_vectors = tensors["item_vectors"]
        self.user_vectors = tensors["user_vectors"]
        self.members = tensors["members"]
        self.user_codes = ItemCodes(
            tensors["user_codes"], tuple(meta["sizes"]), meta["users"], meta["user_stats"], ["none"]
        )
        n_clusters, width = self.clusters.centroids.shape
        expected = {
            "item_vectors": [len(self.item_tokens), width],
            "user_vectors": [len(self.user_codes.tokens), width],
            "members": [n_clusters + 1],
        }
        for name, expected_shape in expected.items():
            shape = list(tensors[name].shape)
            if shape != expected_shape:
                raise ArtefactError(
                    f"{name} of the tokenizer have shape {shape}, not {expected_shape}. Fit "
                    "the tokenizer again."
                )


def mean_of_known(vectors: Tensor) -> Tensor:
    """Mean ``[B, d]`` of those of ``vectors [B, T, d]`` that are not zero; zero without any."""
    known = vectors.any(-1).sum(1, keepdim=True)  # [B, 1]
    return vectors.sum(1) / known.clamp(min=1)


def _checked_codes(codes: Tensor, sizes: tuple[int, int], tokens: list[str]) -> ItemCodes:
    """Codes ``[n + 1, 2]`` of one kind; the clusters are learned, the ranks follow."""
    return ItemCodes(codes, sizes, tokens, collision_stats(codes[1:, :1]), ["none"])


def _by_kind(
    connected: Tensor, n_connected: tuple[int, int], lonely: Tensor, n_lonely: tuple[int, int]
) -> list[Tensor]:
    """Rows of the items and rows of the users, each with a padding row of zeros in front.

    Args:
        connected: rows of nodes with an edge, items first.
        n_connected: how many of them are items and users.
        lonely: rows of those without an edge, items first.
        n_lonely: how many of them are items and users.
    """
    padding = connected.new_zeros(1, connected.shape[1])
    of_kinds = zip(connected.split(n_connected), lonely.split(n_lonely), strict=True)
    return [torch.cat([padding, with_edge, without]) for with_edge, without in of_kinds]
