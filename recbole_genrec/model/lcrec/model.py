"""LC-Rec (arXiv 2311.09049): a causal language model learns item codes as words.

It learns them by six families of instructions.

==================================  =======================================================
paper                               here
==================================  =======================================================
item index, uniform last level      ``tokenizer/``: any tokenizer;
                                    ``rqvae`` with Sinkhorn in the paper
index tokens in the vocabulary      ``backbone/code_vocabulary.py``,
                                    start in :meth:`LCRec.__init__`
instructions of the six tasks       ``properties/prompts/lcrec.yaml``, ``templates.py``,
                                    ``instructions.py``
loss on the response                ``responses.py``: ``Responses.loss``
mixture of the tasks                ``task_mixture.py``, keys ``tasks``, ``task_weights``
recommendation by beam search       ``decoding/``, through :meth:`LCRec.item_logits`
==================================  =======================================================

Where a row holds several targets (``train_rows`` other than ``all``), they share the prompt up to
their history. The loss is that of separate samples at a fraction of the tokens (our choice,
unpublished).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from recbole_genrec.backbone import CausalDecoder, TextAndCodes, build_backbone, serialised
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.causal import CausalRecommender
from recbole_genrec.model.lcrec.cases import AnyCase, Case, HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.inspection import describe_items
from recbole_genrec.model.lcrec.instructions import Instructions
from recbole_genrec.model.lcrec.keys import LCRecSettings, check_weights
from recbole_genrec.model.lcrec.responses import Response, Responses, Sample, by_template
from recbole_genrec.model.lcrec.task_mixture import TaskMixture, check_tasks
from recbole_genrec.model.lcrec.templates import (
    Template,
    Templates,
    chosen_templates,
    pieces_of,
    with_prompt_set,
)
from recbole_genrec.model.lcrec.vocabulary import code_vocabulary
from recbole_genrec.model.stored import TextUse
from recbole_genrec.runtime.number_formats import NUMBER_FORMATS
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder

# How often a vocabulary from scratch sees the prompts: each of their words becomes one token.
PROMPT_REPEATS = 100


class LCRec(CausalRecommender):
    """LC-Rec on the codes of any tokenizer; ``properties/model/LCRec.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    uses_users = True  # for messages; recommendations do not depend on them
    settings_class = LCRecSettings
    loss_vocab_key = "sid_loss_vocab"
    settings: LCRecSettings
    trains_without_history = True
    own_tasks: ClassVar[Mapping[str, str]] = {
        "si_align_weight": "item2index in task_weights",
        "si_back_weight": "index2item in task_weights",
    }

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        settings = self.settings
        text_vocabulary = None
        if stored:
            self.prompt_texts = stored["lcrec"]["prompts"]
            text_vocabulary = stored["lcrec"]["vocabulary"]
        else:
            prompt_file = settings.prompt_file or properties_folder() / "prompts" / "lcrec.yaml"
            self.prompt_texts = with_prompt_set(read_yaml(prompt_file), settings.prompt_set)
        self.mixture = TaskMixture(settings, dataset, bool(self.content.titles), self.logger.info)

        self.backbone, self.text_tokenizer = build_backbone(
            config,
            self._vocabulary_texts(),
            text_vocabulary,
            NUMBER_FORMATS[settings.weights_precision],
        )
        self.tune_backbone()
        from_scratch = settings.backbone == "scratch"
        self.vocabulary = code_vocabulary(self.backbone, self.level_sizes, from_scratch)
        self.text_and_codes = TextAndCodes(self.backbone, self.vocabulary)

        templates = Templates(self.prompt_texts, self.text_tokenizer)
        templates.require(self._tasks_with_templates())
        self.test_prompts = chosen_templates(
            settings.test_prompt_ids, len(templates.tasks["seqrec"])
        )
        self.prompt = self.test_prompts[0]
        limit = settings.max_length
        if self.backbone.max_positions:
            limit = min(limit, self.backbone.max_positions)
        self.instructions = Instructions(templates, self._code_ids, limit)
        self.instructions.user_names = dataset.field2id_token[dataset.uid_field]
        self._tokenise_texts()
        self.responses = Responses(
            self.backbone,
            self.text_and_codes,
            self.instructions,
            settings,
            lambda: self.trie,
            self.closed_codes,
        )

    # --- the two functions of a method ------------------------------------------------------------

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy over all response tokens of the batch.

        These are the recommendations of the batch and the samples that are drawn of other tasks.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        following, is_target = self.next_items(history, length, target)  # [B, T]
        batch = TargetsCase(target, history, length, following, is_target, user=user)

        responses: list[Response] = []
        cases: list[tuple[str, Case]] = []
        if self.has_one_target:
            cases.append(("seqrec", batch))
        else:
            recommendations = self.samples("seqrec", batch)
            responses.append(self.responses.read_tree(recommendations))
        cases += self.mixture.draw(batch)

        samples: list[Sample] = []
        for task, case in cases:
            samples += self.samples(task, case)
        responses += self.responses.read(samples)
        return self.responses.loss(responses)

    def validation_loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor
    ) -> Tensor:
        """The loss of ``seqrec``, each row under two of the templates that are tested.

        The number of its user decides under which, so that epochs and processes can be compared.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        case = HistoryCase(target, history, length, user=user)
        numbers = torch.tensor(self.test_prompts, device=user.device)
        templates = self.instructions.templates.tasks["seqrec"]
        samples: list[Sample] = []
        for shift in {0, len(numbers) // 2}:
            chosen = numbers[(user + shift) % len(numbers)]  # [B]
            samples += by_template(templates, chosen, case)
        return self.responses.loss(self.responses.read(samples))

    def item_logits(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> CausalDecoder:
        """Next-code log-probabilities after the users' sequential prompts.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        ids, lengths = self.prompts(history, length, user)
        return self.prompt_decoder(ids, lengths, self.log_probs)

    # --- samples ----------------------------------------------------------------------------------

    def samples(self, task: str, case: AnyCase) -> list[tuple[Template, AnyCase]]:
        """The samples of a task, by the template that each of them draws.

        Args:
            task: name of the task.
            case: what fills the templates, ``n`` samples.
        """
        templates = self.instructions.templates.tasks[task]
        drawn = self.mixture.numbers(len(templates), len(case.item))  # [n]
        return by_template(templates, drawn, case)

    def prompts(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sequential prompt in the template that is tested.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            user: RecBole's user ids ``[B]``.

        Returns:
            Token ids ``[B, S]``, right-padded, and lengths ``[B]``.
        """
        template = self.instructions.templates.tasks["seqrec"][self.prompt]
        case = HistoryCase(history[:, 0], history, length, user=user)
        return self.instructions.prompts(template, case, len(self.level_sizes) + 1)

    def _code_ids(self, items: Tensor) -> Tensor:
        """Token ids of the items' codes, behind the text vocabulary, ``[..., L]``."""
        return self.text_and_codes.ids(self.codes[items])

    def on_epoch_start(self, epoch: int):
        """Start a new stream of draws.

        Args:
            epoch: number of the epoch, counted from 0.
        """
        super().on_epoch_start(epoch)
        self.mixture.start_epoch(epoch)
        return ()

    def get_extra_state(self) -> Tensor:
        """Where the draws stand: a run that stopped inside an epoch draws the same samples."""
        return self.mixture.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Undo :meth:`get_extra_state`.

        Args:
            state: what it returned.
        """
        self.mixture.generator.set_state(state.cpu())

    # --- search -----------------------------------------------------------------------------------

    def log_probs(self, states: Tensor, level: int) -> Tensor:
        """Log-probabilities of one level's codes.

        ``score_type: joint`` normalises over the softmax of the loss, the others over the level.

        Args:
            states: ``[..., d_out]``.
            level: number of the level, counted from 0.

        Returns:
            ``[..., V_level]``.
        """
        temperature = self.settings.search_temperature
        if self.settings.score_type != "joint":
            return self.vocabulary.log_probs(states, level, "level", temperature)
        log_probs = self.responses.log_probs(states, level, temperature)
        return self.vocabulary.with_started(log_probs, level)

    def test_variants(self) -> Iterator[str]:
        """The templates of ``test_prompt_ids``.

        Yields:
            The name of each, while it is the one that is tested.
        """
        try:
            for number in self.test_prompts:
                self.prompt = number
                yield f"prompt {number}"
        finally:
            self.prompt = self.test_prompts[0]

    # --- self_improve: codes from the words of an item --------------------------------------------

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the responses of ``item2index``.

        Args:
            items: item ids ``[B]``.
        """
        samples = self.samples("item2index", Case(items))
        return self.responses.loss(self.responses.read(samples))

    @property
    def alignment_weight(self) -> float:
        """Weight of ``item2index``, also where ``self_improve`` refreshes the codes."""
        return self.settings.task_weights.get("item2index", 1)

    def item_decoder(self, items: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the first prompt of ``item2index``.

        Args:
            items: item ids ``[B]``.
        """
        template = self.instructions.templates.tasks["item2index"][0]
        ids, lengths = self.instructions.prompts(template, Case(items), len(self.level_sizes) + 1)
        temperature = self.settings.temperature
        log_probs = partial(self.vocabulary.log_probs, score_type="level", temperature=temperature)
        return self.prompt_decoder(ids, lengths, log_probs)

    # --- start: vocabularies, templates, texts ----------------------------------------------------

    def _vocabulary_texts(self) -> list[str]:
        """The texts that a vocabulary from scratch is trained on."""
        texts = []
        if self.content.titles:
            texts += self.content.text[1:]
        for of_people in self.mixture.person_texts.values():
            texts += of_people
        return texts + PROMPT_REPEATS * list(pieces_of(self.prompt_texts))

    def _tasks_with_templates(self) -> list[str]:
        """The tasks that the prompt file needs templates of."""
        tasks = list(self.mixture.tasks)
        if self.settings.self_improve:
            tasks.append("item2index")
        return tasks

    def slot_texts(self) -> dict[str, list[str]]:
        """The texts by slot: ``title`` and ``text`` of the items, and those of users with texts."""
        texts = {}
        if self.content.titles:
            texts = {"title": self.content.titles, "text": self.content.text}
        return {**texts, **self.mixture.person_texts}

    def _tokenise_texts(self) -> None:
        """Token ids of the texts of items and users; those that are there already stay."""
        max_length = self.settings.text_max_len
        self.instructions.set_texts(self.text_tokenizer, self.slot_texts(), max_length)

    # --- after training ---------------------------------------------------------------------------

    def items_added(self, items: list[int]) -> None:
        """Add the texts of new items."""
        self._tokenise_texts()

    def inspect_items(self, tokens: Sequence[str]) -> list[dict]:
        """What the model generates about items when it sees their codes alone.

        Args:
            tokens: raw item ids.

        Returns:
            See :func:`~recbole_genrec.model.lcrec.inspection.describe_items`.
        """
        return describe_items(self, tokens)

    def other_parameter(self) -> dict:
        """As the base's, with the prompts and the text vocabulary that the weights learned on."""
        vocabulary = None
        if self.settings.backbone == "scratch":
            vocabulary = serialised(self.text_tokenizer)
        lcrec = {"prompts": self.prompt_texts, "vocabulary": vocabulary}
        return {**super().other_parameter(), "lcrec": lcrec}

    @classmethod
    def text_use(cls, config) -> TextUse:
        """As the base's; tasks with texts train where there are some."""
        use = super().text_use(config)
        return "optional" if use == "none" else use

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def check_settings(cls, settings: LCRecSettings) -> None:
        """Refuse unknown tasks, weights in bf16 that nothing casts, and ranks of several lists."""
        check_tasks(settings.tasks, settings.task_weights)
        check_weights(settings)
        numbers = settings.test_prompt_ids
        has_several = numbers == "all" or (numbers and len(numbers) > 1)
        if settings.save_ranks is True and has_several:
            raise ConfigError(
                "save_ranks stores one rank a user; use it with a single template, for example "
                "--test_prompt_ids=0."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the tasks."""
        settings = cls.settings_class.of(config)
        return {**super().describe(config), "tasks": ", ".join(settings.tasks)}
