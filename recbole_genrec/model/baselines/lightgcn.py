"""RecBole's LightGCN with an adjacency matrix that today's scipy can build.

It is TokenRec's collaborative teacher and a baseline.

==============================  ===========================================================
paper (arXiv 2002.02126)        here
==============================  ===========================================================
normalised graph (eq. 8)        :meth:`LightGCN.get_norm_adj_mat`
propagation (eq. 3)             :meth:`LightGCN.layers`
combination of layers (eq. 4)   :meth:`LightGCN.forward`
==============================  ===========================================================
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.general_recommender.lightgcn import LightGCN as RecBoleLightGCN
from torch import Tensor


class LightGCN(RecBoleLightGCN):
    """LightGCN (arXiv 2002.02126) as in RecBole.

    RecBole builds the graph with scipy's private ``dok_matrix._update``, which was removed.

    The class keeps RecBole's name, so RecBole's and our ``LightGCN.yaml`` apply.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            # CSR multiplies several times faster than coordinates.
            self.norm_adj_matrix = self.norm_adj_matrix.to_sparse_csr()

    def get_norm_adj_mat(self) -> Tensor:
        """The normalised user-item graph of the training rows (eq. 8).

        Returns:
            Coalesced sparse float32 ``[n_users + n_items, n_users + n_items]``:
            ``D^-1/2 A D^-1/2``. ``A`` is 1 for each pair that interacted, however often. ``D``
            holds the degrees plus 1e-7, as in RecBole.
        """
        users = self.interaction_matrix.row
        items = self.interaction_matrix.col + self.n_users
        rows = np.concatenate([users, items])
        columns = np.concatenate([items, users])
        size = self.n_users + self.n_items
        adjacency = sp.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
        adjacency = adjacency.tocsr()
        adjacency.data[:] = 1.0  # tocsr added repeated pairs up

        degrees = adjacency.sum(axis=1).A1 + 1e-7
        scale = sp.diags(np.power(degrees, -0.5))
        normalised = (scale @ adjacency @ scale).tocoo()

        indices = np.stack([normalised.row, normalised.col]).astype(np.int64)
        values = torch.from_numpy(normalised.data).float()
        graph = torch.sparse_coo_tensor(
            torch.from_numpy(indices), values, normalised.shape, check_invariants=True
        )
        return graph.coalesce()

    def layers(self) -> tuple[Tensor, Tensor]:
        """Embeddings and their propagations (eq. 3).

        Returns:
            Users ``[n_layers + 1, n_users, d]`` and items ``[n_layers + 1, n_items, d]``.
        """
        layers = [self.get_ego_embeddings()]
        for _ in range(self.n_layers):
            layers.append(_SymmetricProduct.apply(self.norm_adj_matrix, layers[-1]))
        return torch.stack(layers).split([self.n_users, self.n_items], dim=1)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors (eq. 4 with equal weights).

        Returns:
            Users ``[n_users, d]`` and items ``[n_items, d]``.
        """
        users, items = self.layers()
        return users.mean(0), items.mean(0)


class _SymmetricProduct(torch.autograd.Function):
    """``matrix @ x`` for a symmetric sparse matrix.

    Its gradient uses the matrix as it is. Transposing it would cost more than the product.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        return _product(matrix, x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _product(ctx.matrix, gradient)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    # There is no sparse product in half precision.
    with torch.autocast(x.device.type, enabled=False):
        return torch.sparse.mm(matrix, x.float())
