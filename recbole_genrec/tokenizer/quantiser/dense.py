"""Stage 1 of STORE (arXiv 2409.07276 v1).

Text to dense tokens and back, by one causal language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import compose, constant, embed_mixed
from recbole_genrec.backbone.visibility import causal


class DenseTokenizer(nn.Module):
    """Stage 1: text -> M dense tokens -> text, all by one causal language model.

    Args:
        backbone: a ``CausalBackbone``.
        n_dense: M.
        prompt: token ids ``[p]`` of the sentence that asks for the reconstruction.
    """

    prompt: Tensor

    def __init__(self, backbone: Any, n_dense: int, prompt: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_dense = n_dense
        table = backbone.text_table.weight
        self.queries = nn.Parameter(torch.randn(n_dense, backbone.d_in) * table.std().item())
        self.mask_vector = nn.Parameter(torch.randn(backbone.d_in) * table.std().item())
        self.inject = nn.Linear(backbone.d_model, backbone.d_in, bias=False)  # P
        nn.init.orthogonal_(self.inject.weight)
        if backbone.d_model == backbone.d_in:
            nn.init.eye_(self.inject.weight)
        self.register_buffer("prompt", prompt, persistent=False)

    def dense(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Pass 1, ``[emb(x) ; q_1..q_M]``: the last states at the queries.

        Args:
            ids: text tokens ``[B, T]``.
            valid: bool ``[B, T]``, which of them count.

        Returns:
            ``[B, M, d_model]``.
        """
        rows, n_text = len(ids), self.backbone.text_table.num_embeddings
        query_ids = n_text + torch.arange(self.n_dense, device=ids.device)
        sequence, lengths = compose((ids, valid), constant(query_ids, rows))
        states = self.backbone.hidden_states(
            embed_mixed(sequence, self.backbone.text_table, self.queries)
        )
        at = (lengths - self.n_dense).unsqueeze(1) + torch.arange(self.n_dense, device=ids.device)
        return states.gather(1, at.unsqueeze(-1).expand(-1, -1, states.shape[-1]))

    def reconstruction_loss(
        self, dense: Tensor, ids: Tensor, valid: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Pass 2, ``[P(D) ; prompt ; emb(x)]``.

        Mean cross-entropy of the text, L_t2t, over all tokens of the batch together (our choice;
        the formula takes the mean of each text first).

        Args:
            dense: ``[B, M, d_model]``.
            ids: text tokens ``[B, T]``.
            valid: bool ``[B, T]``, which of them count.
            dropout: probability with which an input token (never a target) is replaced by the
                learned mask vector.
        """
        text = self.backbone.text_table(ids)
        hidden_input = torch.rand(ids.shape, device=ids.device) < dropout
        text = torch.where(hidden_input.unsqueeze(-1), self.mask_vector.to(text.dtype), text)
        prompt = self.backbone.text_table(self.prompt).expand(len(ids), -1, -1)
        states = self.backbone(torch.cat([self.inject(dense).to(text.dtype), prompt, text], dim=1))
        before_text = self.n_dense + len(self.prompt) - 1
        logits = self.backbone.text_logits(states[:, before_text:-1][valid])
        return nn.functional.cross_entropy(logits.float(), ids[valid])

    def one_pass_loss(
        self,
        content: tuple[Tensor, Tensor],
        task: tuple[Tensor, Tensor],
        dropout: float = 0.0,
    ) -> Tensor:
        """One pass, ``[emb(x) ; q_1..q_M ; prompt ; emb(x)]``: the text without a second pass.

        The prompt and the text after it do not see the content, only the queries and themselves, a
        layer below. So the last states at the queries, which k-means clusters, get no gradient:
        this is an ablation.

        Args:
            content: text tokens ``[B, T]`` that the queries read, and bool which of them count.
            task: the same of the text that is restored.
            dropout: see :meth:`reconstruction_loss`.

        Returns:
            Mean cross-entropy of the text of ``task``.
        """
        ids, valid = task
        rows, device = len(ids), ids.device
        n_text = self.backbone.text_table.num_embeddings
        queries = n_text + torch.arange(self.n_dense, device=device)
        hidden_input = torch.rand(ids.shape, device=device) < dropout
        shown = ids.masked_fill(hidden_input, n_text + self.n_dense)
        segments = (content, constant(queries, rows), constant(self.prompt, rows), (shown, valid))
        sequence, _ = compose(*segments)  # [B, S]

        def marked(number: int, segment: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return torch.full_like(segment[0], number), segment[1]

        block, _ = compose(*(marked(number, part) for number, part in enumerate(segments, start=1)))
        sees = causal(sequence.shape[1], device) & ~(
            (block > 2).unsqueeze(2) & (block == 1).unsqueeze(1)
        )  # [B, S, S]
        learned = torch.cat([self.queries, self.mask_vector.unsqueeze(0)])
        embeddings = embed_mixed(sequence, self.backbone.text_table, learned)
        positions = torch.arange(sequence.shape[1], device=device).expand(rows, -1)
        states = self.backbone(embeddings, sees.unsqueeze(1), positions)

        # A state predicts the token after it.
        before_text = (block == 4).roll(-1, 1)
        before_text[:, -1] = False
        logits = self.backbone.text_logits(states[before_text])
        return nn.functional.cross_entropy(logits.float(), ids[valid])

    @torch.no_grad()
    def scale_injection(self, ids: Tensor, valid: Tensor) -> None:
        """Scale P so that P(D) enters with the mean norm of the text embeddings."""
        self.eval()
        injected = self.inject(self.dense(ids, valid)).norm(dim=-1).mean()
        self.inject.weight.mul_(
            self.backbone.text_table.weight.norm(dim=-1).mean() / injected.clamp(min=1e-6)
        )
