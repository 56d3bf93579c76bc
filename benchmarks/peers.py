"""The search of others: transformers' ``generate`` on the weights of one of our models, its
words and the codes in one vocabulary.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import load_encoder_decoder

WORDS = 32100  # of T5; LETTER's release adds the codes behind them


class Peer:
    """``generate`` with beams that follow the item trie.

    ``callback`` is the usual way, as LETTER's release has it: a Python function that lists the
    codes allowed after a prefix. ``mask`` finds them for all beams in one gather of our trie and,
    so that its scores are those of our ``joint``, takes the words out of the softmax.

    Args:
        model: one of ours.
        lm: a language model of transformers.
        first: tokens of the codes ``[L]`` of code 0 of each level.
    """

    def __init__(self, model, lm: nn.Module, first: list[int]):
        self.model, self.lm, self.first = model, lm.eval(), torch.tensor(first)
        self.children: dict[tuple, dict] = {}
        self.item_of: dict[tuple, int] = {}
        for item, row in enumerate((model.codes[1:] + self.first).tolist(), start=1):
            self.item_of[tuple(row)] = item
            for level, token in enumerate(row):
                self.children.setdefault(tuple(row[:level]), {})[token] = None
        self.allowed = {prefix: list(tokens) for prefix, tokens in self.children.items()}

    def prompt(self, history: Tensor, length: Tensor) -> dict[str, Tensor | int]:
        """What ``generate`` takes: input ids, attention mask."""
        raise NotImplementedError

    @torch.no_grad()
    def search(
        self, history: Tensor, length: Tensor, width: int, way: str
    ) -> tuple[Tensor, Tensor]:
        """Items and scores ``[B, width]``."""
        prompt = self.prompt(history, length)
        opening = 1 if self.lm.config.is_encoder_decoder else prompt["input_ids"].shape[1]
        ways = {
            "callback": {
                "prefix_allowed_tokens_fn": lambda _, sequence: self.allowed[
                    tuple(sequence[opening:].tolist())
                ]
            },
            "mask": {
                "logits_processor": [
                    lambda sequences, scores: self._masked(sequences[:, opening:], scores)
                ]
            },
        }
        levels = len(self.first)
        found = self.lm.generate(
            **prompt,
            max_new_tokens=levels,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            length_penalty=0.0,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **ways[way],
        )
        items = [self.item_of[tuple(row)] for row in found.sequences[:, opening:].tolist()]
        return torch.tensor(items).view(-1, width), found.sequences_scores.view(-1, width)

    def _masked(self, path: Tensor, scores: Tensor) -> Tensor:
        trie, nodes = self.model.trie, torch.zeros(len(path), dtype=torch.int64)
        for level, tokens in enumerate(path.unbind(1)):
            children = trie.children(level, nodes)
            codes = (
                torch.arange(children.nodes.shape[1]) if children.codes is None else children.codes
            )
            nodes = (
                children.nodes.masked_fill(codes != (tokens - self.first[level]).unsqueeze(1), -1)
                .amax(1)
                .long()
            )
        children, level = trie.children(path.shape[1], nodes), path.shape[1]
        codes = (
            torch.arange(children.nodes.shape[1]).expand_as(children.nodes)
            if children.codes is None
            else children.codes
        )
        legal = scores[:, self.columns] - scores[:, self.columns].logsumexp(-1, keepdim=True)
        columns = codes + self.first[level]
        values = legal.gather(1, columns - self.columns.start).masked_fill(
            children.nodes < 0, -torch.inf
        )
        return torch.full_like(scores, -torch.inf).scatter_reduce_(1, columns, values, "amax")


class T5Peer(Peer):
    """T5 with the vocabulary of LETTER's release on the weights of a TIGER."""

    def __init__(self, model):
        codes = model.vocabulary
        lm = load_encoder_decoder(
            "scratch", {**model.config["backbone_config"], "vocab_size": WORDS + codes.n_outputs}
        )
        lm.load_state_dict(copy.deepcopy(model.backbone.state_dict()), strict=False)
        with torch.no_grad():
            lm.shared.weight[WORDS:] = codes.table
            lm.shared.weight[0] = codes.table[0]
        self.columns = slice(WORDS, WORDS + codes.n_outputs)  # ours has padding among them
        super().__init__(model, lm, [WORDS + first for first in codes.first])

    def prompt(self, history: Tensor, length: Tensor) -> dict[str, Tensor | int]:
        tokens, mask = self.model.source(history, length)
        return {
            "input_ids": torch.where(mask, tokens + WORDS, 0),
            "attention_mask": mask.long(),
            "decoder_start_token_id": 0,
        }


class CausalPeer(Peer):
    """The language model of a STORE or an LCRec with its codes as words; LCRec's own softmax
    covers the words too.
    """

    def __init__(self, model):
        codes, lm = model.vocabulary, copy.deepcopy(model.backbone.lm)
        head, table = lm.get_output_embeddings().weight, lm.get_input_embeddings().weight
        lm.set_input_embeddings(nn.Embedding.from_pretrained(torch.cat([table, codes.embedding])))
        lm.lm_head = nn.Linear(head.shape[1], len(head) + len(codes.classifier), bias=False)
        lm.lm_head.weight = nn.Parameter(torch.cat([head, codes.classifier]))
        lm.config.vocab_size = len(head) + len(codes.classifier)
        self.columns = slice(
            0 if type(model).__name__ == "LCRec" else len(head), lm.config.vocab_size
        )
        super().__init__(model, lm, [len(head) + offset for offset in codes.first])

    def prompt(self, history: Tensor, length: Tensor) -> dict[str, Tensor | int]:
        ids, lengths = self.model.prompts(history, length)
        source = torch.arange(ids.shape[1]) - (ids.shape[1] - lengths).unsqueeze(
            1
        )  # padded on the left, as generate wants it
        return {
            "input_ids": ids.gather(1, source.clamp(min=0)),
            "attention_mask": (source >= 0).long(),
        }
