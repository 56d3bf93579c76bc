"""LETTER's tokenizer (arXiv 2405.07314): TIGER's RQ-VAE with two more losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from recbole_genrec.settings.declaration import key
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import balanced_clusters
from recbole_genrec.tokenizer.quantiser.letter_loss import LETTERLoss
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.rqvae_stage import RQVAEStage
from recbole_genrec.tokenizer.rqvae_tokenizer import RQVAESettings, RQVAETokenizer

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class LETTERStage(RQVAEStage):
    """Trains an RQ-VAE with L_Sem + alpha L_CF + beta L_Div.

    Args:
        network: with its codebooks set.
        x: item vectors ``[n, D]`` on the network's device.
        settings: of the tokenizer.
        seed: of everything random.
        cf: collaborative vectors ``[n, d]``; ``None`` where alpha is 0.
        cf_rows: bool ``[n]``, items that have one; ``None`` where alpha is 0.
    """

    settings: LETTERTokenizerSettings

    def __init__(
        self,
        network: RQVAE,
        x: Tensor,
        settings: LETTERTokenizerSettings,
        seed: int,
        cf: Tensor | None,
        cf_rows: Tensor | None,
    ) -> None:
        self.cf = cf
        self.cf_rows = cf_rows
        projection = None
        if cf is not None and cf.shape[1] != settings.code_dim:
            projection = nn.Linear(cf.shape[1], settings.code_dim, bias=False).to(x.device)
        self.letter_loss = LETTERLoss(
            settings.alpha,
            settings.beta,
            settings.cf_temperature,
            settings.cf_normalize,
            projection,
        )
        further = self.letter_loss.parameters()
        super().__init__("letter tokenizer", network, x, settings, seed, further)
        self.seed = seed
        self.track["labels"] = None

    def begin_epoch(self, epoch: int) -> None:
        """Codes are clustered anew every ``div_refresh`` epochs."""
        settings = self.settings
        if settings.beta > 0 and epoch % settings.div_refresh == 0:
            self.track["labels"] = [
                balanced_clusters(
                    book.detach(),
                    n_clusters=settings.n_clusters,
                    seed=self.seed,
                    clustering=settings.code_clustering,
                )
                for book in self.network.codebooks
            ]

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """The losses of :class:`LETTERLoss`."""
        rows = rows.to(self.x.device)
        cf = cf_rows = None
        if self.cf is not None and self.cf_rows is not None:
            cf = self.cf[rows]
            cf_rows = self.cf_rows[rows]
        labels = self.track["labels"]
        if labels is not None:
            # those of a fit that continues come from a file, to the CPU
            labels = [of_level.to(self.x.device) for of_level in labels]
        return self.letter_loss(
            self.network, self.x[rows], cf, cf_rows, labels, generator=self.generator
        )


class LETTERTokenizerSettings(RQVAESettings):
    """Keys of ``tokenizer: letter``."""

    alpha: float = key("weight of the collaborative alignment", ge=0, affects="tokenizer")
    beta: float = key("weight of the diversity term", ge=0, affects="tokenizer")
    n_clusters: int = key(
        "clusters of codes in each level, from which L_Div draws its positives",
        ge=1,
        affects="tokenizer",
    )
    div_refresh: int = key("epochs between two clusterings of the codes", ge=1, affects="tokenizer")
    cf_temperature: float = key(
        "divides the logits of the collaborative alignment", ge=1e-6, affects="tokenizer"
    )
    cf_normalize: bool = key(
        "cosine instead of dot product in the collaborative alignment", affects="tokenizer"
    )
    code_clustering: Literal["own", "library"] = key("who clusters the codes", affects="tokenizer")


class LETTERTokenizer(RQVAETokenizer):
    """RQ-VAE with collaborative alignment (L_CF) and diversity (L_Div), see :class:`LETTERLoss`.

    The collaborative vectors are those of RecBole's SASRec on the training split. Where their size
    is not ``code_dim``, a linear map is learned beside the tokenizer (our choice, unpublished).
    """

    name = "letter"
    uses_interactions = True
    settings_class = LETTERTokenizerSettings
    settings: LETTERTokenizerSettings

    def stage(self, network: RQVAE, x: Tensor, content: ItemContent) -> LETTERStage:
        """Collaborative vectors in the order of the items, where they are used."""
        cf = cf_rows = None
        if self.settings.alpha > 0:
            cf = torch.from_numpy(content.collaborative()[self.order]).to(x)
            cf_rows = torch.from_numpy(content.trained[self.order]).to(x.device)
        return LETTERStage(network, x, self.settings, self.seed, cf, cf_rows)
