"""Training examples per CPU-second of an encoder-decoder over item codes: our step and the usual
one of transformers.

Ours has a vocabulary of codes only and batches of similar length, trimmed to their longest window.
The usual way adds the codes to the 32,100 words of a T5 and pads every window to its longest
possible length. Both take the same windows, start from the same weights and do one AdamW step a
batch; before, without dropout, their logits of the codes are compared. Both are timed in float32
and under bf16 autocast, which is what ``precision: bf16`` sets. Our commands let the C library keep
freed memory; the usual way runs without that and, in float32, also with it.

    OMP_NUM_THREADS=1 python benchmarks/training.py --dataset=amazon-beauty --data_path=<folder>
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from common import arguments, load, medians, spread, write_result
from measure import apart, ceiling, t5_flops
from torch import Tensor, nn

from recbole_genrec.backbone import EncoderDecoderBackbone, load_encoder_decoder
from recbole_genrec.backbone.tied_code_vocabulary import TiedCodeVocabulary
from recbole_genrec.data.rows.batching import CHUNK_BATCHES, length_grouped
from recbole_genrec.runtime.memory import keep_freed_memory

WORDS = 32100  # of T5; its table then takes the codes
SIZES = (256, 256, 256, 256)
USUAL = "transformers, 32k words, all windows padded"
MODELS = {
    "2 + 2 layers, d_model 64, d_ff 256, 4 heads x 16": {
        "d_model": 64,
        "d_ff": 256,
        "num_heads": 4,
        "d_kv": 16,
        "num_layers": 2,
    },
    "4 + 4 layers, d_model 128, d_ff 1024, 6 heads x 64": {
        "d_model": 128,
        "d_ff": 1024,
        "num_heads": 6,
        "d_kv": 64,
        "num_layers": 4,
    },
}


class Ours(nn.Module):
    """Our backbone; token 0 is padding, then the codes, then the end."""

    def __init__(self, settings: dict):
        super().__init__()
        self.backbone = EncoderDecoderBackbone(load_encoder_decoder("scratch", settings))
        self.vocabulary = TiedCodeVocabulary(SIZES, settings["d_model"], use_eos=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits ``[B, 5, V]``."""
        mask = source > 0
        memory = self.backbone.memory(
            self.backbone.encode(self.vocabulary.embed(source), mask), mask
        )
        inputs = nn.functional.pad(target[:, :-1], (1, 0))
        return self.vocabulary.logits(self.backbone.decode(self.vocabulary.embed(inputs), memory))


class Usual(nn.Module):
    """transformers' T5 on the weights of ``ours``; a code's token comes after the words, padding
    stays 0.
    """

    def __init__(self, settings: dict, ours: Ours):
        super().__init__()
        self.lm = load_encoder_decoder(
            "scratch", {**settings, "vocab_size": WORDS + ours.vocabulary.n_outputs}
        )
        self.lm.load_state_dict(copy.deepcopy(ours.backbone.state_dict()), strict=False)
        with torch.no_grad():
            self.lm.shared.weight[WORDS:] = ours.vocabulary.table
            self.lm.shared.weight[0] = ours.vocabulary.table[0]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits ``[B, 5, 32100 + V]``."""
        inputs = nn.functional.pad(_after_words(target)[:, :-1], (1, 0))
        return self.lm(
            input_ids=_after_words(source),
            attention_mask=(source > 0).long(),
            decoder_input_ids=inputs,
        ).logits


def _after_words(tokens: Tensor) -> Tensor:
    return torch.where(tokens > 0, tokens + WORDS, 0)


def windows(options, vocabulary: TiedCodeVocabulary) -> tuple[list, list, int, float]:
    """``(our batches, usual batches, items, mean items of a window)``; a batch is ``(source [B,
    S], target [B, 5])`` in tokens.
    """
    config, dataset, (train, _, _) = load("SASRec", options, MAX_ITEM_LIST_LENGTH=options.history)
    data, generator = train._dataset.inter_feat, torch.Generator().manual_seed(config["seed"])
    rows, lengths = (
        torch.randperm(len(data), generator=generator),
        data[train._dataset.item_list_length_field],
    )
    chunk = sorted(
        length_grouped(rows[: CHUNK_BATCHES * options.batch], lengths, options.batch, generator),
        key=lambda x: int(lengths[x].max()),
    )
    chosen = [
        chunk[int((step + 0.5) * len(chunk) / options.steps)] for step in range(options.steps)
    ]  # of short, middling, long windows
    rows = torch.cat(chosen)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    codes = torch.cat(
        [torch.randint(size, (dataset.item_num, 1), generator=generator) for size in SIZES], 1
    )
    tokens = nn.functional.pad(vocabulary.tokens(codes), (0, 1), value=vocabulary.eos)

    def batch(part: Tensor, width: int) -> tuple[Tensor, Tensor]:
        items, length = (
            data[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]][part, :width],
            lengths[part].unsqueeze(1),
        )
        place = torch.arange(4 * width + 1)
        source = nn.functional.pad(tokens[items, :-1].flatten(1), (0, 1))
        source = torch.where(place < 4 * length, source, 0).masked_fill(
            place == 4 * length, vocabulary.eos
        )
        return source, tokens[data[config["ITEM_ID_FIELD"]][part]]

    grouped = [batch(part, int(lengths[part].max())) for part in chosen]
    padded = [batch(part, options.history) for part in rows.split(options.batch)]
    return grouped, padded, dataset.item_num - 1, lengths[rows].double().mean().item()


def timed(model: nn.Module, batches: list, shift: int, bf16: bool = False):
    """Seconds of CPU per pass over the batches, from the same weights each time."""
    start = copy.deepcopy(model.state_dict())

    def run() -> float:
        model.load_state_dict(start)
        model.train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        started = time.process_time()
        for source, target in batches:
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(source, target)
            nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), (target + shift).flatten()
            ).backward()
            optimiser.step()
        return time.process_time() - started

    return run


@torch.no_grad()
def difference(ours: Ours, usual: Usual, source: Tensor, target: Tensor) -> float:
    """Largest difference of the logits of codes and end, without dropout."""
    return (
        (ours.eval()(source, target)[..., 1:] - usual.eval()(source, target)[..., WORDS + 1 :])
        .abs()
        .max()
        .item()
    )


def padding(batches: list) -> float:
    """Share of the encoder's positions that hold no token."""
    return 1 - sum(int((source > 0).sum()) for source, _ in batches) / sum(
        source.numel() for source, _ in batches
    )


class Case:
    """A backbone size: our model and its peer on the same weights, and the batches of both."""

    def __init__(self, settings: dict, options):
        self.settings, self.model = settings, Ours(settings)
        self.peer = Usual(settings, self.model)
        self.grouped, self.padded, self.items, self.mean = windows(options, self.model.vocabulary)
        self.gap = difference(self.model, self.peer, *self.padded[0])
        if self.gap > 1e-4:
            raise SystemExit(
                f"The two models disagree by {self.gap:.1e}, so the ratio means nothing."
            )

    def ours(self, bf16: bool = False):
        """A pass over our batches."""
        return timed(self.model, self.grouped, 0, bf16)

    def usual(self, bf16: bool = False):
        """A pass over the padded batches."""
        return timed(self.peer, self.padded, WORDS, bf16)

    def useful_flops(self) -> float:
        """Of a training step, per example; a backward pass costs two forward passes."""
        tokens = torch.cat([(source > 0).sum(1) for source, _ in self.grouped])
        steps = [(1, step + 1) for step in range(len(SIZES) + 1)]
        return (
            3
            * t5_flops(self.settings, tokens, steps, self.model.vocabulary.n_outputs)
            / len(tokens)
        )


def main() -> None:
    options = arguments(__doc__, steps=10, batch=128, history=20, repeats=5)
    torch.manual_seed(0)
    cases = {name: Case(settings, options) for name, settings in MODELS.items()}
    theirs = apart(
        {(name, bf16): case.usual(bf16) for name, case in cases.items() for bf16 in (False, True)}
    )
    keep_freed_memory()
    sizes = ceiling(
        [
            (1024, 1024, 1024),
            (4096, 128, 384),
            (4096, 384, 128),
            (4096, 128, 1024),
            (4096, 1024, 128),
        ]
    )
    results, rows = {}, []
    for name, case in cases.items():
        ways = {
            "ours": case.ours(),
            USUAL: theirs[name, False],
            f"{USUAL}, freed memory kept": case.usual(),
            "ours, bf16": case.ours(bf16=True),
            f"{USUAL}, bf16": theirs[name, True],
        }
        seconds = dict(zip(ways, medians(options.repeats, *ways.values()), strict=True))
        speed = {
            way: [options.steps * options.batch / value for value in values]
            for way, values in seconds.items()
        }
        middle = {way: statistics.median(values) for way, values in speed.items()}
        useful = case.useful_flops()
        gflops = useful * middle["ours"] / 1e9
        results[name] = {
            "examples_per_cpu_second": speed,
            "times_the_usual": {way: value / middle[USUAL] for way, value in middle.items()},
            "parameters": {"ours": _count(case.model), "usual": _count(case.peer)},
            "padding": {"ours": padding(case.grouped), "usual": padding(case.padded)},
            "useful_gflop_per_example": useful / 1e9,
            "useful_gflop_per_second": gflops,
            "share_of_ceiling": gflops / max(sizes.values()),
            "largest_logit_difference": case.gap,
        }
        for way, values in speed.items():
            model, batches = (
                (case.model, case.grouped) if "ours" in way else (case.peer, case.padded)
            )
            row = [
                name,
                way,
                f"{_count(model):,}",
                f"{padding(batches):.1%}",
                spread(values),
                middle[way] / middle[USUAL],
            ]
            rows.append(
                [
                    *row,
                    f"{gflops:.1f} ({gflops / max(sizes.values()):.0%})" if way == "ours" else "-",
                ]
            )
        print(f"{name}: {results[name]['times_the_usual']}", flush=True)
    notes = (
        f"CPU, one thread. {options.steps} batches of {options.batch} training windows of "
        f"{options.dataset} ({case.items} items), drawn "
        f"at random, up to {options.history} items, {case.mean:.1f} on average, 4 random "
        "codes of 256 each and an end token. Forward pass, "
        "backward pass and AdamW step with dropout 0.1. CPU time of the process, median "
        f"(range) of {options.repeats} turns. Our commands "
        "let the C library keep freed memory; transformers runs without that, as its users "
        "run it, and once with it. Padding: share "
        "of the encoder's positions. Largest difference of a code's logit before training: "
        f"{max(result['largest_logit_difference'] for result in results.values()):.1e}.\n"
        "Ceiling, GFLOP/s of a float32 product: "
        + ", ".join(f"{size} {value:.0f}" for size, value in sizes.items())
        + ". The share "
        "counts the useful operations of our model, three times those of the forward pass, "
        "against the fastest of them."
    )
    about = {
        "dataset": options.dataset,
        "items": case.items,
        "steps": options.steps,
        "batch": options.batch,
        "history": options.history,
    }
    header = [
        "model",
        "training step",
        "parameters",
        "padding",
        "examples per CPU-second",
        "times the usual",
    ]
    header.append("useful GFLOP/s (share of the ceiling)")
    result = {
        **about,
        "mean_items": case.mean,
        "ceiling_gflop_per_second": sizes,
        "models": results,
    }
    write_result("training", "Training examples per CPU-second", result, header, rows, notes)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
