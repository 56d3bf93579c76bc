"""Users per CPU-second of our search and of transformers' ``generate`` with a trie callback: same weights, codes and histories.

The peer is as fast as ``generate`` can be made: its vocabulary is what the model's softmax covers (codes alone for STORE, words and codes
for LCRec), prompts enter as embeddings, and the trie is a dictionary of lists. Both return the best ``--beam`` items under
``score_type: joint``, and the lists are compared.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py --model=STORE --dataset=ml-100k
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from common import arguments, medians, spread, untrained, write_result
from torch import Tensor, nn

from recbole_genrec.compat import keep_freed_memory


class Peer:
    """``generate`` of transformers on the weights of a STORE or an LCRec."""

    def __init__(self, model, words: bool):
        self.model = model
        self.lm = copy.deepcopy(model.backbone.lm)
        inputs, outputs = model.vocabulary.embedding, model.vocabulary.classifier
        if words:
            head = self.lm.get_output_embeddings().weight
            inputs, outputs = torch.cat([self.lm.get_input_embeddings().weight, inputs]), torch.cat([head, outputs])
        first = len(outputs) - len(model.vocabulary.classifier)
        self.lm.set_input_embeddings(nn.Embedding.from_pretrained(inputs))
        self.lm.lm_head = nn.Linear(*outputs.shape[::-1], bias=False)
        self.lm.lm_head.weight = nn.Parameter(outputs)
        self.lm.config.vocab_size = len(outputs)
        self.item_of, self.children = {}, {}
        for item, row in enumerate((first + model.vocabulary.flat(model.codes[1:])).tolist(), start=1):
            self.item_of[tuple(row)] = item
            for level, code in enumerate(row):
                self.children.setdefault(tuple(row[:level]), {})[code] = None
        self.children = {prefix: list(codes) for prefix, codes in self.children.items()}

    @torch.no_grad()
    def search(self, history: Tensor, length: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Items and scores ``[B, width]``; prompts as the model builds them, padded on the left as ``generate`` wants them."""
        ids, lengths = self.model.prompts(history, length)
        prompt, longest = self.model._embed(ids), ids.shape[1]
        source = torch.arange(longest) - (longest - lengths).unsqueeze(1)
        prompt = prompt.gather(1, source.clamp(min=0).unsqueeze(-1).expand_as(prompt))
        levels = self.model.codes.shape[1]
        found = self.lm.generate(
            inputs_embeds=prompt,
            attention_mask=(source >= 0).long(),
            max_new_tokens=levels,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, sequence: self.children[tuple(sequence.tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )
        items = [self.item_of[tuple(row)] for row in found.sequences.tolist()]
        return torch.tensor(items).view(-1, width), found.sequences_scores.view(-1, width)


def main() -> None:
    options = arguments(__doc__, model="STORE", users=64, beam=20, repeats=5, batch=64, peer_batch=16, history=20, words=8000)
    keep_freed_memory()
    settings = {"tokenizer_epochs": 0} if options.model == "STORE" else {"text_vocab_size": options.words}
    model, loader = untrained(
        options.model, options, **settings, MAX_ITEM_LIST_LENGTH=options.history, beam_width=options.beam, score_type="joint"
    )
    history = torch.cat([batch[0][model.ITEM_SEQ] for batch in loader])
    length = torch.cat([batch[0][model.ITEM_SEQ_LEN] for batch in loader])
    chosen = (length == options.history).nonzero().flatten()[: options.users]
    if len(chosen) < options.users:
        print(f"{options.dataset} has only {len(chosen)} test users with {options.history} items of history.")
    peer, lists = Peer(model, options.model == "LCRec"), {}

    def timed(name, search, batch_size):
        def run() -> float:
            started = time.process_time()
            parts = [search(history[rows], length[rows]) for rows in chosen.split(batch_size)]
            seconds = time.process_time() - started
            lists[name] = [torch.cat(column) for column in zip(*parts, strict=True)]
            return seconds

        return run

    def ours(history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        result = model.search(history, length, k=options.beam)
        return result.items, result.scores

    def theirs(history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        return peer.search(history, length, options.beam)

    seconds = medians(options.repeats, timed("ours", ours, options.batch), timed("peer", theirs, options.peer_batch))
    same = (lists["ours"][0] == lists["peer"][0]).all(1).double().mean().item()
    difference = (lists["ours"][1] - lists["peer"][1]).abs().max().item()
    speed = [[len(chosen) / value for value in values] for values in seconds]
    prompt_tokens = model.prompts(history[chosen], length[chosen])[0].shape[1]
    ratio = statistics.median(speed[0]) / statistics.median(speed[1])
    result = {
        "model": options.model,
        "dataset": options.dataset,
        "outputs": peer.lm.config.vocab_size,
        "items": len(model.codes) - 1,
        "levels": list(model.level_sizes),
        "users": len(chosen),
        "batch": {"ours": options.batch, "generate": options.peer_batch},
        "beam": options.beam,
        "history": options.history,
        "prompt_tokens": prompt_tokens,
        "users_per_cpu_second": {"ours": speed[0], "generate": speed[1]},
        "ratio_of_medians": ratio,
        "identical_lists": same,
        "largest_score_difference": difference,
    }
    notes = (
        f"Test users of {options.dataset} ({result['items']} items, code sizes {result['levels']}) with {options.history} items of "
        f"history, prompts of {prompt_tokens} tokens, beam {options.beam}, score_type joint over {result['outputs']} words and codes, the "
        f"default {options.model} backbone with random weights. Batches of {options.batch} (our default) and, for generate, "
        f"{options.peer_batch} (its fastest of 4, 16 and 64). CPU time of the process, median (range) of {options.repeats} turns. "
        f"Users whose {options.beam} items come in the same order: {same:.2%}; largest difference of a score: {difference:.1e}."
    )
    rows = [["ours", spread(speed[0]), 1.0], ["transformers' generate, trie callback", spread(speed[1]), 1 / ratio]]
    name = "decoding" if options.model == "STORE" else f"decoding-{options.model.lower()}"
    write_result(name, "Users per CPU-second of the search", result, ["search", "users per CPU-second", "relative"], rows, notes)
    print(f"\nratio {ratio:.1f}")
    if same < 0.98 or difference > 1e-4:
        raise SystemExit("The two searches disagree, so the ratio means nothing.")


if __name__ == "__main__":
    main()
