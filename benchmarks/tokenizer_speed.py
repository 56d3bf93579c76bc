"""CPU time of an epoch of RQ-VAE's and LETTER's tokenizers, of an earlier commit and of this one.

The vectors are a mixture of Gaussians of the size of amazon-beauty's. Each fit is a process of its
own, the commits take turns, and the losses of the epochs are compared. ``bf16`` is this commit with
``tokenizer_precision: bf16``. The first epoch, which pays for memory that is new, is not timed.

    OMP_NUM_THREADS=1 python benchmarks/tokenizer_speed.py --before=b06a551

``--before`` needs the repository with its history; without it this commit is timed alone.
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

import torch
from common import arguments, spread, unpack, write_result

from recbole_genrec.runtime.memory import keep_freed_memory
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.tokenizer.letter_tokenizer import LETTERStage, LETTERTokenizerSettings
from recbole_genrec.tokenizer.progress import FitProgress
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.rqvae_tokenizer import RQVAESettings, RQVAEStage
from recbole_genrec.tokenizer.training_loop import TrainingLoop

ROOT = Path(__file__).parents[1]
N_CENTRES = 400
CF_WIDTH = 32
WORKER = "--fit"


def vectors(n_items: int, width: int) -> torch.Tensor:
    """Standardised rows of a mixture of Gaussians ``[n_items, width]``."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(N_CENTRES, width, generator=generator)
    rows = torch.randint(N_CENTRES, (n_items,), generator=generator)
    x = centres[rows] + 0.7 * torch.randn(n_items, width, generator=generator)
    return (x - x.mean(0)) / x.std(0)


def stage_of(name: str, n_items: int, width: int, epochs: int) -> RQVAEStage:
    """The training of the tokenizer ``name`` with its shipped settings."""
    letter = name == "letter"
    values = {**shipped(f"tokenizer/{name}"), "tokenizer_epochs": epochs}
    settings = (LETTERTokenizerSettings if letter else RQVAESettings).from_values(values)
    x = vectors(n_items, width)
    torch.manual_seed(1)
    sizes = settings.codebook_sizes
    network = RQVAE(
        width,
        settings.hidden_sizes,
        settings.code_dim,
        sizes,
        settings.commitment_weight,
        reduction=settings.rq_reduction,
        sinkhorn_epsilons=[0.0] * (len(sizes) - 1) + [settings.sinkhorn_epsilon],
    )
    network.codebook_init(x, 0, max_iter=10)
    if not letter:
        return RQVAEStage("rqvae", network, x, settings, 0)
    cf = 0.1 * torch.randn(n_items, CF_WIDTH, generator=torch.Generator().manual_seed(2))
    return LETTERStage(network, x, settings, 0, cf, torch.ones(n_items, dtype=torch.bool))


def fit(name: str, n_items: int, width: int, epochs: int, precision: str) -> dict:
    """CPU seconds and mean total loss of each epoch."""
    keep_freed_memory()
    stage = stage_of(name, n_items, width, epochs)
    seconds: list[float] = []
    losses: list[float] = []
    end_epoch = stage.end_epoch
    started = time.process_time()

    def timed(epoch: int, means: dict[str, float]):
        nonlocal started
        seconds.append(time.process_time() - started)
        losses.append(means["total"])
        end = end_epoch(epoch, means)
        started = time.process_time()
        return end

    stage.end_epoch = timed  # type: ignore[method-assign]
    TrainingLoop(FitProgress(), "cpu", precision, show_progress=False).train(stage)
    return {"seconds": seconds, "losses": losses}


def measured(tree: Path, *words: object) -> dict:
    """:func:`fit` in a process that imports the package from ``tree``."""
    command = [sys.executable, "-W", "ignore", __file__, WORKER, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    options = arguments(__doc__, before="", items=12101, width=384, epochs=4, repeats=5)
    size = (options.items, options.width, options.epochs)
    rows: list[list[object]] = []
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {"this commit": (ROOT, "fp32"), "this commit, bf16": (ROOT, "bf16")}
        if options.before:
            ways = {f"commit {options.before}": (unpack(options.before, folder), "fp32"), **ways}
        for name in ("rqvae", "letter"):
            turns = {way: [] for way in ways}
            for _ in range(options.repeats):
                for way, (tree, precision) in ways.items():
                    turns[way].append(measured(tree, name, *size, precision))
            results[name] = turns
            first = next(iter(ways))
            usual = _times(turns[first])
            for way, fits in turns.items():
                times = _times(fits)
                losses = zip(fits[0]["losses"], turns[first][0]["losses"], strict=True)
                difference = max(abs(a - b) for a, b in losses)
                ratio = statistics.median(usual) / statistics.median(times)
                last = f"{fits[0]['losses'][-1]:.5f}"
                rows.append([name, way, spread(times), ratio, last, f"{difference:.1e}"])
    notes = (
        f"{options.items} vectors of {options.width} dimensions, the shipped settings of the "
        "tokenizers. CPU-seconds of an epoch after the first, each fit's median, median (range) of "
        f"{options.repeats} fits in turns, one thread. Losses: the mean of the last of "
        f"{options.epochs} epochs, and the largest difference of an epoch's mean from the first "
        "row's."
    )
    header = ["tokenizer", "code", "CPU-s an epoch", "times as fast", "loss", "difference"]
    title = "CPU time of the tokenizers that train"
    write_result("tokenizer_speed", title, {"fits": results}, header, rows, notes)


def _times(fits: list[dict]) -> list[float]:
    """The usual time of an epoch in each fit."""
    return [statistics.median(fit["seconds"][1:]) for fit in fits]


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        torch.set_num_threads(1)
        tokenizer, *numbers, number_format = sys.argv[2:]
        print(json.dumps(fit(tokenizer, *map(int, numbers), number_format)))
    else:
        main()
