"""Item vectors that are drawn towards the texts of their items (``align_weight``).

A term of the loss beside the recommendation, as LETTER draws codes towards collaborative vectors
(arXiv 2405.07314, section 3.2); the form is our choice and unpublished::

    loss = ... + weight * mean over the targets of (1 - cos(A v_i, e_i))

``v_i`` is the vector with which item i enters, ``e_i`` its standardised sentence embedding and
``A`` a linear map that is learned with the rest and needed in training alone.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


class TextAlignment(nn.Module):
    """The map from item vectors to sentence embeddings.

    Args:
        d: width of the item vectors.
        text_width: width of the embeddings.
    """

    def __init__(self, d: int, text_width: int):
        super().__init__()
        self.map = nn.Linear(d, text_width)

    def loss(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """Mean distance by cosine, 0 to 2.

        Args:
            vectors: item vectors ``[P, d]``.
            texts: their sentence embeddings ``[P, D]``.
        """
        return (1 - cosine_similarity(self.map(vectors).float(), texts.float(), dim=-1)).mean()
