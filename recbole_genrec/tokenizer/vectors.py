"""What the tokenizers of item vectors share: inputs, standardisation, collapse check, collisions, new items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.data.text_encoder import column_scale, encode_texts, encoder_identity
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.base import ItemTokenizer
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import check_capacity, collision_stats
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans

COLLAPSED = 0.9
"""Share of the items that may have one and the same tuple before the fit is refused."""
REMEDY = "Check that the item texts differ, keep standardize: True, train it longer or with another seed, or use tokenizer: rkmeans."


class VectorTokenizer(ItemTokenizer):
    """Quantises one vector an item: its sentence embedding, or a collaborative vector (``tokenizer_input: cf`` from SASRec, ``graph``
    from LightGCN).

    A subclass writes :meth:`learn`, which sets ``quantiser``: an object with ``sizes``, ``assign(x) -> codes [n, L]``,
    ``level_distances(x) -> L tensors [n, K_l]`` and ``reconstruct(codes) -> x [n, D]``.
    """

    settings = ("tokenizer_input", "standardize", "codebook_sizes", "collision", "dedup_spare")
    config_rules = {
        "tokenizer_input": Rule(str, "vectors that are quantised", choices=("text", "cf", "graph")),
        "standardize": Rule(bool, "zero mean and unit variance in each dimension"),
    }

    def config_key(self) -> dict:
        """The settings, and the text encoder's weights where it is used."""
        return super().config_key() | (
            {"text_encoder": encoder_identity(self.config["text_encoder"])}
            if self.uses_text
            else {}
        )

    @property
    def uses_text(self) -> bool:
        """``tokenizer_input: text`` reads the item texts."""
        return self.config["tokenizer_input"] == "text"

    @property
    def uses_interactions(self) -> bool:
        """``tokenizer_input: cf`` and ``graph`` read the training split."""
        return not self.uses_text

    @property
    def uses_graph(self) -> bool:
        """``tokenizer_input: graph`` reads LightGCN's vectors."""
        return self.config["tokenizer_input"] == "graph"

    def interactions_key(self, content) -> object:
        """As the base says, with the settings of LightGCN where its vectors are used."""
        key = super().interactions_key(content)
        return [key, content.graph_fingerprint] if self.uses_graph else key

    @abstractmethod
    def learn(self, x: Tensor, content) -> None:
        """Set ``self.quantiser`` from the item vectors ``x [n, D]``, float32."""

    def vectors(self, content) -> np.ndarray:
        """What is quantised, ``[n_items, D]``, row 0 = padding item."""
        source = {"text": content.embeddings, "cf": content.collaborative, "graph": content.graph}
        return source[self.config["tokenizer_input"]]()

    def fit(self, content) -> ItemCodes:
        """Vectors -> quantiser -> codes -> collision policies, all in the order of the raw item ids (``self.order``, rows of ``content``).

        The numbering of the items therefore changes no item's codes.
        """
        check_capacity(
            len(content.tokens) - 1, self.config["codebook_sizes"], self.config["collision"]
        )
        self.order = 1 + np.argsort(np.array(content.tokens[1:]), kind="stable")
        vectors = self.vectors(content)[self.order]
        without = (vectors == 0).all(1) & (
            not self.uses_text
        )  # items without an interaction stay zero vectors
        self.centre, self.factor = scale_of(
            vectors if without.all() else vectors[~without], self.config["standardize"]
        )
        x = self._scaled(vectors)
        x[torch.from_numpy(without)] = 0
        _refuse_collapse(x, "vector")
        self.learn(x, content)
        learned = self.quantiser.assign(x)
        _refuse_collapse(learned, "codes")
        _refuse_single_codes(learned, self.quantiser.sizes, x)
        self.quality["reconstruction_error"] = float(
            (self.quantiser.reconstruct(learned) - x).square().mean()
        )
        codes = ItemCodes.build(
            learned,
            self.quantiser.sizes,
            [content.tokens[row] for row in (0, *self.order)],
            self.config["collision"],
            distances=lambda rows: self.quantiser.level_distances(x[rows]),
            spare=self.config["dedup_spare"],
        )
        return codes.aligned(content.tokens)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Codes of new items from their texts alone."""
        return self.quantiser.assign(self._new(texts))

    def place(
        self, texts: Sequence[str], existing: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, int]:
        """As the base says; an item whose codes are full takes the nearest free ones."""
        x = self._new(texts)
        return self._place(
            self.quantiser.assign(x),
            existing,
            sizes,
            lambda rows: self.quantiser.level_distances(x[rows]),
        )

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Scaling and quantiser; a subclass adds what its quantiser is made of."""
        tensors, meta = super().state()
        return {
            **tensors,
            "centre": torch.from_numpy(self.centre),
            "factor": torch.from_numpy(self.factor),
        }, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.centre, self.factor = tensors["centre"].numpy(), tensors["factor"].numpy()

    def _scaled(self, vectors: np.ndarray) -> Tensor:
        return torch.from_numpy(((vectors - self.centre) * self.factor).astype(np.float32))

    def _new(self, texts: Sequence[str]) -> Tensor:
        if not self.uses_text:
            raise ConfigError(
                f"tokenizer_input: {self.config['tokenizer_input']} quantises collaborative vectors, which new items do not have. "
                "Use tokenizer_input: text."
            )
        options = {"device": self.config["device"] or "cpu", "show_progress": False}
        return self._scaled(
            encode_texts(["", *texts], self.config["text_encoder"], None, **options)[1:]
        )


class RKMeansTokenizer(VectorTokenizer):
    """Residual k-means, no training: the libraries cornac and GRID report it within a few percent of RQ-VAE (our default)."""

    name = "rkmeans"
    settings = (*VectorTokenizer.settings, "pca_dim")
    config_rules = {
        **VectorTokenizer.config_rules,
        "pca_dim": Rule(int, "dimensions that k-means sees; null = all", low=1, optional=True),
    }

    def learn(self, x: Tensor, content) -> None:
        """k-means, level by level, on what the levels before leave."""
        self.quantiser = ResidualKMeans.fit(
            x, self.config["codebook_sizes"], self.seed, self.config["pca_dim"]
        )

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Scaling and codebooks."""
        tensors, meta = super().state()
        return {**tensors, **self.quantiser.tensors()}, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.quantiser = ResidualKMeans.from_tensors(
            {name: value for name, value in tensors.items() if name not in ("centre", "factor")}
        )


def scale_of(vectors: np.ndarray, standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and factor of each column of ``vectors [n, D]``, see :func:`column_scale`; 0 and 1 unless ``standardize``."""
    return (
        column_scale(vectors)
        if standardize
        else (np.zeros(vectors.shape[1]), np.ones(vectors.shape[1]))
    )


def _refuse_collapse(rows: Tensor, what: str) -> None:
    """Refuse ``rows [n, ...]`` nearly all of which are equal."""
    same = (
        collision_stats(rows)["largest_group"]
        if rows.dtype == torch.long
        else int((rows == rows[0]).all(1).sum())
    )
    if len(rows) > 1 and same > COLLAPSED * len(rows):
        raise GenRecError(
            f"The tokenizer collapsed: {same} of {len(rows)} items have the same {what}. {REMEDY}"
        )


def _refuse_single_codes(codes: Tensor, sizes: Sequence[int], x: Tensor) -> None:
    """Refuse ``codes [n, L]`` with one value at a level of several, unless the levels before it tell all different ``x [n, D]`` apart."""
    for level, size in enumerate(sizes):
        told_apart = len(codes[:, :level].unique(dim=0)) if level else 1
        if size > 1 and len(codes[:, level].unique()) == 1 and told_apart < len(x.unique(dim=0)):
            raise GenRecError(
                f"The tokenizer collapsed: all items have the same code at level {level}. {REMEDY}"
            )
