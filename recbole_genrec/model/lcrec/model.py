"""LC-Rec (arXiv 2311.09049): a causal language model that learns the item codes as words, by six families of instructions.

==================================  ===============================================================================
paper                               here
==================================  ===============================================================================
item index, uniform last level      ``tokenizer/``: any tokenizer; ``rqvae`` with Sinkhorn in the paper
index tokens in the vocabulary      ``backbone/code_vocabulary.py``, start in :meth:`LCRec.__init__`
instructions of the six tasks       ``properties/prompts/lcrec.yaml``, ``model/templates.py``, ``model/instructions.py``
loss on the response                :meth:`LCRec.token_loss`
mixture of the tasks                ``model/task_mixture.py``, keys ``tasks`` and ``task_weights``
recommendation by beam search       ``decoding/``, through :meth:`LCRec.item_logits`
==================================  ===============================================================================

Where a row holds several targets (``train_rows`` other than ``all``), they share the prompt up to their history: the loss is that of
separate samples at a fraction of the tokens (our choice, unpublished).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from recbole_genrec.backbone import (
    CausalDecoder,
    CodeVocabulary,
    branch_states,
    build_backbone,
    embed_mixed,
    greedy_text,
    stack_rows,
)
from recbole_genrec.data.user_text import KINDS
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.causal import CausalRecommender
from recbole_genrec.model.lcrec.instructions import IGNORED, Case, Instructions
from recbole_genrec.model.lcrec.task_mixture import TaskMixture, check_tasks
from recbole_genrec.model.lcrec.templates import FORMS, Template, Templates, pieces_of
from recbole_genrec.model.tiger import ranking_guided_loss
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.settings.shared_keys import SharedSettings

PROMPT_REPEATS = 100  # how often the vocabulary from scratch sees the prompts: every word of theirs becomes one token


class LCRecSettings(CausalBackboneKeys, SharedSettings):
    """Keys of LC-Rec."""

    packing: Literal["groups", "pack"] = key(
        "how prompts of different length share a batch", affects="training"
    )
    tasks: list[str] = key(f"families of instructions: {', '.join(FORMS)}", affects="training")
    task_weights: dict = key(
        "how often a task is drawn, times its natural number of samples", affects="training"
    )
    user_text_file: str | None = key("JSON file: user -> preference and query", affects="training")
    prompt_file: str | None = key("YAML file with the prompts; ~ = ours", affects="training")
    test_prompt_ids: list[int] | Literal[0, "all"] = key(
        "templates of seqrec that are tested, or all; the metrics are averaged",
        ge=0,
        affects="search",
    )
    max_length: int = key("tokens of the longest sequence", ge=16, affects="training")
    text_max_len: int = key("tokens of a title or another text", ge=1, affects="training")
    sid_loss_vocab: Literal["full", "sid"] = key("softmax of code responses", affects="training")
    align_new_items: bool = key(
        "whether item2index and index2item may draw items without training interactions",
        affects="training",
    )
    temperature: float = key("divides the logits in training", ge=1e-6, affects="training")
    infer_temperature: float | Literal["match"] = key(
        "divides the logits in the search; match = temperature", ge=1e-6, affects="search"
    )


class LCRec(CausalRecommender):
    """LC-Rec on the codes of any tokenizer; see ``properties/model/LCRec.yaml`` for the keys."""

    uses_users = True  # for messages; recommendations do not depend on them
    settings_class = LCRecSettings
    settings: LCRecSettings

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        own = stored["lcrec"] if stored else {"vocabulary": None}
        self.prompt_texts = (
            own["prompts"]
            if stored
            else read_yaml(config["prompt_file"] or properties_folder() / "prompts" / "lcrec.yaml")
        )
        self.mixture = TaskMixture(config, dataset, bool(self.content.titles), self.logger.info)
        self.backbone, self.text_tokenizer = build_backbone(
            config, self._all_texts(), own["vocabulary"]
        )
        self.tune_backbone()
        self.n_text = self.backbone.text_table.num_embeddings
        self.vocabulary = CodeVocabulary(
            self.level_sizes, self.backbone.d_in, self.backbone.d_out, tied=self.backbone.tied
        )
        spread = (
            1.0 if config["backbone"] == "scratch" else 0.02
        )  # random among random words, or near the mean of the known ones
        self.vocabulary.start_like(
            self.backbone.text_table.weight, self.backbone.lm.get_output_embeddings().weight, spread
        )

        templates = Templates(self.prompt_texts, self.text_tokenizer)
        needed = [*self.mixture.tasks, *(["item2index"] if config["self_improve"] else [])]
        missing = [task for task in needed if task not in templates.tasks]
        if missing:
            raise ConfigError(
                f"The prompt file has no templates for {', '.join(missing)}. Add some, or leave these tasks out of tasks."
            )
        every = list(range(len(templates.tasks["seqrec"])))
        self.test_prompts = (
            every if config["test_prompt_ids"] == "all" else config["test_prompt_ids"] or [0]
        )
        if not set(self.test_prompts) <= set(every):
            raise ConfigError(
                f"test_prompt_ids is {self.test_prompts}; seqrec has templates 0 to {every[-1]}."
            )
        self.prompt = self.test_prompts[0]
        limit = min(config["max_length"], self.backbone.max_positions or config["max_length"])
        self.instructions = Instructions(templates, self._code_ids, limit)
        self.instructions.user_names = dataset.field2id_token[dataset.uid_field]
        self._tokenise_texts()
        match = config["infer_temperature"] == "match"
        self.infer_temperature = config["temperature"] if match else config["infer_temperature"]

    def _all_texts(self) -> list[str]:
        """What a vocabulary from scratch is trained on."""
        items = self.content.text[1:] if self.content.titles else []
        people = [text for kind in KINDS for text in self.mixture.people.get(kind, ())]
        return [*items, *people, *PROMPT_REPEATS * list(pieces_of(self.prompt_texts))]

    def _tokenise_texts(self) -> None:
        """Texts of all items and users; again after items were added."""
        texts = (
            {"title": self.content.titles, "text": self.content.text} if self.content.titles else {}
        )
        texts |= {kind: lines for kind, lines in self.mixture.people.items() if kind in KINDS}
        self.instructions.set_texts(self.text_tokenizer, texts, self.config["text_max_len"])

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and tasks and weights that exist."""
        super().check_config(values)
        check_tasks(values["tasks"], values["task_weights"])
        several = values["test_prompt_ids"] == "all" or (
            values["test_prompt_ids"] and len(values["test_prompt_ids"]) > 1
        )
        if values["save_ranks"] and several:
            raise ConfigError(
                "save_ranks stores one rank a user; use it with a single template, for example --test_prompt_ids=0."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines, the language model and the tasks."""
        return {
            **super().describe(config),
            "backbone": f"{config['backbone']}, tuning {config['tuning']}",
            "tasks": ", ".join(config["tasks"]),
        }

    # --- training ---------------------------------------------------------------------------------------------------------------------

    def _code_ids(self, items: Tensor) -> Tensor:
        """Token ids of the items' codes, behind the text vocabulary, ``[..., L]``."""
        return self.n_text + self.vocabulary.flat(self.codes[items])

    def _embed(self, ids: Tensor) -> Tensor:
        flat = ids.flatten(1) if ids.dim() > 1 else ids.unsqueeze(0)
        return embed_mixed(flat, self.backbone.text_table, self.vocabulary.embedding).view(
            *ids.shape, -1
        )

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy over all response tokens of the batch: its recommendations and the drawn samples of the other tasks."""
        following, wanted = self.next_items(history, length, target)
        batch = Case(target, history, length, following, wanted, user=user)
        alone = [("seqrec", batch)] if self.config["train_rows"] == "all" else []
        read = [] if alone else [self.read_tree(self.asked("seqrec", batch))]
        alone += self.mixture.draw(batch)
        return self.token_loss(
            read + self.read([asked for task, case in alone for asked in self.asked(task, case)])
        )

    def asked(self, task: str, case: Case) -> list[tuple[Template, Case]]:
        """The samples of a task by the template that each of them draws."""
        templates = self.instructions.templates.tasks[task]
        drawn = self.mixture.numbers(len(templates), len(case.item))
        rows = {number: (drawn == number).nonzero().flatten() for number in drawn.unique().tolist()}
        return [
            (templates[number], case.pick(own, case.item.device)) for number, own in rows.items()
        ]

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the responses of ``item2index`` for ``items [B]``."""
        return self.token_loss(self.read(self.asked("item2index", Case(items))))

    def on_epoch_start(self, epoch: int):
        """A new stream of draws."""
        super().on_epoch_start(epoch)
        self.mixture.start_epoch(epoch)
        return ()

    def get_extra_state(self) -> Tensor:
        """Where the draws stand, so that a run that stopped inside an epoch goes on with the same samples."""
        return self.mixture.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Undo :meth:`get_extra_state`."""
        self.mixture.generator.set_state(state.cpu())

    def read_tree(self, cases: list[tuple[Template, Case]]) -> tuple[Tensor, Tensor, bool]:
        """States and labels of all response tokens of recommendations that share their histories."""
        trunk, branches, attach, labels = zip(
            *(self.instructions.tree(template, case) for template, case in cases), strict=True
        )
        states = branch_states(
            self.backbone,
            self._embed(stack_rows(trunk)),
            self._embed(stack_rows(branches)),
            torch.cat(attach),
        )
        return *_responses(states, stack_rows(labels, IGNORED)), True

    def read(self, cases: list[tuple[Template, Case]]) -> list[tuple[Tensor, Tensor, bool]]:
        """States ``[N, d_out]`` and labels ``[N]`` of the response tokens of each task, and whether they are codes."""
        if not cases:
            return []
        sequences = [self.instructions.sequences(template, case) for template, case in cases]
        valid = [
            torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
            for ids, _, lengths in sequences
        ]
        flat = torch.cat([ids[shown] for (ids, _, _), shown in zip(sequences, valid, strict=True)])
        lengths = torch.cat([lengths for *_, lengths in sequences])
        states = self.backbone.states(self._embed(flat), lengths, self.config["packing"])
        read, parts = [], states.split([int(shown.sum()) for shown in valid])
        for (template, _), (_, labels, _), shown, own in zip(
            cases, sequences, valid, parts, strict=True
        ):
            following = labels.roll(-1, 1)[shown]
            read.append(
                (
                    own[following != IGNORED],
                    following[following != IGNORED],
                    template.answer == "index",
                )
            )
        return read

    def outputs(self, states: Tensor, codes_only: bool) -> Tensor:
        """Logits over the text vocabulary and all codes, or over the end token and all codes, ``[..., V + C]`` or ``[..., 1 + C]``."""
        if codes_only:
            text = linear(
                states,
                self.backbone.lm.get_output_embeddings()
                .weight[self.instructions.templates.end]
                .unsqueeze(0),
            )
        else:
            text = self.backbone.text_logits(states)
        return torch.cat([text, self.vocabulary.logits(states)], dim=-1)

    def token_loss(self, read: list[tuple[Tensor, Tensor, bool]]) -> Tensor:
        """Mean over all response tokens of ``read``; with ``sid_loss_vocab: sid`` code responses are normalised over codes and end."""
        total, loss = sum(len(labels) for _, labels, _ in read), 0.0
        restricted = self.config["sid_loss_vocab"] == "sid"
        for codes_only in {codes and restricted for _, _, codes in read}:
            parts = [
                (states, labels)
                for states, labels, codes in read
                if (codes and restricted) == codes_only
            ]
            states, labels = (torch.cat(column) for column in zip(*parts, strict=True))
            if codes_only:
                labels = (labels - self.n_text + 1).clamp(min=0)
            loss = loss + ranking_guided_loss(
                self.outputs(states, codes_only), labels, self.config["temperature"]
            ) * (len(labels) / total)
        return balanced(loss, total)

    # --- search -----------------------------------------------------------------------------------------------------------------------

    def prompts(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, S]``, right-padded, and lengths ``[B]`` of the sequential prompt in the template that is tested."""
        template, case = (
            self.instructions.templates.tasks["seqrec"][self.prompt],
            Case(history[:, 0], history, length, user=user),
        )
        return self.instructions.prompts(template, case, len(self.level_sizes) + 1)

    def item_logits(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> CausalDecoder:
        """Next-code log-probabilities after the users' sequential prompts, which all beams share."""
        ids, lengths = self.prompts(history, length, user)
        return CausalDecoder(
            self.backbone, self._embed(ids), lengths, self.vocabulary.embed_code, self.log_probs
        )

    def item_decoder(self, items: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the first prompt of ``item2index``."""
        template = self.instructions.templates.tasks["item2index"][0]
        ids, lengths = self.instructions.prompts(template, Case(items), len(self.level_sizes) + 1)
        log_probs = partial(
            self.vocabulary.log_probs, score_type="level", temperature=self.config["temperature"]
        )
        return CausalDecoder(
            self.backbone, self._embed(ids), lengths, self.vocabulary.embed_code, log_probs
        )

    def test_variants(self) -> Iterator[str]:
        """The templates of ``test_prompt_ids``."""
        for number in self.test_prompts:
            self.prompt = number
            yield f"prompt {number}"
        self.prompt = self.test_prompts[0]

    def log_probs(self, states: Tensor, level: int) -> Tensor:
        """Log-probabilities of one level's codes ``[..., V_level]``; ``joint`` normalises over the softmax of the loss."""
        if self.config["score_type"] != "joint":
            return self.vocabulary.log_probs(states, level, "level", self.infer_temperature)
        every = (
            self.outputs(states, self.config["sid_loss_vocab"] == "sid").float()
            / self.infer_temperature
        ).log_softmax(-1)
        first = every.shape[-1] - sum(self.level_sizes) + self.vocabulary.offsets[level]
        return every.narrow(-1, first, self.level_sizes[level])

    # --- in use -----------------------------------------------------------------------------------------------------------------------

    def items_added(self, items: list[int]) -> None:
        """Start values of the extra token that no item had, and add the texts for titles in prompts.

        Args:
            items: internal ids of the new items.
        """
        self.start_unused_codes()
        self._tokenise_texts()

    @torch.no_grad()
    def inspect_items(self, tokens: Sequence[str]) -> list[dict]:
        """What the model says about items when it sees their codes alone (task ``index2item``, template 0, most likely tokens).

        Args:
            tokens: raw item ids.

        Returns:
            ``[{"item", "codes", "generated", "text"}]``; ``text`` is what the template asks for, the title in our file.

        Raises:
            ConfigError: unknown item, or a model that was not trained to describe items.
        """
        if "index2item" not in self.mixture.tasks:
            raise ConfigError(
                f"This model was trained without index2item (tasks {', '.join(self.mixture.tasks)}); it cannot describe items."
            )
        self.eval()
        template = self.instructions.templates.tasks["index2item"][0]
        items = torch.tensor(self.item_ids(tokens), device=self.codes.device)
        ids, _ = self.instructions.prompts(template, Case(items), self.config["text_max_len"] + 1)
        found = greedy_text(
            self.backbone,
            self._embed(ids),
            self.instructions.templates.end,
            self.config["text_max_len"],
        )
        truth = self.content.titles if template.answer == "title" else self.content.text
        said = self.text_tokenizer.batch_decode(found, skip_special_tokens=True)
        return [
            {
                "item": self.item_tokens[item],
                "codes": self.code_words(item),
                "generated": text.strip(),
                "text": truth[item],
            }
            for item, text in zip(items.tolist(), said, strict=True)
        ]

    def other_parameter(self) -> dict:
        """As the base's, with the prompts and the text vocabulary that the weights were trained on."""
        vocabulary = (
            self.text_tokenizer.backend_tokenizer.to_str()
            if self.config["backbone"] == "scratch"
            else None
        )
        return {
            **super().other_parameter(),
            "lcrec": {"prompts": self.prompt_texts, "vocabulary": vocabulary},
        }


def _responses(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of states and labels ``[..., S]``: the states before the response tokens, and these tokens."""
    following = labels[..., 1:]
    return states[..., :-1, :][following != IGNORED], following[following != IGNORED]
