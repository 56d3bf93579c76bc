"""CPU time of whole fits of RQ-VAE's and LETTER's tokenizers, of an earlier commit and of this one.

Each fit has the settings that its commit ships and is a process of its own, on one thread. What it
ends with is measured here, for both commits alike: the losses over all items in float32 and in
evaluation mode, the collisions, and how evenly the codes are used.

    OMP_NUM_THREADS=1 python benchmarks/tokenizer_speed.py --before=b06a551 --dataset=amazon-beauty

``--before`` needs the repository with its history; without it this commit is timed alone.
``--fits=FOLDER`` keeps the fits, and does not run those again that are there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, load, unpack, write_result
from torch import Tensor

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.runtime.memory import keep_freed_memory
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.letter_tokenizer import LETTERTokenizer
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import balanced_clusters
from recbole_genrec.tokenizer.quantiser.letter_loss import LETTERLoss
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.rqvae_tokenizer import RQVAETokenizer

ROOT = Path(__file__).parents[1]
TOKENIZERS = {"rqvae": RQVAETokenizer, "letter": LETTERTokenizer}
WORKER = "--fit"
SEED = 2020
BATCHES = 12
"""In so many batches the collaborative loss, which compares the items of a batch, is measured."""


class Vectors:
    """What is fitted to, as far as the two tokenizers look at it.

    Args:
        file: ``x [n, D]``, ``cf [n, d]`` and ``trained [n]`` of the items.
    """

    def __init__(self, file: str | os.PathLike) -> None:
        arrays = np.load(file)
        self.x = arrays["x"]
        self.cf = arrays["cf"]
        self.trained = np.concatenate([[False], arrays["trained"]])

    def collaborative(self) -> np.ndarray:
        """Vectors ``[1 + n, d]``, row 0 = padding item."""
        return np.concatenate([np.zeros_like(self.cf[:1]), self.cf])


def write_vectors(file: str | os.PathLike, options: Any) -> None:
    """The vectors of a dataset, for :class:`Vectors`.

    SASRec's vectors are as wide as ``--cf_dim`` says; of more dimensions than a code has the
    leading ones are kept.
    """
    settings = {"cf_dim": options.cf_dim, "cache_dir": options.cache_dir}
    config, _, (train, *_) = load("LETTER", options, **settings)
    content = ItemContent.from_dataset(train._dataset, config)
    content.interactions = TrainingInteractions(config)
    order = 1 + np.argsort(np.array(content.tokens[1:]), kind="stable")

    cf = content.collaborative()[order]
    width = shipped("tokenizer/letter")["code_dim"]
    if cf.shape[1] > width:
        directions = np.linalg.svd(cf, full_matrices=False)[2][:width]
        cf = (cf @ directions.T).astype(np.float32)
    np.savez(file, x=content.embeddings()[order], cf=cf, trained=content.trained[order])


def settings_of(name: str, epochs: int = 0, **changes: object) -> dict[str, Any]:
    """The shipped settings of a tokenizer.

    Args:
        name: value of ``tokenizer``.
        epochs: 0 = as shipped.
        **changes: of other keys.
    """
    values = {**shipped("overall"), **shipped(f"tokenizer/{name}")}
    values |= {"show_progress": False, "device": "cpu", **changes}
    if epochs:
        values["tokenizer_epochs"] = epochs
    return values


# --- a fit, in a process of its own, with the package of either commit ----------------------------


def fit(name: str, file: str, folder: str, epochs: str, changes: str) -> None:
    """Fit a tokenizer and store its network, and the CPU seconds and losses of its epochs."""
    torch.set_num_threads(1)
    keep_freed_memory()
    vectors = Vectors(file)
    values = settings_of(name, int(epochs), **json.loads(changes))
    tokenizer = TOKENIZERS[name](values, SEED)
    tokenizer.order = 1 + np.arange(len(vectors.x))
    x = tokenizer._fitted_scale(vectors.x)

    seconds: list[float] = []
    losses: list[dict[str, float]] = []
    make_stage = tokenizer.stage

    def timed_stage(*words):
        stage = make_stage(*words)
        begin_epoch, end_epoch = stage.begin_epoch, stage.end_epoch

        def begin(epoch):
            nonlocal started
            started = time.process_time()
            begin_epoch(epoch)

        def end(epoch, means):
            answer = end_epoch(epoch, means)
            seconds.append(time.process_time() - started)
            losses.append({part: float(mean) for part, mean in means.items()})
            return answer

        stage.begin_epoch, stage.end_epoch = begin, end
        return stage

    tokenizer.stage = timed_stage
    beginning = started = time.process_time()
    tokenizer.learn(x, vectors)
    whole = time.process_time() - beginning
    meta = {"whole": whole, "seconds": seconds, "losses": losses}
    meta |= {"best_epoch": tokenizer.quality["best_epoch"], "sizes": tokenizer.network.sizes}
    meta["looks"] = tokenizer.quality["curve"]
    save_artefact(folder, tokenizer.network.state_dict(), meta)


# --- what a fit ends with -------------------------------------------------------------------------


@torch.no_grad()
def measured(name: str, folder: Path, vectors: Vectors) -> dict[str, Any]:
    """Losses, collisions and use of codes of a stored fit."""
    tensors, meta = load_artefact(folder)
    values = settings_of(name)
    network = RQVAE(
        vectors.x.shape[1],
        values["hidden_sizes"],
        values["code_dim"],
        meta["sizes"],
        values["commitment_weight"],
        reduction=values["rq_reduction"],
    ).eval()
    network.load_state_dict(tensors)
    x = TOKENIZERS[name](values, SEED)._fitted_scale(vectors.x)

    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    batches = rows.tensor_split(BATCHES)
    losses = [_losses(name, network, values, x[batch], batch, vectors) for batch in batches]
    means = {part: statistics.mean(loss[part] for loss in losses) for part in losses[0]}

    codes = network.assign(x)
    perplexities = [_perplexity(column) for column in codes.unbind(1)]
    stats = collision_stats(codes)
    return {
        **{key: meta[key] for key in ("whole", "seconds", "losses", "best_epoch")},
        "evaluated": means,
        "excess_rate": stats["excess_rate"],
        "collision_rate": stats["collision_rate"],
        "perplexity": perplexities,
    }


def _losses(
    name: str,
    network: RQVAE,
    values: dict[str, Any],
    x: Tensor,
    rows: Tensor,
    vectors: Vectors,
) -> dict[str, float]:
    """The losses of a batch ``x [B, D]`` of the items ``rows [B]``, each a number."""
    if name == "rqvae":
        losses = network(x)[3]
    else:
        labels = [
            balanced_clusters(book, values["n_clusters"], seed=0) for book in network.codebooks
        ]
        losses = LETTERLoss(values["alpha"], values["beta"])(
            network,
            x,
            torch.from_numpy(vectors.cf)[rows],
            torch.from_numpy(vectors.trained[1:])[rows],
            labels,
            generator=torch.Generator().manual_seed(0),
        )
    return {part: float(loss.mean()) for part, loss in losses.items()}


def _perplexity(column: Tensor) -> float:
    """Codes of a level, as evenly used ones: the exponential of the entropy."""
    share = column.unique(return_counts=True)[1].double() / len(column)
    return float((-(share * share.log()).sum()).exp())


# --- the table ------------------------------------------------------------------------------------


def main() -> None:
    options = arguments(
        __doc__,
        before="",
        cache_dir=None,
        cf_dim=32,
        epochs=0,
        fits=None,
        tokenizers="rqvae,letter",
    )
    rows: list[list[object]] = []
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        fits = Path(options.fits or temporary)
        fits.mkdir(parents=True, exist_ok=True)
        file = fits / "vectors.npz"
        if not file.is_file():
            write_vectors(file, options)
        vectors = Vectors(file)

        ways = {"this commit": ROOT}
        if options.before:
            before = unpack(options.before, str(Path(temporary) / "before"))
            ways = {f"commit {options.before}": before, **ways}
        for name in options.tokenizers.split(","):
            turns = {}
            for way, tree in ways.items():
                folder = fits / f"{name}-{way.replace(' ', '-')}"
                if not folder.is_dir():
                    _run(tree, name, file, folder, options.epochs, "{}")
                turns[way] = measured(name, folder, vectors)
            results[name] = turns
            usual = turns[next(iter(ways))]["whole"]
            rows += [_row(name, way, figures, usual) for way, figures in turns.items()]
    notes = (
        f"{len(vectors.x)} items of {options.dataset}, vectors of {vectors.x.shape[1]} dimensions, "
        "the settings that each commit ships, one fit each, one thread. Collaborative vectors: "
        f"{options.cf_dim} dimensions of SASRec"
        + (", of which the leading 32 are kept" if options.cf_dim > 32 else "")
        + ". CPU-s an epoch: median of the epochs. CPU-s in all: start by k-means, epochs and "
        "looks. Losses: of the epoch that is kept, over all items in float32 and in evaluation "
        "mode (nearest codes at every level), and of them the reconstruction. Collisions: (items - "
        "distinct ids) / items before any repair. Perplexity: of the codes of each level."
    )
    header = ["tokenizer", "code", "epochs", "kept", "CPU-s an epoch", "CPU-s in all"]
    header += ["times as fast", "loss", "reconstruction", "collisions", "perplexity"]
    title = "CPU time of the tokenizers that train"
    write_result("tokenizer_speed", title, {"fits": results}, header, rows, notes)


def _run(tree: Path, *words: object) -> None:
    """:func:`fit` in a process that imports the package from ``tree``."""
    command = [sys.executable, "-W", "ignore", __file__, WORKER, *map(str, words)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)


def _row(name: str, way: str, figures: dict[str, Any], usual: float) -> list[object]:
    """A line of the table.

    Args:
        name: of the tokenizer.
        way: which commit.
        figures: of :func:`measured`.
        usual: CPU seconds of the first way.
    """
    perplexity = ", ".join(f"{value:.0f}" for value in figures["perplexity"])
    losses = figures["evaluated"]
    return [
        name,
        way,
        str(len(figures["seconds"])),
        str(figures["best_epoch"]),
        statistics.median(figures["seconds"]),
        f"{figures['whole']:.1f}",
        usual / figures["whole"],
        f"{losses['total']:.4f}",
        f"{losses['recon']:.4f}",
        f"{figures['excess_rate']:.2%}",
        perplexity,
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        fit(*sys.argv[2:])
    else:
        main()
