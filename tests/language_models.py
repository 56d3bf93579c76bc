"""Tiny causal language models of several families, whose random weights tell tokens apart."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from recbole_genrec.backbone import (
    CausalBackbone,
    CausalDecoder,
    CodeVocabulary,
    embed_mixed,
    load_causal_lm,
)

SIZES = (6, 5, 4)
TEXTS = ["red soap", "a soft brush", "green soap for dry skin", "Next item:"]
ROTARY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
ROTARY |= {"num_key_value_heads": 2, "max_position_embeddings": 64}
OPT = {
    "model_type": "opt",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "init_std": 0.2,
}
OPT |= {"word_embed_proj_dim": 32, "max_position_embeddings": 64}
FAMILIES = {
    "opt": OPT,
    "opt-projected": {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "llama": {"model_type": "llama", **ROTARY},
    "qwen2": {"model_type": "qwen2", **ROTARY},
    "qwen3": {"model_type": "qwen3", "head_dim": 8, **ROTARY},
}


def save_base(folder: Path, family: str, seed: int = 0, **changes) -> str:
    """A folder with random weights of a family and a text vocabulary; its path."""
    torch.manual_seed(seed)
    lm, tokenizer = load_causal_lm(
        "scratch", {**FAMILIES[family], "max_position_embeddings": 512, **changes}, TEXTS, 300
    )
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@cache
def text_vocabulary():
    return load_causal_lm("scratch", OPT, TEXTS, 300)[1]


class Generator:
    """A language model, a code vocabulary and prompts of three users with different lengths."""

    def __init__(
        self, family: str, sizes: tuple[int, ...] = SIZES, lengths: tuple[int, ...] = (5, 9, 1)
    ):
        torch.manual_seed(0)
        vocabulary = text_vocabulary().backend_tokenizer.to_str()
        self.lm, self.text_tokenizer = load_causal_lm(
            "scratch", FAMILIES[family], vocabulary=vocabulary
        )
        self.backbone = CausalBackbone(self.lm.eval())
        self.codes = CodeVocabulary(sizes, self.backbone.d_in, self.backbone.d_out, std=1.0)
        with torch.no_grad():
            self.codes.classifier.div_(self.backbone.d_out**0.5 / 2)
        self.lengths = torch.tensor(lengths)
        self.n_text = self.backbone.text_table.num_embeddings
        self.ids = torch.randint(
            1, self.n_text + sum(sizes), (len(lengths), max(lengths))
        )  # noise where a prompt has ended
        self.prompt = embed_mixed(self.ids, self.backbone.text_table, self.codes.embedding).detach()

    def decoder(self, score_type: str = "level", prompt: Tensor | None = None) -> CausalDecoder:
        prompt = self.prompt if prompt is None else prompt
        scores = partial(self.codes.log_probs, score_type=score_type)
        return CausalDecoder(self.backbone, prompt, self.lengths, self.codes.embed_code, scores)

    def full_pass(self, user: int, paths: Tensor) -> Tensor:
        """Logits ``[n, C]`` over all codes after ``paths [n, t]``: one pass over both."""
        start = self.prompt[user, : self.lengths[user]].expand(len(paths), -1, -1)
        rows = paths + torch.tensor(self.codes.first[: paths.shape[1]], dtype=torch.long)
        sequence = torch.cat([start, self.codes.embedding[rows]], dim=1)
        state = self.lm.base_model(inputs_embeds=sequence, use_cache=False).last_hidden_state[:, -1]
        return state @ self.codes.classifier.T

    def next_log_probs(self, user: int, paths: Tensor, score_type: str) -> Tensor:
        """What a decoder must return for each of the ``paths [n, t]``, ``[n, V_t]``."""
        logits, level = self.full_pass(user, paths), paths.shape[1]
        columns = slice(
            self.codes.first[level], self.codes.first[level] + self.codes.level_sizes[level]
        )
        return (
            logits.log_softmax(-1)[:, columns]
            if score_type == "joint"
            else logits[:, columns].log_softmax(-1)
        )

    def item_scores(self, table: Tensor, score_type: str) -> Tensor:
        """Scores ``[B, n_items - 1]`` of the real items by full passes, item by item."""
        rows, scores = table[1:].tolist(), torch.zeros(len(self.lengths), len(table) - 1)
        for user in range(len(scores)):
            for level in range(table.shape[1]):
                values = self.next_log_probs(user, table[1:, :level], score_type)
                for item, row in enumerate(rows):
                    legal = sorted({other[level] for other in rows if other[:level] == row[:level]})
                    constant = (
                        values[item, legal].logsumexp(0) if score_type == "renormalised" else 0.0
                    )
                    scores[user, item] += values[item, row[level]] - constant
        return scores
