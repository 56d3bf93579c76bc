"""LCRec on the toy dataset with all six tasks, its prompts put together by hand, and language
models of several families.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from toy import TINY_LLAMA, toy_model, write_dataset

from recbole_genrec.model.lcrec.cases import Case, HistoryCase
from recbole_genrec.model.lcrec.templates import FORMS
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder

PROMPTS = read_yaml(properties_folder() / "prompts" / "lcrec.yaml")
OPT = {
    "model_type": "opt",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 64,
    "dropout": 0.0,
}
OPT |= {
    "word_embed_proj_dim": 16,
    "do_layer_norm_before": False,
    "max_position_embeddings": 512,
    "init_std": 0.2,
}
LLAMA = {**TINY_LLAMA, "initializer_range": 0.2}
FAMILIES = {
    "untied": {**LLAMA, "tie_word_embeddings": False},
    "tied": {**LLAMA, "tie_word_embeddings": True},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "opt-projected": OPT,
}


def write_data(folder: Path) -> Path:
    """The toy dataset and texts of every second user."""
    texts = {
        f"u{n}": {"preference": f"likes kind {n}", "query": f"something for {n}"}
        for n in range(0, 60, 2)
    }
    (folder / "users.json").write_text(
        json.dumps({**texts, "nobody": {"preference": "x", "query": "y"}})
    )
    return write_dataset(folder)


def maker(folder: Path, cache: Path):
    """``make(**changes) -> (model, config, loaders)`` on :func:`write_data`."""

    def made(**changes):
        torch.manual_seed(0)
        return toy_model(
            folder,
            "LCRec",
            **{"cache_dir": str(cache), "user_text_file": str(folder / "users.json"), **changes},
        )

    return made


def batch_of(model, loader):
    batch = next(iter(loader))
    history, length = model._history(batch)
    return history, length, batch["item_id"], batch["user_id"]


class ByHand:
    """Prompts and responses of a model as Python lists, one row at a time, from texts and the
    code table alone.
    """

    def __init__(self, model):
        self.model, self.tokenizer = model, model.text_tokenizer

    def words(self, text):
        return self.tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"]

    def limited(self, text):
        return self.tokenizer(" " + text, add_special_tokens=False)["input_ids"][
            : self.model.config["text_max_len"]
        ]

    def codes(self, item):
        sizes, row = self.model.level_sizes, self.model.codes[item].tolist()
        n_text = self.model.text_and_codes.n_text
        return [n_text + sum(sizes[:level]) + code for level, code in enumerate(row)]

    def listed(self, parts):
        separator = self.words(PROMPTS["separator"])
        return [
            token
            for number, part in enumerate(parts)
            for token in (separator if number else []) + part
        ]

    def slot(self, name, item, history, person):
        content = self.model.content
        if name == "index":
            return self.codes(item)
        if name == "history":
            return self.listed([self.codes(one) for one in history])
        if name == "titles":
            return self.listed([self.limited(content.titles[one]) for one in history])
        if name in ("title", "text"):
            return self.limited(content.titles[item] if name == "title" else content.text[item])
        return self.limited(self.model.mixture.person_texts[name][person])

    def sequence(self, task, number, item, history=(), person=None):
        """``(prompt ids, response ids)``."""
        entry = PROMPTS["tasks"][task][number]
        prompt, rest = self.words(PROMPTS["header"]), entry["ask"]
        while "{" in rest:
            text, _, rest = rest.partition("{")
            name, _, rest = rest.partition("}")
            prompt += self.words(text) + self.slot(name, item, history, person)
        prompt += self.words(rest) + self.words(PROMPTS["response"])
        return prompt, [
            *self.slot(entry["answer"].strip("{}"), item, history, person),
            self.tokenizer.eos_token_id,
        ]


def cases_of(model, loaders):
    """One case with rows of different length for each task."""
    history, length, target, user = batch_of(model, loaders[0])
    rows = length.argsort(descending=True)[[0, 3, -1]]
    sequential = HistoryCase(target[rows], history[rows], length[rows], user=user[rows])
    described = Case(torch.tensor([3, 17, 40]))
    people = model.mixture.people.pick(torch.tensor([0, 9, 4]), torch.device("cpu"))
    known = {
        "item2index": described,
        "index2item": described,
        "itemsearch": people,
        "preferenceobtain": people,
    }
    return {task: known.get(task, sequential) for task in FORMS}


def shown(case, row):
    """The history of one prompt; empty where the task has none."""
    if not isinstance(case, HistoryCase):
        return []
    return case.history[row, : case.length[row]].tolist()
