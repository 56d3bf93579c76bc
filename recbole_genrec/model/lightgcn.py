"""RecBole's LightGCN with an adjacency matrix that today's scipy can build; TokenRec's collaborative teacher and a baseline."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.general_recommender.lightgcn import LightGCN as RecBoleLightGCN
from torch import Tensor


class LightGCN(RecBoleLightGCN):
    """LightGCN (arXiv 2002.02126) as in RecBole, whose builder calls scipy's private and now removed ``dok_matrix._update``.

    The class keeps RecBole's name, so RecBole's and our ``LightGCN.yaml`` apply.
    """

    def get_norm_adj_mat(self) -> Tensor:
        """The normalised user-item graph of the training rows (arXiv 2002.02126, eq. 8).

        Returns:
            Coalesced sparse float32 ``[n_users + n_items, n_users + n_items]``: ``D^-1/2 A D^-1/2``, where ``A`` is 1 for each pair that
            interacted, however often, and ``D`` holds the degrees plus 1e-7 as in RecBole.
        """
        users, items = self.interaction_matrix.row, self.interaction_matrix.col + self.n_users
        size = self.n_users + self.n_items
        rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
        adjacency = sp.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
        adjacency.data[:] = 1.0  # tocsr added repeated pairs up
        scale = sp.diags(np.power(adjacency.sum(axis=1).A1 + 1e-7, -0.5))
        normalised = (scale @ adjacency @ scale).tocoo()
        indices = torch.from_numpy(np.stack([normalised.row, normalised.col]).astype(np.int64))
        values = torch.from_numpy(normalised.data).float()
        return torch.sparse_coo_tensor(indices, values, normalised.shape, check_invariants=True).coalesce()

    @torch.no_grad()
    def layers(self) -> tuple[Tensor, Tensor]:
        """Every layer of :meth:`forward`'s mean: users ``[n_layers + 1, n_users, d]`` and items ``[n_layers + 1, n_items, d]``."""
        layers = [self.get_ego_embeddings()]
        for _ in range(self.n_layers):
            layers.append(torch.sparse.mm(self.norm_adj_matrix, layers[-1]))
        return torch.stack(layers).split([self.n_users, self.n_items], dim=1)
