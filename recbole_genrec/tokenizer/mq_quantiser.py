"""MQ (TokenRec, arXiv 2406.10450) from vectors to codes.

Scaling, training, codes of new vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_genrec.data.vectors.scale import Scale
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.machine_keys import MachineKeys
from recbole_genrec.settings.tokenizer_keys import CodebookNetworkKeys
from recbole_genrec.tokenizer.code_sizes import sizes_asked
from recbole_genrec.tokenizer.codes import used_per_level
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.progress import FitProgress
from recbole_genrec.tokenizer.quantiser.masked_network import MaskedNetwork
from recbole_genrec.tokenizer.quantiser.masked_rq import MaskedRQ
from recbole_genrec.tokenizer.quantiser.mq import MQ
from recbole_genrec.tokenizer.tensor_names import with_prefix, without_prefix
from recbole_genrec.tokenizer.training_loop import EpochEnd, TrainingLoop, TrainingStage

HELD_OUT = 5
"""One vector in so many is held out to choose the epoch."""
SETTLING = 10
"""Epochs at the end in which unused codes stay where they are."""
NEIGHBOURS = 5
SAMPLE = 2000
"""Rows, randomly chosen, whose neighbours :func:`agreement` looks up at most."""
MOST_COSINES = 2**24
"""Cosines that :func:`agreement` holds at once, which bounds its memory."""


class MQStage(TrainingStage):
    """AdamW on four fifths of the vectors; the epoch with the lowest loss on the rest is kept.

    All vectors set the codes before the first epoch, and revive unused ones.

    Args:
        name: what is quantised, for people; a fit of users and items has a stage for each.
        network: its codes are set here.
        x: scaled vectors ``[n, D]`` on the network's device.
        settings: of the quantiser.
        seed: of everything random.

    Attributes:
        track: ``best_epoch``, and the ``loss`` of the held-out vectors there.
    """

    network: MaskedNetwork
    generator: torch.Generator

    def __init__(
        self, name: str, network: MaskedNetwork, x: Tensor, settings: MQKeys, seed: int
    ) -> None:
        network.codebook_init(x, seed)
        optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=settings.tokenizer_lr,
            weight_decay=settings.tokenizer_weight_decay,
        )
        epochs = settings.tokenizer_epochs
        super().__init__(f"mq of {name}", f"mq of {name}", network, optimiser, epochs)
        self.x = x
        self.generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=self.generator)
        held, self.learned = order.tensor_split([len(x) // HELD_OUT])
        if not len(held):
            held = self.learned
        self.held = held.to(x.device)
        # Batch norm needs two rows a batch.
        n_batches = round(len(self.learned) / settings.tokenizer_batch_size)
        self.n_batches = max(1, min(n_batches, len(self.learned) // 2))
        self.set_schedule(settings, self.n_batches)
        self.track: dict[str, Any] = {}

    @property
    def parts(self) -> dict[str, object]:
        """The network and the best epoch, under names of their own for users and for items."""
        return {f"{self.name}: network": self.network, f"{self.name}: track": self.track}

    def batches(self, epoch: int) -> list[Tensor]:
        """Batches of nearly equal size."""
        order = torch.randperm(len(self.learned), generator=self.generator)
        return [self.learned[part] for part in order.tensor_split(self.n_batches)]

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """The total of :meth:`MQ.forward`."""
        return {"total": self.network(self.x[rows.to(self.x.device)])[-1]["total"]}

    def end_epoch(self, epoch: int, means: dict[str, float]) -> EpochEnd:
        """Revive unused codes, and look at the held-out vectors."""
        if epoch + 1 <= self.epochs - SETTLING:
            self.network.revive_dead_codes(self.x, self.generator)
        with torch.no_grad():
            loss = float(self.network.eval()(self.x[self.held])[-1]["total"])
        self.check_finite(loss, epoch)
        is_best = loss < self.track.get("loss", math.inf)
        if is_best:
            self.track |= {"best_epoch": epoch + 1, "loss": loss}
        return EpochEnd(best=is_best, shown={"loss": f"{loss:.4f}"})


class MQKeys(CodebookNetworkKeys):
    """Keys of an :class:`MQ` and its training."""

    codebook_sizes: list[int] | Literal["auto"] = key(
        "one alphabet size per learned level; auto = 3 of 256, of 512 above 10,000 users or items",
        ge=1,
        affects="tokenizer",
    )
    mask_ratio: float = key(
        "share of the input that is hidden in training", ge=0, le=0.99, affects="tokenizer"
    )
    tokenizer_dropout: float = key(
        "dropout in the tokenizer's network", ge=0, le=0.99, affects="tokenizer"
    )
    vq: Literal["mq", "rq"] = key(
        "mq: encoders and codebooks side by side; rq: one encoder and residual codebooks, the "
        "ablation of TokenRec",
        affects="tokenizer",
        default="mq",
        neutral="mq",
    )
    official_compat: bool = key(
        "what the released program does: no gradient reaches the encoders", affects="tokenizer"
    )


class MQQuantiser:
    """Vectors of users or items to K codes each.

    Standardisation, training of an :class:`MQ`, codes of old and new vectors.

    Args:
        config: a ``GenRecConfig``, or values by key; reads the keys of :class:`MQKeys`,
            ``device`` and ``show_progress``.
        seed: of everything random.
        name: what is quantised, for people.
        progress: where the training notes how far it has come.

    Attributes:
        quality: figures of the fit. ``distinct_share``: distinct tuples per vector; ``used``: codes
            in use, of each codebook; ``shared_near``, ``shared_random``: see :func:`agreement`;
            ``best_epoch`` and the ``loss`` of the held-out vectors there.
        scale: of the vectors, after :meth:`fit` or :meth:`set_state`.
        sizes: codes of each codebook, never more than there are distinct vectors; after
            :meth:`fit`.
    """

    def __init__(
        self,
        config: Any,
        seed: int,
        name: str = "vectors",
        progress: FitProgress | None = None,
    ) -> None:
        self.settings = MQKeys.of(config)
        self.seed = seed
        self.name = name
        machine = MachineKeys.of(config)
        self.device = machine.chosen_device
        self.show_progress = machine.shows_progress
        self.progress = progress or FitProgress()
        self.quality: dict[str, Any] = {}

    def fit(self, vectors: Tensor, log: Callable[[str], None] = print) -> Tensor:
        """Learn from ``vectors [n, D]``, which stay as they are, and return the codes of all rows.

        Rows of zeros (padding, and whoever has no collaborative vector) get codes but are not
        learned from and not counted.

        Args:
            vectors: float ``[n, D]``.
            log: takes one line of text.

        Returns:
            Codes int64 ``[n, K]``.

        Raises:
            ConfigError: ``codebook_sizes`` cannot name the distinct vectors.
            DataError: fewer than two rows to learn from, or values that are no finite numbers.
            GenRecError: the training diverges.
        """
        real = _not_zero(vectors)
        sizes = self.sizes_for(real)
        self.scale = Scale.of(real.numpy(), self.settings.standardize)
        with seeded(self.seed):
            network = self._build(real.shape[1], sizes).to(self.device)
            x = self.scale.apply(real).to(self.device)
            stage = MQStage(self.name, network, x, self.settings, self.seed)
            loop = TrainingLoop(self.progress, self.device, show_progress=self.show_progress)
            loop.train(stage)
        self.network = network.cpu().eval()
        self.quality |= stage.track
        self._measure(real, log)
        return self.assign(vectors)

    def sizes_for(self, vectors: Tensor) -> list[int]:
        """Codes of each codebook that a fit to ``vectors [n, D]`` gets.

        Raises:
            ConfigError: ``codebook_sizes`` cannot name the distinct vectors.
            DataError: fewer than two different rows that are not zero.
        """
        real = _not_zero(vectors)
        distinct = len(real.unique(dim=0))
        sizes = sizes_asked(self.settings.codebook_sizes, len(real))
        if distinct < 2:
            raise DataError(
                f"The tokenizer of {self.name} needs two different vectors or more to learn from, "
                f"got {distinct}."
            )
        if math.prod(sizes) < distinct:
            raise ConfigError(
                f"codebook_sizes {list(sizes)} can name {math.prod(sizes)} {self.name}, but "
                f"there are {distinct} different vectors. Use more codebooks, or larger ones; of "
                "tokenizer: mq each has at most a quarter as many codes as there are items."
            )
        return [min(size, distinct) for size in sizes]

    def _measure(self, real: Tensor, log: Callable[[str], None]) -> None:
        """Figures of the fit to the vectors ``real [n, D]``."""
        codes = self.assign(real)
        near, chance = agreement(codes, real, self.seed)
        used = used_per_level(codes)
        share = collision_stats(codes)["unique_ids"] / len(codes)
        self.quality |= {
            "n": len(real),
            "distinct_share": share,
            "used": used,
            "shared_near": near,
            "shared_random": chance,
        }
        log(
            f"{self.settings.vq.upper()} of {len(real)} {self.name}: {share:.1%} distinct tuples, "
            f"codes in use {used} of {list(self.sizes)}; the {NEIGHBOURS} nearest share {near:.2f} "
            f"of {len(used)} codes, random pairs {chance:.2f}."
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        return self.network.sizes

    def assign(self, vectors: Tensor) -> Tensor:
        """Codes of ``vectors [m, D]``, old or new, int64 ``[m, K]``.

        A function of each row alone; nothing learns.
        """
        return self.network.assign(self.scale.apply(vectors))

    def level_distances(self, vectors: Tensor) -> list[Tensor]:
        """Squared distances of ``vectors [m, D]`` to the codes, K tensors float64 ``[m, L_k]``."""
        return self.network.level_distances(self.scale.apply(vectors))

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Vectors that ``codes [m, K]`` stand for, float64 ``[m, D]``."""
        return self.scale.undo(self.network.reconstruct(codes))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What :meth:`assign` needs after a restart: tensors, and JSON-like values."""
        tensors = {
            **self.scale.tensors(),
            **with_prefix("network.", self.network.state_dict()),
        }
        return tensors, {"sizes": list(self.sizes), "quality": self.quality}

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.scale = Scale.from_tensors(tensors)
        self.quality = meta["quality"]
        # A stored tokenizer leaves the caller's random numbers as a fitted one does.
        with torch.random.fork_rng():
            self.network = self._build(self.scale.width, meta["sizes"]).eval()
        self.network.load_state_dict(without_prefix("network.", tensors))

    def _build(self, d_in: int, sizes: list[int]) -> MaskedNetwork:
        settings = self.settings
        arguments = (
            d_in,
            sizes,
            settings.code_dim,
            settings.hidden_sizes,
            settings.mask_ratio,
            settings.commitment_weight,
            settings.tokenizer_dropout,
        )
        if settings.vq == "mq":
            return MQ(*arguments, official_compat=settings.official_compat)
        if settings.official_compat:
            raise ConfigError(
                "official_compat is what the released program does, which has no vq: rq. Leave one "
                "of the two out."
            )
        return MaskedRQ(*arguments)


def _not_zero(vectors: Tensor) -> Tensor:
    """The rows of ``vectors [n, D]`` that are not zero, on the CPU."""
    return vectors.detach().cpu()[(vectors != 0).any(1).cpu()]


def agreement(codes: Tensor, vectors: Tensor, seed: int = 0) -> tuple[float, float]:
    """How well codes keep what is near together.

    Large tables are sampled.

    Args:
        codes: ``[n, K]``.
        vectors: ``[n, D]``.
        seed: of the sample.

    Returns:
        Mean number of equal codes that a row shares with its nearest rows by cosine, and with
        random other rows.
    """
    n = len(codes)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(n, generator=generator)[:SAMPLE]
    count = min(NEIGHBOURS, n - 1)
    unit = normalize(vectors.float())
    blocks = []
    for block in rows.split(max(1, MOST_COSINES // n)):
        cosine = unit[block] @ unit.T  # [b, n]
        cosine[torch.arange(len(block)), block] = -torch.inf
        blocks.append(cosine.topk(count).indices)
    nearest = torch.cat(blocks)  # [r, count]
    steps = torch.randint(1, n, (len(rows), count), generator=generator)
    others = (rows.unsqueeze(1) + steps) % n  # [r, count]

    def shared(with_rows: Tensor) -> float:
        return float((codes[rows].unsqueeze(1) == codes[with_rows]).sum(-1).double().mean())

    return shared(nearest), shared(others)
