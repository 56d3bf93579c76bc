"""Training tokens per CPU-second of a causal language model on prompts of very different length:
four ways to lay out a batch.

The usual way pads every sequence of a shuffled batch to the longest. Batches may instead be drawn
from sequences of similar length; or a shuffled batch is split into groups of similar length
(``packing: groups``) or packed into rows with a mask between the sequences (``packing: pack``), as
``recbole_genrec/backbone/causal/packing.py`` does. All take the same sequences, start from the same
weights and do one AdamW step a batch on the loss of the last tokens; before, their states are
compared.

    OMP_NUM_THREADS=1 python benchmarks/packing.py
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from common import arguments, medians, spread, write_result
from torch import Tensor, nn

from recbole_genrec.backbone import CausalBackbone
from recbole_genrec.backbone.causal.packing import length_groups, pack
from recbole_genrec.data.rows.batching import CHUNK_BATCHES, length_grouped
from recbole_genrec.runtime.memory import keep_freed_memory

WORDS, RESPONSE = 3000, 5  # size of the vocabulary; tokens of a response: four codes and the end
SHORTEST, LONGEST = 20, 300
MODELS = {
    "Llama, 2 layers, hidden 64": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    },
    "Llama, 4 layers, hidden 256": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "intermediate_size": 1024,
    },
}


def language_model(settings: dict) -> CausalBackbone:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", vocab_size=WORDS, max_position_embeddings=512, **settings
    )
    return CausalBackbone(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))


def right_padded(backbone: CausalBackbone, embeddings: Tensor, lengths: Tensor) -> Tensor:
    valid = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    padded = embeddings.new_zeros(*valid.shape, embeddings.shape[-1]).masked_scatter(
        valid.unsqueeze(-1), embeddings
    )
    return backbone(padded)[valid]


WAYS = {
    "shuffled, right-padded": (False, right_padded),
    "batches of similar length, right-padded": (True, right_padded),
    "shuffled, packing: pack": (
        False,
        lambda backbone, x, lengths: backbone.states(x, lengths, "pack"),
    ),
    "shuffled, packing: groups": (
        False,
        lambda backbone, x, lengths: backbone.states(x, lengths, "groups"),
    ),
}


def draw(options) -> tuple[list[Tensor], list[Tensor]]:
    """``(shuffled batches, batches of similar length)`` of the same sequences; a batch is the
    lengths ``[B]``.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(
        SHORTEST, LONGEST + 1, (CHUNK_BATCHES * options.batch,), generator=generator
    )
    batches = sorted(
        length_grouped(torch.arange(len(lengths)), lengths, options.batch, generator),
        key=lambda rows: int(lengths[rows].max()),
    )
    chosen = [
        batches[int((step + 0.5) * len(batches) / options.steps)] for step in range(options.steps)
    ]  # short, middling, long
    rows = torch.cat(chosen)
    shuffled = rows[torch.randperm(len(rows), generator=generator)].split(options.batch)
    return [lengths[part] for part in shuffled], [lengths[part] for part in chosen]


def slots(name: str, lengths: Tensor) -> int:
    """Tokens that a way computes for a batch, padding included."""
    if name.endswith("groups"):
        return sum(len(rows) * int(lengths[rows].max()) for rows in length_groups(lengths))
    rows = (
        int(pack(lengths, int(lengths.max()))[0].max()) + 1
        if name.endswith("pack")
        else len(lengths)
    )
    return rows * int(lengths.max())


def ids_of(lengths: Tensor, seed: int) -> Tensor:
    return torch.randint(
        WORDS, (int(lengths.sum()),), generator=torch.Generator().manual_seed(seed)
    )


def timed(backbone: CausalBackbone, states_of, batches: list[Tensor]):
    """Seconds of CPU per pass over the batches, from the same weights each time."""
    start = copy.deepcopy(backbone.state_dict())

    def run() -> float:
        backbone.load_state_dict(start)
        optimiser = torch.optim.AdamW(backbone.parameters(), lr=1e-3)
        started = time.process_time()
        for seed, lengths in enumerate(batches):
            ids = ids_of(lengths, seed)
            ends = lengths.cumsum(0).unsqueeze(1)
            asked = (ends - torch.arange(RESPONSE, 0, -1)).flatten()  # the response
            optimiser.zero_grad()
            states = states_of(backbone, backbone.text_table(ids), lengths)
            nn.functional.cross_entropy(
                backbone.text_logits(states[asked - 1]), ids[asked]
            ).backward()
            optimiser.step()
        return time.process_time() - started

    return run


@torch.no_grad()
def difference(backbone: CausalBackbone, lengths: Tensor) -> float:
    """Largest difference of the states between the ways."""
    embeddings = backbone.text_table(ids_of(lengths, 0))
    first, *others = [states_of(backbone, embeddings, lengths) for _, states_of in WAYS.values()]
    return max((states - first).abs().max().item() for states in others)


def main() -> None:
    options = arguments(__doc__, steps=4, batch=64, repeats=3)
    keep_freed_memory()
    shuffled, similar = draw(options)
    tokens = sum(int(lengths.sum()) for lengths in shuffled)
    batches = {name: similar if grouped else shuffled for name, (grouped, _) in WAYS.items()}
    padding = {
        name: 1 - tokens / sum(slots(name, lengths) for lengths in own)
        for name, own in batches.items()
    }
    results, rows, gaps = {}, [], []
    for model, settings in MODELS.items():
        torch.manual_seed(0)
        backbone = language_model(settings)
        gaps.append(difference(backbone, shuffled[0]))
        if gaps[-1] > 1e-4:
            raise SystemExit(f"The states disagree by {gaps[-1]:.1e}, so the ratios mean nothing.")
        seconds = medians(
            options.repeats, *(timed(backbone, WAYS[name][1], own) for name, own in batches.items())
        )
        speeds = {
            name: [tokens / value for value in values]
            for name, values in zip(WAYS, seconds, strict=True)
        }
        usual = statistics.median(next(iter(speeds.values())))
        results[model] = {"tokens_per_cpu_second": speeds}
        rows += [
            [model, name, f"{padding[name]:.1%}", spread(own), statistics.median(own) / usual]
            for name, own in speeds.items()
        ]
        print(f"{model}: {[f'{row[-1]:.2f}' for row in rows[-len(WAYS) :]]}", flush=True)
    notes = (
        f"{options.steps} batches of {options.batch} sequences of {SHORTEST} to {LONGEST} "
        "tokens, drawn uniformly; "
        f"{tokens} tokens without padding. Batches of similar length are cut from "
        f"{CHUNK_BATCHES} batches sorted together. Forward pass, "
        f"loss of the last {RESPONSE} tokens over {WORDS} words, backward pass and AdamW "
        "step. CPU time of the process, median (range) of "
        f"{options.repeats} turns; padding does not count as tokens. Largest difference of "
        f"a state: {max(gaps):.1e}."
    )
    about = {
        "steps": options.steps,
        "batch": options.batch,
        "tokens": tokens,
        "padding": padding,
        "largest_state_difference": max(gaps),
    }
    header = ["model", "batch", "padding", "tokens per CPU-second", "relative"]
    write_result(
        "packing",
        "Training tokens per CPU-second by the layout of a batch",
        {**about, "models": results},
        header,
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
