"""Item tokenizers side by side, judged without training a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from recbole.utils import init_seed
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.dataset import create_dataset
from recbole_genrec.data.inter_files import interaction_files
from recbole_genrec.data.loaders import make_loaders
from recbole_genrec.data.preparation.prepare import prepare_if_missing
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.coded import CodedModel
from recbole_genrec.model.registry import build_model
from recbole_genrec.model.text_needs import check_item_texts
from recbole_genrec.settings.parsing import config_files, parse_arguments
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable

MODEL = "TIGER"
"""The method whose settings are taken where none is named: it trains any tokenizer of paths."""

NEIGHBOURS = 10
"""Nearest items by text whose codes are compared with an item's (our choice)."""

SAMPLE = 2000
"""Items whose neighbours are looked for; of a larger catalogue so many are drawn (our choice)."""


@dataclass(frozen=True)
class FittedTokenizer:
    """What a tokenizer made of the items, before equal codes are told apart.

    Attributes:
        tokenizer: its name.
        used: codes that items have, by level.
        perplexity: by level.
        distinct: different code words.
        items: number of items.
        colliding: share of the items that share all codes with another one.
        largest_group: most items with the same codes.
        reconstruction_error: mean squared error of the vectors; ``None`` where there are none.
        neighbours: share of pairs of an item and one of its nearest by text that have the same
            first 1, 2, ... codes; ``None`` without texts.
        purchases: the same share of items that follow each other in a training sequence.
        chance: the same share of two items of such pairs put together at random.
        fit_cpu_seconds: of the fit, which may have been an earlier one.
        warnings: a sentence for each level that collapsed.
    """

    tokenizer: str
    used: list[int]
    perplexity: list[float]
    distinct: int
    items: int
    colliding: float
    largest_group: int
    reconstruction_error: float | None
    neighbours: list[float] | None
    purchases: list[float]
    chance: list[float]
    fit_cpu_seconds: float | None
    warnings: list[str]


def tokenize(
    argv: Sequence[str], config_file_list: list[str] | None = None
) -> list[FittedTokenizer]:
    """Fit tokenizers, or take what was fitted before, and measure their codes.

    A later run with the same settings takes the codes from ``cache_dir``.

    Args:
        argv: settings of a run; ``--tokenizer=a,b`` names several tokenizers, ``--output=F.json``
            writes the figures, ``--model`` is TIGER unless it is given.
        config_file_list: YAML files with settings.

    Returns:
        The figures of each tokenizer.

    Raises:
        ConfigError: a setting is wrong, or the method has no item tokenizer of its own.
        DataError: a tokenizer needs item texts that the data does not give.
    """
    arguments = parse_arguments(list(argv), texts=("output",))
    files = config_files(config_file_list, arguments)
    output: Path | None = None
    if arguments.get("output") is not None:
        output = Path(str(arguments["output"])).expanduser()
        check_writable(output)

    others = ("--tokenizer=", "--output=")
    words = [word for word in argv if not word.startswith(others)]
    if "model" not in arguments:
        words.append(f"--model={MODEL}")
    configs = []
    for name in _names(arguments.get("tokenizer")):
        choice = [] if name is None else [f"--tokenizer={name}"]
        configs.append(GenRecConfig(config_file_list=files, argv=[*words, *choice]))
    for config in configs:
        _check_has_codes(config)
        prepare_if_missing(config, interaction_files(config))
        check_item_texts(config)

    figures = [_figures(config) for config in configs]
    if output is not None:
        write_json(output, [asdict(row) for row in figures])
    return figures


def _names(named: object) -> list[str | None]:
    """The tokenizers in ``--tokenizer=a,b`` or ``[a,b]``; ``None`` is the method's own.

    Raises:
        ConfigError: it names none.
    """
    if named is None:
        return [None]
    words = named if isinstance(named, list) else str(named).split(",")
    names: list[str | None] = [str(word).strip() for word in words if str(word).strip()]
    if not names:
        raise ConfigError("--tokenizer names no tokenizer. Give a name, or leave it out.")
    return names


def _check_has_codes(config: GenRecConfig) -> None:
    """Refuse methods without a code table of their items alone.

    Raises:
        ConfigError: says which method to take.
    """
    if not issubclass(config.model_class, CodedModel):
        raise ConfigError(
            f"{config.settings.model} has no item tokenizer that can be judged alone. Leave out "
            f"--model, which takes {MODEL}."
        )


def _figures(config: GenRecConfig) -> FittedTokenizer:
    """Fit the tokenizer of a run as the run does, and measure it."""
    settings = config.settings
    dataset = create_dataset(config)
    train = make_loaders(config, dataset, True)[0]
    init_seed(settings.seed, settings.reproducibility)
    model = build_model(config, dataset_of(train))

    codes = model.item_codes
    stats = codes.stats()
    learned = codes.codes[:, : codes.n_learned]
    levels = stats["levels"][: codes.n_learned]
    pairs = following_items(model.content.item_sequences())
    generator = torch.Generator().manual_seed(settings.seed)
    mixed = pairs[torch.randperm(len(pairs), generator=generator), 1]
    near = None
    if model.content.is_described:
        near = near_items(model.content.embeddings(), settings.seed)
    quality = model.tokenizer.quality
    return FittedTokenizer(
        tokenizer=settings.tokenizer,
        used=[level["used"] for level in levels],
        perplexity=[level["perplexity"] for level in levels],
        distinct=stats["before"]["unique_ids"],
        items=codes.n_items - 1,
        colliding=stats["before"]["collision_rate"],
        largest_group=stats["before"]["largest_group"],
        reconstruction_error=quality.get("reconstruction_error"),
        neighbours=None if near is None else shared_codes(learned, near),
        purchases=shared_codes(learned, pairs),
        chance=shared_codes(learned, torch.stack([pairs[:, 0], mixed], 1)),
        fit_cpu_seconds=quality.get("fit_cpu_seconds"),
        warnings=codes.warnings(),
    )


def following_items(sequences: Sequence[np.ndarray]) -> Tensor:
    """Pairs of different items that follow each other in a sequence, int64 ``[P, 2]``.

    Args:
        sequences: item ids of each user's training interactions, oldest first.
    """
    pairs = [np.stack([items[:-1], items[1:]], axis=1) for items in sequences]
    joined = torch.from_numpy(np.concatenate(pairs)).long()
    return joined[joined[:, 0] != joined[:, 1]]


def near_items(vectors: np.ndarray, seed: int) -> Tensor:
    """Pairs of an item and one of its :data:`NEIGHBOURS` nearest by cosine, int64 ``[P, 2]``.

    Args:
        vectors: float32 ``[n_items, D]``, row 0 = padding.
        seed: of the items that are drawn from a large catalogue.
    """
    vectors = vectors[1:]
    items = np.arange(len(vectors))
    if len(items) > SAMPLE:
        items = np.random.default_rng(seed).choice(items, SAMPLE, replace=False)
    count = min(NEIGHBOURS + 1, len(vectors))  # an item is its own nearest
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(vectors)
    nearest = search.kneighbors(vectors[items], return_distance=False)
    pairs = np.stack([np.repeat(items, count), nearest.ravel()], axis=1)
    return torch.from_numpy(pairs[pairs[:, 0] != pairs[:, 1]] + 1)


def shared_codes(codes: Tensor, pairs: Tensor) -> list[float]:
    """Share of pairs of items that agree in their first 1, 2, ..., L codes.

    Args:
        codes: int64 ``[n_items, L]``.
        pairs: int64 ``[P, 2]``.
    """
    left, right = codes[pairs].unbind(1)  # [P, L] each
    return (left == right).cumprod(1).double().mean(0).tolist()
