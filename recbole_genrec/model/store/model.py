"""STORE (arXiv 2409.07276 v1): one causal language model codes items and recommends over the codes.

==============================  ===========================================================
task of the paper               here
==============================  ===========================================================
text-to-token (tokenization)    ``tokenizer/quantiser/dense.py``: ``DenseTokenizer.dense``
token-to-text (reconstruction)  ``tokenizer/quantiser/dense.py``:
                                ``DenseTokenizer.reconstruction_loss``
token-to-token                  :meth:`STORE.recommendation_loss`
(recommendation)
text-to-token (alignment)       :meth:`STORE.alignment_loss`
conditional beam search         ``decoding/``, through :meth:`STORE.item_logits`
==============================  ===========================================================

The language model starts from its stage-1 weights. Codes have tables of their own
(``CodeVocabulary``). Both are trained.

Unpublished and our choice: code embeddings start at the centroids, separators instead of numbered
items, joint alignment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone import (
    CausalDecoder,
    CodeVocabulary,
    TextAndCodes,
    TextTable,
    compose,
    constant,
    length_mask,
    token_ids,
    tokenise_texts,
    whole,
)
from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, smoothed_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.causal import CausalRecommender
from recbole_genrec.model.store.keys import STORESettings
from recbole_genrec.runtime.processes import balanced, from_first, own_part
from recbole_genrec.tokenizer.store import STORETokenizer, STORETokenizerSettings

PROMPT_NAMES = ("reconstruct", "recommend", "history", "next", "describe", "answer")
PREFIX_TOKENS = 16  # most tokens of what announces an item


class STORE(CausalRecommender):
    """STORE, stages 1 to 3; ``properties/model/STORE.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    settings_class = STORESettings
    settings: STORESettings
    tokenizer: STORETokenizer
    trains_without_history = True
    own_tasks: ClassVar[Mapping[str, str]] = {"si_align_weight": "lambda_align"}

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        settings = self.settings
        pretrained = self.tokenizer.hand_over()
        self.backbone = pretrained.backbone
        self.text_tokenizer = pretrained.text_tokenizer
        self.tune_backbone()
        self.vocabulary = CodeVocabulary(self.level_sizes, self.backbone.d_in, self.backbone.d_out)
        if settings.code_init == "centroid":
            assert pretrained.inject is not None
            self.start_from_centroids(pretrained.inject)
        self.text_and_codes = TextAndCodes(self.backbone, self.vocabulary)
        self._tokenise_prompts()
        self.item_texts = TextTable(self.text_tokenizer, self.content.text, settings.align_text_len)

    # --- the two functions of a method ------------------------------------------------------------

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """``L_rec + lambda_align * L_align``; the two parts are logged apart.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
        """
        recommendation = self.recommendation_loss(history, length, target)
        weight = self.settings.lambda_align
        if weight == 0 or self.settings.align_mode == "alternate":
            return recommendation

        pool = self.fitted_items()
        size = (self.settings.align_batch,)
        items = pool[torch.randint(len(pool), size, device=target.device)]
        items = own_part(from_first(items))
        return recommendation, weight * self.alignment_loss(items)

    def item_logits(self, history: Tensor, length: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the users' prompts.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
        """
        ids, lengths = self.prompts(history, length)
        log_probs = partial(self.vocabulary.log_probs, score_type=self.settings.score_type)
        return self.prompt_decoder(ids, lengths, log_probs)

    @property
    def alignment_weight(self) -> float:
        """Weight of ``L_align``, also where ``self_improve`` refreshes the codes."""
        return self.settings.lambda_align

    # --- the two tasks of stage 3 -----------------------------------------------------------------

    def recommendation_loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Token-to-token, ``L_rec``: codes of the history -> codes of the next item.

        ``loss_vocab: full``: the mean over codes. ``loss_vocab: trie``: the sum over an item's
        codes.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
        """
        learns_all = self.settings.loss_positions == "all" and not self._validates
        codes = self.text_and_codes.ids(self.codes[target])  # [B, L]
        ids, lengths = compose(*self._prompt(history, length), whole(codes))  # [B, S], [B]
        first: Tensor | int = 0
        if not learns_all:
            first = (lengths - codes.shape[1]).unsqueeze(1)

        # The items whose codes are predicted, in the order of their codes in ids.
        place = torch.arange(history.shape[1] + 1, device=length.device)
        last = length.unsqueeze(1)
        sequence = pad(history, (0, 1)).scatter(1, last, target.unsqueeze(1))  # [B, T + 1]
        is_target = place <= last if learns_all else place == last
        items = sequence[is_target]  # [N]
        closed = self.closed_codes(pad(history, (1, 0)), items, is_target)
        if self.settings.loss_vocab == "full":
            return self._code_loss(ids, first, closed)

        states, _ = self._code_states(ids, first)
        states = states.unflatten(0, (len(items), -1))  # [N, L, d_out]
        return balanced(self.trie_loss(states, items, closed), len(items))

    def validation_loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """``L_rec`` of the targets alone."""
        return self.recommendation_loss(history, length, target)

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Text-to-token, ``L_align``: text of an item -> its learned codes.

        The extra token of colliding items cannot be inferred from text, so it is left out.

        Args:
            items: item ids ``[B]``.
        """
        codes = self.text_and_codes.ids(self.codes[items, : self.n_aligned])
        ids, _ = compose(*self._description(items), whole(codes))
        return self._code_loss(ids)

    def description_loss(self, items: Tensor) -> Tensor:
        """Codes -> text, for ``si_back_weight``: the reconstruction of stage 1, from codes.

        Args:
            items: item ids ``[B]``.
        """
        codes = self.text_and_codes.ids(self.codes[items])  # [B, L]
        prompt = constant(self.write_ids, len(items))
        ids, lengths = compose(whole(codes), prompt, self.item_texts(items))  # [B, S], [B]
        place = torch.arange(1, ids.shape[1], device=ids.device)
        first = codes.shape[1] + len(self.write_ids)
        is_word = (place >= first) & length_mask(lengths - 1, len(place))  # [B, S - 1]
        states = self.backbone(self.text_and_codes.embed(ids))[:, :-1][is_word]  # [P, d_out]
        logits = self.backbone.text_logits(states).float()
        loss = smoothed_cross_entropy(logits, ids[:, 1:][is_word])
        return balanced(loss, len(states))

    def on_epoch_start(self, epoch: int) -> Iterator[Tensor]:
        """``align_mode: alternate``: one pass over all items with ``L_align`` before each epoch.

        Args:
            epoch: number of the epoch, counted from 0.
        """
        super().on_epoch_start(epoch)
        return self._alternating()

    def _alternating(self) -> Iterator[Tensor]:
        weight = self.settings.lambda_align
        if self.settings.align_mode != "alternate" or weight == 0:
            return
        pool = self.fitted_items()
        order = pool[torch.randperm(len(pool)).to(pool.device)]
        order = from_first(order)
        for items in order.split(self.settings.align_batch):
            yield weight * self.alignment_loss(own_part(items))

    # --- sequences --------------------------------------------------------------------------------

    def prompts(self, history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """What stands before the codes of the next item.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.

        Returns:
            Token ids ``[B, S]``, right-padded, and lengths ``[B]``.
        """
        return compose(*self._prompt(history, length))

    def _prompt(self, history: Tensor, length: Tensor) -> list[Segment]:
        """Segments of "task, prefix, codes, prefix, codes, ..., next:"."""
        n_rows, n_slots = history.shape
        prefix = self.prefix_ids[:n_slots].expand(n_rows, -1, -1)  # [B, T, w]
        codes = self.text_and_codes.ids(self.codes[history])  # [B, T, L]
        items = torch.cat([prefix, codes], dim=-1)  # [B, T, w + L]

        is_item = length_mask(length, n_slots)  # [B, T]
        codes_valid = self.prefix_valid.new_ones(n_slots, self.codes.shape[1])
        is_token = torch.cat([self.prefix_valid[:n_slots], codes_valid], dim=-1)  # [T, w + L]
        valid = is_item.unsqueeze(-1) & is_token  # [B, T, w + L]

        return [
            constant(self.task_ids, n_rows),
            (items.flatten(1), valid.flatten(1)),
            constant(self.next_ids, n_rows),
        ]

    def _description(self, items: Tensor) -> list[Segment]:
        """Segments of "task, text, answer:"."""
        return [
            constant(self.describe_ids, len(items)),
            self.item_texts(items),
            constant(self.answer_ids, len(items)),
        ]

    # --- states and logits ------------------------------------------------------------------------

    def _code_states(self, ids: Tensor, first: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """The states that predict codes.

        Args:
            ids: token ids ``[B, S]``, right-padded.
            first: position from which codes are predicted, one for all or ``[B, 1]``.

        Returns:
            States ``[P, d_out]``, each from the position before a code, and the codes ``[P]``.
        """
        states = self.backbone(self.text_and_codes.embed(ids))[:, :-1]  # [B, S - 1, d_out]
        labels = self.text_and_codes.code_numbers(ids[:, 1:])
        position = torch.arange(1, ids.shape[1], device=ids.device)
        is_code = (labels >= 0) & (position >= first)  # [B, S - 1]
        return states[is_code], labels[is_code]

    def _code_loss(
        self, ids: Tensor, first: Tensor | int = 0, closed: ClosedCodes = ALL_OPEN
    ) -> Tensor:
        """Mean cross-entropy over the codes from ``first`` on; all C compete, or the open ones."""
        states, labels = self._code_states(ids, first)
        logits = self.vocabulary.logits(states).float()  # [P, C]
        if closed is not ALL_OPEN:
            by_item = logits.unflatten(0, (-1, self.codes.shape[1]))  # [N, L, C]
            logits = closed.hide_tokens(by_item, self.vocabulary.first).flatten(0, 1)
        loss = smoothed_cross_entropy(logits, labels, self.label_smoothing)
        return balanced(loss, len(labels))

    def item_decoder(self, items: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the text-to-token prompt.

        Args:
            items: item ids ``[B]``.
        """
        ids, lengths = compose(*self._description(items))
        log_probs = partial(self.vocabulary.log_probs, score_type="level")
        return self.prompt_decoder(ids, lengths, log_probs)

    # --- start: code embeddings and prompts -------------------------------------------------------

    @torch.no_grad()
    def start_from_centroids(self, inject: Tensor) -> None:
        """Each learned code starts as ``P(PCA^-1(centroid))``: the vector that it stands for.

        All embeddings are scaled to the mean norm of the text embeddings.

        Args:
            inject: P of stage 1, ``[d_in, d_model]``.
        """
        projection = inject.T.float()
        quantisers = self.tokenizer.quantisers
        centroids = torch.cat([q.centroid_vectors() @ projection for q in quantisers])

        embedding = self.vocabulary.embedding  # [C, d_in]
        n_learned = len(centroids)
        embedding[:n_learned] = centroids
        embedding[n_learned:] = torch.randn_like(embedding[n_learned:])

        text_norm = self.backbone.text_table.weight.norm(dim=-1).mean()
        norms = embedding.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # [C, 1]
        embedding.mul_(text_norm / norms)

    def _tokenise_prompts(self) -> None:
        """Token ids of every piece of text, as buffers; :meth:`_prompt` puts them together."""
        prompts = STORETokenizerSettings.of(self.config).prompts
        numbered = self.settings.item_prefix == "number"
        separator = self.text_tokenizer.sep_token or "\n"

        self._register_ids("task", prompts["recommend"], prompts["history"])
        self._register_ids("describe", prompts["describe"])
        self._register_ids("answer", prompts["answer"])
        self._register_ids("write", prompts["reconstruct"])
        before_answer = separator
        if numbered:
            before_answer = prompts["next"]
        self._register_ids("next", before_answer)

        numbers = range(1, self.max_seq_length + 1)
        prefixes = [f"\n({number})" if numbered else separator for number in numbers]
        ids, valid = tokenise_texts(self.text_tokenizer, prefixes, PREFIX_TOKENS)
        self.register_buffer("prefix_ids", ids, persistent=False)  # [T, w]
        self.register_buffer("prefix_valid", valid, persistent=False)

    def _register_ids(self, name: str, *texts: str) -> None:
        """Keep the token ids of ``texts``, one after another, as the buffer ``<name>_ids``."""
        ids: list[int] = []
        for text in texts:
            ids += token_ids(self.text_tokenizer, text)
        self.register_buffer(f"{name}_ids", torch.tensor(ids, dtype=torch.long), persistent=False)

    def items_added(self, items: list[int]) -> None:
        """Add the texts of new items to those of the alignment task."""
        self.item_texts.extend_to(self.content.text)

    # --- settings ---------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict]:
        """The code tables learn at ``code_lr``, the language model at ``learning_rate``."""
        model = [p for p in self.backbone.parameters() if p.requires_grad]
        tables = list(self.vocabulary.parameters())
        return [{"params": model}, {"params": tables, "lr": self.settings.code_lr}]

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and a sentence for each prompt."""
        super().check_config(values)
        missing = set(PROMPT_NAMES) - set(STORETokenizerSettings.of(values).prompts)
        if missing:
            raise ConfigError(
                f"prompts has no {sorted(missing)[0]!r}; give all sentences as in "
                "properties/tokenizer/store.yaml."
            )

    @classmethod
    def check_settings(cls, settings: STORESettings) -> None:
        """Refuse rows that do not suit the targets."""
        if settings.loss_positions == "target" and settings.train_rows != "all":
            raise ConfigError(
                "loss_positions: target learns from the last item of a row only; with train_rows: "
                f"{settings.train_rows} most interactions would never be a target. "
                "Use train_rows: all, or loss_positions: all."
            )
