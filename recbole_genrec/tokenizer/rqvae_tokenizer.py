"""The tokenizers that train an RQ-VAE: TIGER's (arXiv 2305.05065) and, with two more losses, LETTER's (arXiv 2405.07314)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recbole_genrec.errors import GenRecError
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import balanced_clusters
from recbole_genrec.tokenizer.quantiser.letter_loss import LETTERLoss
from recbole_genrec.tokenizer.quantiser.residual_kmeans import effective_sizes
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.vectors import VectorTokenizer

REVIVE_EVERY = 10
"""Epochs between two revivals of dead codes, in the first two thirds of the training."""


class RQVAETokenizer(VectorTokenizer):
    """RQ-VAE on item vectors. The epoch with fewest collisions is kept; training stops when neither collisions nor loss improve."""

    name = "rqvae"
    settings = (
        *VectorTokenizer.settings,
        "hidden_sizes",
        "code_dim",
        "commitment_weight",
        "rq_reduction",
        "sinkhorn_epsilon",
        "dead_code_reset",
        "tokenizer_learner",
        "tokenizer_lr",
        "tokenizer_weight_decay",
        "tokenizer_batch_size",
        "tokenizer_epochs",
        "tokenizer_eval_interval",
        "tokenizer_patience",
    )
    config_rules = {
        **VectorTokenizer.config_rules,
        "hidden_sizes": Rule(
            list,
            "widths of the encoder between input and code; the decoder mirrors them",
            low=1,
            item=int,
        ),
        "code_dim": Rule(int, "dimensions of a code", low=1),
        "commitment_weight": Rule(
            float, "weight of the commitment loss (beta in TIGER, mu in LETTER)", low=0
        ),
        "rq_reduction": Rule(
            str, "reduction of the losses over dimensions and levels", choices=("mean", "sum")
        ),
        "sinkhorn_epsilon": Rule(
            float, "Sinkhorn assignment of the last level in training; 0 = nearest code", low=0
        ),
        "dead_code_reset": Rule(bool, "move unused codes to random residuals now and then"),
        "tokenizer_learner": Rule(str, "optimiser of the tokenizer", choices=("adamw", "adagrad")),
        "tokenizer_weight_decay": Rule(float, "weight decay of the tokenizer's optimiser", low=0),
        "tokenizer_eval_interval": Rule(
            int, "epochs between two looks at collisions and loss", low=1
        ),
        "tokenizer_patience": Rule(int, "looks without improvement before training stops", low=1),
    }

    def learn(self, x: Tensor, content) -> None:
        """Codebooks start by k-means on all items; then mini-batches of nearly equal size, so that Sinkhorn always sees a full one."""
        device = self.config["device"] or "cpu"
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = self._build(
                x.shape[1], effective_sizes(len(x), self.config["codebook_sizes"])
            ).to(device)
            x = x.to(device)
            self.network.codebook_init(x, self.seed)
            self._train(x, content)
        self.quantiser = self.network.cpu().eval()

    def _build(self, d_in: int, sizes: tuple[int, ...]) -> RQVAE:
        config = self.config
        epsilons = [0.0] * (len(sizes) - 1) + [config["sinkhorn_epsilon"]]
        shape = (d_in, config["hidden_sizes"], config["code_dim"], sizes)
        return RQVAE(
            *shape,
            config["commitment_weight"],
            reduction=config["rq_reduction"],
            sinkhorn_epsilons=epsilons,
        )

    # --- what LETTER changes ------------------------------------------------------------------------------------------------------

    def begin(self, x: Tensor, content) -> Iterable[nn.Parameter]:
        """Called once before training; further parameters to train."""
        return ()

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""

    def losses(self, x: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Losses of the items ``rows``; ``total`` is minimised."""
        return self.network(x[rows])[3]

    # --- training -----------------------------------------------------------------------------------------------------------------

    def _train(self, x: Tensor, content) -> None:
        config, network = self.config, self.network
        self.generator = torch.Generator().manual_seed(self.seed)
        self.track: dict = {}  # what the epochs note; part of the saved progress
        extra = nn.ParameterList(self.begin(x, content))
        parameters = [*network.parameters(), *extra]
        learner = {"adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}[
            config["tokenizer_learner"]
        ]
        optimiser = learner(
            parameters, lr=config["tokenizer_lr"], weight_decay=config["tokenizer_weight_decay"]
        )
        batches = max(1, round(len(x) / config["tokenizer_batch_size"]))
        epochs, interval = config["tokenizer_epochs"], config["tokenizer_eval_interval"]
        start = self._look(x, 0)
        self.track |= {
            "best": start,
            "curve": [start],
            "kept": _copy(network),
            "since": 0,
            "lowest": float("inf"),
        }
        track = self.track
        parts = {
            "network": network,
            "extra": extra,
            "optimiser": optimiser,
            "generator": self.generator,
            "track": track,
        }
        remaining = self.progress.epochs(epochs, **parts)
        progress = tqdm(
            remaining,
            total=epochs,
            desc=f"{self.name} tokenizer",
            disable=not config["show_progress"],
            ncols=100,
        )
        for done in progress:
            epoch = done + 1
            network.train()
            self.begin_epoch(done)
            sums: dict[str, float] = {}
            for rows in torch.randperm(len(x), generator=self.generator).tensor_split(batches):
                losses = self.losses(x, rows.to(x.device))
                optimiser.zero_grad()
                losses["total"].backward()
                optimiser.step()
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach().mean()) / batches
            if not sums["total"] < float("inf"):
                raise GenRecError(
                    f"The loss of tokenizer {self.name} is {sums['total']} in epoch {epoch}: lower --tokenizer_lr."
                )
            if config["dead_code_reset"] and epoch % REVIVE_EVERY == 0 and epoch <= 2 * epochs // 3:
                network.revive_dead_codes(x, self.generator)
            if epoch % interval == 0 or epoch == epochs:
                look, best = {**self._look(x, epoch), **sums}, track["best"]
                track["curve"].append(look)
                progress.set_postfix(
                    loss=f"{sums['total']:.4f}", collisions=f"{look['collision_rate']:.1%}"
                )
                improved = (
                    look["collision_rate"] < best["collision_rate"]
                    or sums["total"] < 0.999 * track["lowest"]
                )
                track["since"] = 0 if improved else track["since"] + 1
                track["lowest"] = min(track["lowest"], sums["total"])
                if (
                    look["collision_rate"] <= best["collision_rate"] or best["epoch"] == 0
                ):  # the start is no trained autoencoder
                    track |= {"best": look, "kept": _copy(network)}
                if track["since"] >= config["tokenizer_patience"]:
                    remaining.close()
        network.load_state_dict(track["kept"])
        self.quality |= {"curve": track["curve"], "best_epoch": track["best"]["epoch"]}

    def _look(self, x: Tensor, epoch: int) -> dict:
        codes = self.network.eval().encode(x).cpu()
        used = [len(column.unique()) for column in codes.unbind(1)]
        return {
            "epoch": epoch,
            "collision_rate": collision_stats(codes)["collision_rate"],
            "used": used,
        }

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Scaling and weights."""
        tensors, meta = super().state()
        weights = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        return {**tensors, **weights}, {**meta, "sizes": list(self.network.sizes)}

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        with (
            torch.random.fork_rng()
        ):  # so that a stored tokenizer leaves the caller's random numbers as a fitted one does
            self.network = self._build(len(self.centre), tuple(meta["sizes"])).eval()
        self.network.load_state_dict(
            {n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")}
        )
        self.quantiser = self.network


class LETTERTokenizer(RQVAETokenizer):
    """RQ-VAE with collaborative alignment (L_CF) and diversity (L_Div), see :class:`LETTERLoss`.

    The collaborative vectors are those of RecBole's SASRec on the training split. Where their size is not ``code_dim``, a linear map is
    learned beside the tokenizer (our choice, unpublished).
    """

    name = "letter"
    uses_interactions = True
    settings = (
        *RQVAETokenizer.settings,
        "alpha",
        "beta",
        "n_clusters",
        "div_refresh",
        "cf_temperature",
        "cf_normalize",
        "code_clustering",
    )
    config_rules = {
        **RQVAETokenizer.config_rules,
        "alpha": Rule(float, "weight of the collaborative alignment", low=0),
        "beta": Rule(float, "weight of the diversity term", low=0),
        "n_clusters": Rule(
            int, "clusters of codes in each level, from which L_Div draws its positives", low=1
        ),
        "div_refresh": Rule(int, "epochs between two clusterings of the codes", low=1),
        "cf_temperature": Rule(
            float, "divides the logits of the collaborative alignment", low=1e-6
        ),
        "cf_normalize": Rule(bool, "cosine instead of dot product in the collaborative alignment"),
        "code_clustering": Rule(str, "who clusters the codes", choices=("own", "library")),
    }

    def begin(self, x: Tensor, content) -> Iterable[nn.Parameter]:
        """Collaborative vectors in the order of the items, and the map to ``code_dim`` if one is needed."""
        config = self.config
        self.cf = self.cf_rows = self.track["labels"] = None
        projection = None
        if config["alpha"] > 0:
            self.cf = torch.from_numpy(content.collaborative()[self.order]).to(x)
            self.cf_rows = torch.from_numpy(content.trained[self.order]).to(x.device)
            if self.cf.shape[1] != config["code_dim"]:
                projection = nn.Linear(self.cf.shape[1], config["code_dim"], bias=False).to(
                    x.device
                )
        weights = (
            config["alpha"],
            config["beta"],
            config["cf_temperature"],
            config["cf_normalize"],
        )
        self.letter_loss = LETTERLoss(*weights, projection)
        return self.letter_loss.parameters()

    def begin_epoch(self, epoch: int) -> None:
        """Codes are clustered anew every ``div_refresh`` epochs."""
        config = self.config
        if config["beta"] > 0 and epoch % config["div_refresh"] == 0:
            options = {
                "n_clusters": config["n_clusters"],
                "seed": self.seed,
                "clustering": config["code_clustering"],
            }
            self.track["labels"] = [
                balanced_clusters(book.detach(), **options) for book in self.network.codebooks
            ]

    def losses(self, x: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """L_Sem + alpha L_CF + beta L_Div."""
        cf = None if self.cf is None else self.cf[rows]
        cf_rows = None if self.cf is None else self.cf_rows[rows]
        return self.letter_loss(
            self.network, x[rows], cf, cf_rows, self.track["labels"], generator=self.generator
        )


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
