"""The response tokens of LC-Rec's samples: their states, labels, logits and loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from recbole_genrec.backbone import (
    CausalBackbone,
    TextAndCodes,
    branch_states,
    length_mask,
    stack_rows,
)
from recbole_genrec.decoding import (
    ALL_OPEN,
    ClosedCodes,
    ItemTrie,
    cached_log_probs,
    item_cross_entropy,
    level_logits,
    ranking_guided_loss,
)
from recbole_genrec.decoding.log_probs import OutputLayer
from recbole_genrec.model.lcrec.cases import AnyCase, Case, HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.instructions import IGNORED, Instructions
from recbole_genrec.model.lcrec.keys import LCRecSettings
from recbole_genrec.model.lcrec.templates import Template
from recbole_genrec.runtime.processes import balanced

Sample = tuple[Template, Case]
"""The samples of one template."""


def by_template(
    templates: Sequence[Template], numbers: Tensor, case: AnyCase
) -> list[tuple[Template, AnyCase]]:
    """Samples by the template that each of them has.

    Args:
        templates: of a task.
        numbers: of the template of each sample ``[n]``.
        case: what fills the templates, ``n`` samples.
    """
    device = case.item.device
    samples = []
    for number in numbers.unique().tolist():
        rows = (numbers == number).nonzero().flatten()
        samples.append((templates[number], case.pick(rows, device)))
    return samples


@dataclass(frozen=True)
class Response:
    """Response tokens of one template's samples.

    Attributes:
        states: states that predict the tokens ``[N, d_out]``.
        labels: ids of the tokens ``[N]``.
        closed: codes that do not compete.
    """

    states: Tensor
    labels: Tensor
    closed: ClosedCodes = ALL_OPEN


@dataclass(frozen=True, kw_only=True)
class CodeResponse(Response):
    """Tokens that are codes and end tokens, and no text.

    Attributes:
        items: ids of the items ``[P]`` that the tokens name, each with L codes and an end token, so
            that ``N = P (L + 1)``.
    """

    items: Tensor


def count_tokens(responses: Sequence[Response]) -> int:
    """The number of response tokens."""
    return sum(len(response.labels) for response in responses)


class Responses:
    """Reads samples with the language model and computes the loss on their responses.

    Args:
        backbone: the language model.
        text_and_codes: the token ids, and the tables behind them.
        instructions: fills the templates.
        settings: the settings of the run.
        trie: gives the trie of the items; codes may change during training.
        closed_codes: :meth:`~recbole_genrec.model.coded.CodedModel.closed_codes` of the model.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        text_and_codes: TextAndCodes,
        instructions: Instructions,
        settings: LCRecSettings,
        trie: Callable[[], ItemTrie],
        closed_codes: Callable[[Tensor, Tensor, Tensor | None], ClosedCodes],
    ):
        self.backbone = backbone
        self.text_and_codes = text_and_codes
        self.vocabulary = text_and_codes.codes
        self.instructions = instructions
        self.settings = settings
        self.trie = trie
        self.closed_codes = closed_codes

    # --- states and labels ------------------------------------------------------------------------

    def read(self, samples: Sequence[Sample]) -> list[Response]:
        """Read samples one by one, each as a sequence of its own.

        Args:
            samples: templates with what fills them.

        Returns:
            The response tokens of each template.
        """
        if not samples:
            return []
        sequences = [self.instructions.sequences(template, case) for template, case in samples]
        flat_ids = []
        flat_following = []
        for ids, labels, lengths in sequences:
            mask = length_mask(lengths, ids.shape[1])  # [n, S]
            flat_ids.append(ids[mask])
            flat_following.append(labels.roll(-1, 1)[mask])

        # All sequences, one after another, go through the language model at once.
        lengths = torch.cat([lengths for _, _, lengths in sequences])
        embedded = self.text_and_codes.embed(torch.cat(flat_ids))
        states = self.backbone.states(embedded, lengths, self.settings.packing)
        states_of_samples = states.split([len(ids) for ids in flat_ids])

        responses = []
        for sample, sample_states, following in zip(
            samples, states_of_samples, flat_following, strict=True
        ):
            is_response = following != IGNORED
            responses.append(
                self._response(sample, sample_states[is_response], following[is_response])
            )
        return responses

    def _response(self, sample: Sample, states: Tensor, labels: Tensor) -> Response:
        """The response tokens of a sample, whose states and labels are known."""
        template, case = sample
        if template.answer != "index":
            return Response(states, labels)
        closed = ALL_OPEN
        if isinstance(case, HistoryCase):
            is_item = length_mask(case.length, case.history.shape[1])
            history = case.history.where(is_item, 0)
            closed = self.closed_codes(history, case.item, None)
        return CodeResponse(states, labels, closed, items=case.item)

    def read_tree(self, samples: Sequence[tuple[Template, TargetsCase]]) -> CodeResponse:
        """Read recommendations of several targets per row, which share their histories.

        Args:
            samples: templates of ``seqrec`` with what fills them.

        Returns:
            The response tokens of all templates.
        """
        trees = [self.instructions.tree(template, case) for template, case in samples]
        trunks, branches, attach, labels = zip(*trees, strict=True)
        states = branch_states(
            self.backbone,
            self.text_and_codes.embed(stack_rows(trunks)),
            self.text_and_codes.embed(stack_rows(branches)),
            torch.cat(attach),
        )  # [n, T, W, d_out]
        following = stack_rows(labels, IGNORED)[..., 1:]  # [n, T, W - 1]
        is_response = following != IGNORED
        is_target = is_response.any(-1)  # [n, T]
        history = torch.cat([case.history for _, case in samples])
        items = torch.cat([case.following for _, case in samples])[is_target]
        return CodeResponse(
            states[..., :-1, :][is_response],
            following[is_response],
            self.closed_codes(history, items, is_target),
            items=items,
        )

    # --- logits and loss --------------------------------------------------------------------------

    def logits(self, states: Tensor, codes_only: bool) -> Tensor:
        """Logits over the text vocabulary and all codes, or over the end token and all codes.

        Args:
            states: ``[..., d_out]``.
            codes_only: leave out all text tokens but the end token, which comes first.

        Returns:
            ``[..., V + C]``, or ``[..., 1 + C]`` with ``codes_only``.
        """
        text = linear(states, self._end_row) if codes_only else self.backbone.text_logits(states)
        return torch.cat([text, self.vocabulary.logits(states)], dim=-1)

    @property
    def _end_row(self) -> Tensor:
        """Output row of the end token ``[1, d_out]``."""
        end = self.instructions.templates.end
        return self.backbone.lm.get_output_embeddings().weight[end].unsqueeze(0)

    def log_probs(self, states: Tensor, level: int, temperature: float) -> Tensor:
        """Log-probabilities of one level's codes under the softmax of the loss.

        Args:
            states: ``[..., d_out]``.
            level: number of the level, counted from 0.
            temperature: divides the logits.

        Returns:
            float32 ``[..., V_level]``.
        """
        sizes = self.vocabulary.level_sizes
        first = self.vocabulary.first[level] - sum(sizes)  # the codes come last
        text: OutputLayer = self._end_row
        n_text = 1
        if self.settings.sid_loss_vocab == "full":
            text_rows = self.backbone.text_rows
            text = self.backbone.text_logits if text_rows is None else text_rows
            n_text = self.text_and_codes.n_text
        n_classes = n_text + sum(sizes)
        layers = [text, self.vocabulary.classifier]
        states = states.to(self.vocabulary.classifier.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return cached_log_probs(states, layers, first, sizes[level], n_classes, temperature)

    def loss(self, responses: Sequence[Response]) -> Tensor:
        """Mean cross-entropy over all response tokens.

        ``sid_loss_vocab: full``: each token competes with all text tokens and codes. ``sid``: codes
        and their end tokens compete among each other. ``trie``: a code competes with the codes that
        the trie allows; an end token, which alone can follow, costs nothing.

        Args:
            responses: response tokens of the batch.
        """
        total = count_tokens(responses)
        if self.settings.sid_loss_vocab == "full":
            return balanced(self._token_loss(responses), total)
        codes = [response for response in responses if isinstance(response, CodeResponse)]
        texts = [response for response in responses if not isinstance(response, CodeResponse)]
        parts = []
        if texts:
            parts.append(self._token_loss(texts) * (count_tokens(texts) / total))
        if codes:
            parts.append(self._code_loss(codes) * (count_tokens(codes) / total))
        return balanced(reduce(add, parts), total)

    @property
    def smoothing(self) -> float:
        """Label smoothing, of the training alone."""
        return self.settings.label_smoothing if self.backbone.training else 0.0

    def _token_loss(self, responses: Sequence[Response], codes_only: bool = False) -> Tensor:
        """Mean cross-entropy of tokens over a vocabulary, see :meth:`logits`."""
        states = torch.cat([response.states for response in responses])
        labels = torch.cat([response.labels for response in responses])
        if codes_only:
            codes = self.text_and_codes.code_numbers(labels)
            labels = (codes + 1).clamp(min=0)  # 0 = the end token
        logits = self._hidden(self.logits(states, codes_only), responses)
        return ranking_guided_loss(logits, labels, self.settings.temperature, self.smoothing)

    def _code_loss(self, responses: Sequence[CodeResponse]) -> Tensor:
        """Mean cross-entropy of codes and end tokens among each other, or along the trie."""
        if self.settings.sid_loss_vocab == "sid":
            return self._token_loss(responses, True)

        trie = self.trie()
        n_tokens = trie.depth + 1
        sums = []
        for response in responses:
            states = response.states.unflatten(0, (-1, n_tokens))  # [P, L + 1, d_out]
            logits = level_logits(self.vocabulary.logits, states[:, :-1], self.settings.temperature)
            blocks = response.closed.hide(logits)
            mean = item_cross_entropy(trie, response.items, blocks, self.smoothing)
            sums.append(mean * len(states))
        return reduce(add, sums) / count_tokens(responses)

    def _hidden(self, logits: Tensor, responses: Sequence[Response]) -> Tensor:
        """Logits ``[N, ... + C]`` of responses, -inf at the codes that do not compete."""
        if all(response.closed is ALL_OPEN for response in responses):
            return logits
        sizes = self.vocabulary.level_sizes
        n_codes = sum(sizes)
        masks = []
        for response in responses:
            if response.closed is ALL_OPEN:
                mask = logits.new_zeros(len(response.labels), n_codes, dtype=torch.bool)
            else:
                tokens = response.closed.tokens(self.vocabulary.first, len(sizes) + 1, n_codes)
                mask = tokens.flatten(0, 1)
            masks.append(mask)
        mask = pad(torch.cat(masks), (logits.shape[1] - n_codes, 0))
        return logits.masked_fill(mask, -torch.inf)
