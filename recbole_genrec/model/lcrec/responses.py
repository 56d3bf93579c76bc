"""The response tokens of LC-Rec's samples: their states, labels, logits and loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from recbole_genrec.backbone import (
    CausalBackbone,
    CodeVocabulary,
    branch_states,
    embed_mixed,
    stack_rows,
)
from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, cached_log_probs
from recbole_genrec.decoding.log_probs import OutputLayer
from recbole_genrec.model.lcrec.instructions import IGNORED, Case, Instructions
from recbole_genrec.model.lcrec.keys import LCRecSettings
from recbole_genrec.model.lcrec.templates import Template
from recbole_genrec.model.tiger import ranking_guided_loss
from recbole_genrec.runtime.processes import balanced

Sample = tuple[Template, Case]
"""The samples of one template."""


def by_template(templates: Sequence[Template], numbers: Tensor, case: Case) -> list[Sample]:
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


class Response(NamedTuple):
    """Response tokens of one template's samples.

    Attributes:
        states: states that predict the tokens ``[N, d_out]``.
        labels: ids of the tokens ``[N]``.
        are_codes: whether the tokens are codes and end tokens, and no text.
        closed: codes that do not compete, bool ``[N, C]``; ``None`` = all do.
    """

    states: Tensor
    labels: Tensor
    are_codes: bool
    closed: Tensor | None = None


class Responses:
    """Reads samples with the language model and computes the loss on their responses.

    Args:
        backbone: the language model.
        vocabulary: tables of the codes, whose ids stand behind those of the text vocabulary.
        instructions: fills the templates.
        settings: the settings of the run.
        closed_codes: :meth:`~recbole_genrec.model.coded.CodedModel.closed_codes` of the model.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        vocabulary: CodeVocabulary,
        instructions: Instructions,
        settings: LCRecSettings,
        closed_codes: Callable[[Tensor, Tensor, Tensor | None], ClosedCodes],
    ):
        self.backbone = backbone
        self.vocabulary = vocabulary
        self.instructions = instructions
        self.settings = settings
        self.closed_codes = closed_codes

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors of text tokens and codes.

        Args:
            ids: token ids ``[...]``.

        Returns:
            ``[..., d_in]``.
        """
        rows = ids.flatten(1) if ids.dim() > 1 else ids.unsqueeze(0)  # [B, S]
        vectors = embed_mixed(rows, self.backbone.text_table, self.vocabulary.inputs)
        return vectors.view(*ids.shape, -1)

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
        valid = [
            torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)  # [n, S]
            for ids, _, lengths in sequences
        ]

        # All sequences, one after another, go through the language model at once.
        flat_ids = [ids[mask] for (ids, _, _), mask in zip(sequences, valid, strict=True)]
        lengths = torch.cat([lengths for _, _, lengths in sequences])
        embedded = self.embed(torch.cat(flat_ids))
        states = self.backbone.states(embedded, lengths, self.settings.packing)
        states_of_samples = states.split([len(ids) for ids in flat_ids])

        responses = []
        for (template, case), (_, labels, _), mask, sample_states in zip(
            samples, sequences, valid, states_of_samples, strict=True
        ):
            following = labels.roll(-1, 1)[mask]
            is_response = following != IGNORED
            are_codes = template.answer == "index"
            closed = None
            if are_codes and case.history is not None:
                place = torch.arange(case.history.shape[1], device=case.history.device)
                history = case.history.where(place < case.length.unsqueeze(1), 0)
                closed = self._closed(history, case.item)
            responses.append(
                Response(
                    sample_states[is_response],
                    following[is_response],
                    are_codes,
                    closed,
                )
            )
        return responses

    def read_tree(self, samples: Sequence[Sample]) -> Response:
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
            self.embed(stack_rows(trunks)),
            self.embed(stack_rows(branches)),
            torch.cat(attach),
        )  # [n, T, W, d_out]
        following = stack_rows(labels, IGNORED)[..., 1:]  # [n, T, W - 1]
        is_response = following != IGNORED
        is_target = is_response.any(-1)  # [n, T]
        history = torch.cat([case.history for _, case in samples])
        items = torch.cat([case.following for _, case in samples])
        return Response(
            states[..., :-1, :][is_response],
            following[is_response],
            True,
            self._closed(history, items[is_target], is_target),
        )

    def _closed(
        self, history: Tensor, items: Tensor, is_target: Tensor | None = None
    ) -> Tensor | None:
        """Codes that do not compete with the codes and end tokens of some targets.

        Args:
            history: item ids ``[P, H]`` before each target, 0 = none.
            items: the targets ``[P]``.
            is_target: for rows with several targets, see ``closed_codes``.

        Returns:
            Bool ``[P * (L + 1), C]``; ``None`` where all codes compete.
        """
        closed = self.closed_codes(history, items, is_target)
        if closed is ALL_OPEN:
            return None
        sizes = self.vocabulary.sizes
        return closed.tokens(self.vocabulary.offsets, len(sizes) + 1, sum(sizes)).flatten(0, 1)

    # --- logits and loss --------------------------------------------------------------------------

    def logits(self, states: Tensor, codes_only: bool) -> Tensor:
        """Logits over the text vocabulary and all codes, or over the end token and all codes.

        Args:
            states: ``[..., d_out]``.
            codes_only: leave out all text tokens but the end token, which comes first.

        Returns:
            ``[..., V + C]``, or ``[..., 1 + C]`` with ``codes_only``.
        """
        if codes_only:
            end = self.instructions.templates.end
            end_vector = self.backbone.lm.get_output_embeddings().weight[end].unsqueeze(0)
            text = linear(states, end_vector)
        else:
            text = self.backbone.text_logits(states)
        return torch.cat([text, self.vocabulary.logits(states)], dim=-1)

    def log_probs(self, states: Tensor, level: int, temperature: float) -> Tensor:
        """Log-probabilities of one level's codes under the softmax of the loss.

        Args:
            states: ``[..., d_out]``.
            level: number of the level, counted from 0.
            temperature: divides the logits.

        Returns:
            float32 ``[..., V_level]``.
        """
        codes_only = self.settings.sid_loss_vocab == "sid"
        sizes = self.vocabulary.level_sizes
        first = self.vocabulary.offsets[level] - sum(sizes)  # the codes come last
        text: OutputLayer = self.backbone.text_logits
        if self.backbone.text_rows is not None:
            text = self.backbone.text_rows
        n_text = self.backbone.text_table.num_embeddings
        if codes_only:
            end = self.instructions.templates.end
            text = self.backbone.lm.get_output_embeddings().weight[end].unsqueeze(0)
            n_text = 1
        layers = [text, self.vocabulary.classifier]
        states = states.to(self.vocabulary.classifier.dtype)
        with torch.autocast(states.device.type, enabled=False):
            n_classes = n_text + sum(sizes)
            return cached_log_probs(states, layers, first, sizes[level], n_classes, temperature)

    def loss(self, responses: Sequence[Response]) -> Tensor:
        """Mean cross-entropy over all response tokens.

        With ``sid_loss_vocab: sid`` the responses that are codes are normalised over codes and
        the end token.

        Args:
            responses: response tokens of the batch.
        """
        total = sum(len(response.labels) for response in responses)
        restricts = self.settings.sid_loss_vocab == "sid"
        loss: Tensor | float = 0.0
        for codes_only in {restricts and response.are_codes for response in responses}:
            group = [
                response
                for response in responses
                if (restricts and response.are_codes) == codes_only
            ]
            states = torch.cat([response.states for response in group])
            labels = torch.cat([response.labels for response in group])
            if codes_only:
                n_text = self.backbone.text_table.num_embeddings
                labels = (labels - n_text + 1).clamp(min=0)  # 0 = the end token
            logits = _hidden(self.logits(states, codes_only), group)
            smoothing = 0.0
            if self.backbone.training:
                smoothing = self.settings.label_smoothing
            mean = ranking_guided_loss(logits, labels, self.settings.temperature, smoothing)
            loss = loss + mean * (len(labels) / total)
        return balanced(loss, total)


def _hidden(logits: Tensor, responses: Sequence[Response]) -> Tensor:
    """Logits ``[N, ... + C]`` of responses, -inf at the codes that do not compete."""
    if all(response.closed is None for response in responses):
        return logits
    masks = []
    for response in responses:
        n_rows = len(response.labels)
        mask = response.closed
        if mask is None:
            mask = torch.zeros(n_rows, 0, dtype=torch.bool, device=logits.device)
        masks.append(pad(mask, (logits.shape[1] - mask.shape[1], 0)))
    return logits.masked_fill(torch.cat(masks), -torch.inf)
