"""TokenRec's tokenizers (arXiv 2406.10450): MQ trained on collaborative vectors of users or of items."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from recbole_genrec.errors import ConfigError, DataError, GenRecError
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.quantiser.mq import MQ
from recbole_genrec.tokenizer.vectors import VectorTokenizer, scale_of

HELD_OUT = 5
"""One vector in so many is held out to choose the epoch."""
SETTLING = 10
"""Epochs at the end in which unused codes stay where they are."""
NEIGHBOURS = 5
SAMPLE = 2000
"""Rows, randomly chosen, whose neighbours :func:`agreement` looks up at most."""


class MQQuantiser:
    """Vectors of users or items to K codes each: standardisation, training of an :class:`MQ`, codes of old and new vectors.

    Args:
        settings: the keys in ``MQQuantiser.settings``, and ``device`` and ``show_progress``; a configuration will do.
        seed: of everything random.
        name: what is quantised, for people.

    Attributes:
        quality: figures of the fit. ``distinct_share``: distinct tuples per vector; ``used``: codes in use, of each codebook;
            ``shared_near``, ``shared_random``: see :func:`agreement`; ``best_epoch`` and the ``loss`` of the held-out vectors there.
        sizes: codes of each codebook, never more than there are distinct vectors; after :meth:`fit`.
    """

    settings = (
        "standardize",
        "codebook_sizes",
        "hidden_sizes",
        "code_dim",
        "mask_ratio",
        "commitment_weight",
        "tokenizer_dropout",
        "tokenizer_lr",
        "tokenizer_weight_decay",
        "tokenizer_batch_size",
        "tokenizer_epochs",
        "official_compat",
    )
    config_rules = {
        "standardize": VectorTokenizer.config_rules["standardize"],
        "hidden_sizes": Rule(
            list,
            "widths of each encoder between input and code; the decoder mirrors them",
            low=1,
            item=int,
        ),
        "code_dim": Rule(int, "dimensions of a code", low=1),
        "mask_ratio": Rule(
            float, "share of the input that is hidden in training", low=0, high=0.99
        ),
        "commitment_weight": Rule(float, "weight of the commitment loss (beta)", low=0),
        "tokenizer_dropout": Rule(float, "dropout in the tokenizer's network", low=0, high=0.99),
        "tokenizer_weight_decay": Rule(float, "weight decay of the tokenizer's optimiser", low=0),
        "official_compat": Rule(
            bool, "what the released program does: no gradient reaches the encoders"
        ),
    }

    def __init__(self, settings, seed: int, name: str = "vectors") -> None:
        self.config, self.seed, self.name = (
            {key: settings[key] for key in self.settings},
            seed,
            name,
        )
        self.device, self.show_progress = (
            settings["device"] or "cpu",
            settings["show_progress"] is not False,
        )
        self.quality: dict = {}

    def fit(self, vectors: Tensor, log: Callable[[str], None] = print) -> Tensor:
        """Learn from ``vectors [n, D]``, which stay as they are, and return the codes of all rows, int64 ``[n, K]``.

        Rows of zeros (padding, and whoever has no collaborative vector) get codes but are not learned from and not counted.

        Raises:
            ConfigError: ``codebook_sizes`` cannot name the distinct vectors.
            DataError: fewer than two rows to learn from, or values that are no finite numbers.
            GenRecError: the training diverges.
        """
        real = vectors.detach().cpu()[(vectors != 0).any(1).cpu()]
        distinct, wanted = len(real.unique(dim=0)), self.config["codebook_sizes"]
        if distinct < 2:
            raise DataError(
                f"The tokenizer of {self.name} needs two different vectors or more to learn from, got {distinct}."
            )
        if math.prod(wanted) < distinct:
            raise ConfigError(
                f"codebook_sizes {list(wanted)} can name {math.prod(wanted)} {self.name}, but there are {distinct} different vectors. "
                "Use larger codebooks or more of them."
            )
        self.centre, self.factor = map(
            torch.from_numpy, scale_of(real.numpy(), self.config["standardize"])
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = self._build(real.shape[1], [min(size, distinct) for size in wanted]).to(
                self.device
            )
            self._train(self._scaled(real).to(self.device))
        self.network = self.network.cpu().eval()
        codes = self.encode(real)
        near, chance = agreement(codes, real, self.seed)
        used = [len(column.unique()) for column in codes.unbind(1)]
        share = collision_stats(codes)["unique_ids"] / len(codes)
        self.quality |= {
            "n": len(real),
            "distinct_share": share,
            "used": used,
            "shared_near": near,
            "shared_random": chance,
        }
        log(
            f"MQ of {len(real)} {self.name}: {share:.1%} distinct tuples, codes in use {used} of {list(self.sizes)}; "
            f"the {NEIGHBOURS} nearest share {near:.2f} of {len(used)} codes, random pairs {chance:.2f}."
        )
        return self.encode(vectors)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        return self.network.sizes

    def encode(self, vectors: Tensor) -> Tensor:
        """Codes of ``vectors [m, D]``, old or new, int64 ``[m, K]``; a function of each row alone, nothing learns."""
        return self.network.encode(self._scaled(vectors))

    assign = encode

    def level_distances(self, vectors: Tensor) -> list[Tensor]:
        """Squared distances of ``vectors [m, D]`` to the codes of each codebook, K tensors float64 ``[m, L_k]``."""
        return self.network.level_distances(self._scaled(vectors))

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Vectors that ``codes [m, K]`` stand for, float64 ``[m, D]``."""
        scale = torch.where(self.factor == 0, 0.0, 1 / self.factor)
        return self.network.reconstruct(codes) * scale + self.centre

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """What :meth:`encode` needs after a restart: tensors, and JSON-like values."""
        tensors = {
            "centre": self.centre,
            "factor": self.factor,
            **self.network.state_dict(prefix="network."),
        }
        return tensors, {"sizes": list(self.sizes), "quality": self.quality}

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        self.centre, self.factor, self.quality = (
            tensors["centre"],
            tensors["factor"],
            meta["quality"],
        )
        with (
            torch.random.fork_rng()
        ):  # so that a stored tokenizer leaves the caller's random numbers as a fitted one does
            self.network = self._build(len(self.centre), meta["sizes"]).eval()
        self.network.load_state_dict(
            {n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")}
        )

    # --- training -----------------------------------------------------------------------------------------------------------------

    def _scaled(self, vectors: Tensor) -> Tensor:
        return ((vectors.detach().cpu() - self.centre) * self.factor).float()

    def _build(self, d_in: int, sizes: list[int]) -> MQ:
        config = self.config
        shape = (d_in, sizes, config["code_dim"], config["hidden_sizes"])
        return MQ(
            *shape,
            config["mask_ratio"],
            config["commitment_weight"],
            config["tokenizer_dropout"],
            config["official_compat"],
        )

    def _train(self, x: Tensor) -> None:
        """AdamW on four fifths of ``x [n, D]``; the epoch with the lowest loss on the rest is kept. All rows set and revive the codes."""
        config, network = self.config, self.network
        generator = torch.Generator().manual_seed(self.seed)
        network.codebook_init(x, self.seed)
        held, learned = torch.randperm(len(x), generator=generator).tensor_split(
            [len(x) // HELD_OUT]
        )
        held = held if len(held) else learned
        batches = max(
            1, min(round(len(learned) / config["tokenizer_batch_size"]), len(learned) // 2)
        )  # batch norm needs two rows
        optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=config["tokenizer_lr"],
            weight_decay=config["tokenizer_weight_decay"],
        )
        lowest, kept, epochs = math.inf, None, config["tokenizer_epochs"]
        for epoch in tqdm(
            range(1, epochs + 1),
            desc=f"mq of {self.name}",
            disable=not self.show_progress,
            ncols=100,
        ):
            network.train()
            for part in torch.randperm(len(learned), generator=generator).tensor_split(batches):
                loss = network(x[learned[part].to(x.device)])[-1]["total"]
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if epoch <= epochs - SETTLING:
                network.revive_dead_codes(x, generator)
            with torch.no_grad():
                loss = float(network.eval()(x[held.to(x.device)])[-1]["total"])
            if not loss < math.inf:
                raise GenRecError(
                    f"The loss of the tokenizer of {self.name} is {loss} in epoch {epoch}: lower --tokenizer_lr."
                )
            if loss < lowest:
                lowest, kept = (
                    loss,
                    {name: value.detach().clone() for name, value in network.state_dict().items()},
                )
                self.quality |= {"best_epoch": epoch, "loss": loss}
        if kept is not None:
            network.load_state_dict(kept)


class MQTokenizer(VectorTokenizer):
    """MQ on item vectors, for every generator; TokenRec itself uses two :class:`MQQuantiser`."""

    name = "mq"
    settings = (
        *VectorTokenizer.settings,
        *(key for key in MQQuantiser.settings if key not in VectorTokenizer.settings),
    )
    config_rules = {**VectorTokenizer.config_rules, **MQQuantiser.config_rules}

    def learn(self, x: Tensor, content) -> None:
        """Train on the scaled vectors."""
        self.quantiser = self._quantiser()
        self.quantiser.fit(x, logging.getLogger().info)
        self.quality |= self.quantiser.quality

    def _quantiser(self) -> MQQuantiser:
        keys = (*MQQuantiser.settings, "device", "show_progress")
        return MQQuantiser(
            {**{key: self.config[key] for key in keys}, "standardize": False}, self.seed, "items"
        )

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Scaling and network."""
        (tensors, meta), (own, own_meta) = super().state(), self.quantiser.state()
        return {**tensors, **{f"mq.{name}": value for name, value in own.items()}}, {
            **meta,
            "mq": own_meta,
        }

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.quantiser = self._quantiser()
        self.quantiser.set_state(
            {n.removeprefix("mq."): v for n, v in tensors.items() if n.startswith("mq.")},
            meta["mq"],
        )


def agreement(codes: Tensor, vectors: Tensor, seed: int = 0) -> tuple[float, float]:
    """Mean number of equal codes, of ``codes [n, K]``, that a row shares with its nearest rows by cosine, and with random other rows.

    Codes that keep what is near together share more with the five nearest of ``vectors [n, D]``. Large tables are sampled.
    """
    n, generator = len(codes), torch.Generator().manual_seed(seed)
    rows, count = torch.randperm(n, generator=generator)[:SAMPLE], min(NEIGHBOURS, n - 1)
    unit = normalize(vectors.float())
    cosine = unit[rows] @ unit.T
    cosine[torch.arange(len(rows)), rows] = -torch.inf
    others = (rows.unsqueeze(1) + torch.randint(1, n, (len(rows), count), generator=generator)) % n

    def shared(with_rows: Tensor) -> float:
        return float((codes[rows].unsqueeze(1) == codes[with_rows]).sum(-1).double().mean())

    return shared(cosine.topk(count).indices), shared(others)
