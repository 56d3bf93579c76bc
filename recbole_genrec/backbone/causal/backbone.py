"""Decoder-only language models: one pass over sequences, and stepwise decoding whose beams share the prompt.

The beams of a step enter as one block of tokens with explicit positions and a mask that shows each token the prompt and its own
ancestors. Prompt keys and values are computed once per user; the cache only grows by the block and is never copied or reordered.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from recbole_genrec.backbone.causal.lora import attach_lora
from recbole_genrec.backbone.causal.packing import LAYOUTS
from recbole_genrec.errors import BackboneError


class CausalBackbone(nn.Module):
    """A causal language model of transformers seen as *embeddings in, states out*.

    Args:
        lm: ``AutoModelForCausalLM``.
        origin: what tells the folder or hub id that holds these weights from others (``lora.base_facts``); ``None`` = none holds them.

    Attributes:
        d_in: width of the input embeddings. d_out: width of the states that the output layer reads. d_model: hidden size.
            They differ only for models with projections around the stack (OPT-350M: 512, 512, 1024).
    """

    def __init__(self, lm: nn.Module, origin: dict | None = None):
        super().__init__()
        self.lm, self.origin = lm, origin
        head = lm.get_output_embeddings()
        if head is None:
            raise BackboneError(
                f"{type(lm).__name__} has no output layer; a causal language model is needed."
            )
        self.d_in = self.text_table.embedding_dim
        self.d_out = head.weight.shape[1]
        self.d_model = lm.config.hidden_size

    @property
    def text_table(self) -> nn.Embedding:
        """Embedding of the text vocabulary."""
        return self.lm.get_input_embeddings()

    @property
    def tied(self) -> bool:
        """Whether the output layer over the text vocabulary is the text table itself."""
        return self.lm.get_output_embeddings().weight is self.text_table.weight

    @property
    def stack(self) -> nn.Module:
        """The model below its output layer; peft wraps the whole model."""
        lm = self.lm.get_base_model() if self.has_lora else self.lm
        return lm.base_model

    @property
    def layers_called_whole(self) -> list[nn.Module]:
        """The layers of the stack, whose weights are needed only while they run; FSDP may gather each by itself."""
        names = self.stack._no_split_modules or ()
        return [module for module in self.stack.modules() if type(module).__name__ in names]

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model can read, in tokens; ``None`` if it sets no limit."""
        return getattr(self.lm.config, "max_position_embeddings", None)

    def check_length(self, length: int) -> None:
        """:class:`BackboneError` when a sequence of ``length`` tokens has no room."""
        if self.max_positions is not None and length > self.max_positions:
            raise BackboneError(
                f"A sequence of {length} tokens does not fit the backbone's {self.max_positions} positions. Lower MAX_ITEM_LIST_LENGTH "
                "or the text lengths, or raise max_position_embeddings in backbone_config."
            )

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache=None,
    ) -> Tensor:
        """``[B, S, d_in]`` -> states ``[B, S, d_out]``.

        Args:
            mask: bool ``[B, 1, S, S_all]``, what each token sees; ``None`` = causal. Right padding needs no mask: no token sees what
                follows it.
            positions: ``[B, S]`` position ids; ``None`` = 0, 1, ... Given ones are not checked against :attr:`max_positions`.
            cache: a :class:`BeamCache` to read and extend.
        """
        if positions is None:
            self.check_length(embeddings.shape[1])
        output = self.stack(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def states(self, embeddings: Tensor, lengths: Tensor, packing: str = "groups") -> Tensor:
        """States of many sequences of different length, each as if it had been read alone from position 0.

        A loss over right-padded ``ids [B, S]`` with ``lengths [B]`` becomes::

            valid = torch.arange(S) < lengths.unsqueeze(1)
            states = backbone.states(embed(ids[valid]), lengths)  # [T, d_out]
            label_of_next = labels.roll(-1, 1)[valid]  # [T]; ignored (-100) at the last token of each sequence

        Args:
            embeddings: ``[T, d_in]``, the sequences one after another.
            lengths: ``[B]``, at least 1 each, sum T.
            packing: ``groups`` or ``pack``, see ``packing.py``; the states are equal.

        Returns:
            ``[T, d_out]`` in the order of ``embeddings``.
        """
        self.check_length(int(lengths.max()))
        return LAYOUTS[packing](self, embeddings, lengths)

    def hidden_states(
        self, embeddings: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Last states of the stack ``[B, S, d_model]``: before the output projection where a model has one (OPT-350M)."""
        projection = next(
            (module for name, module in self.lm.named_modules() if name.endswith("project_out")),
            None,
        )
        if projection is None:
            return self(embeddings, mask, positions)
        seen: list[Tensor] = []
        hook = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self(embeddings, mask, positions)
        finally:
            hook.remove()
        return seen[0]

    def text_logits(self, states: Tensor) -> Tensor:
        """``[..., d_out]`` -> logits over the text vocabulary."""
        return self.lm.get_output_embeddings()(states)

    def checkpoint_gradients(self) -> None:
        """In training, keep the inputs of each layer only and compute the rest again in the backward pass (arXiv 1604.06174)."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # late releases of transformers 5 prefer a name that early ones lack
            self.stack.gradient_checkpointing_enable({"use_reentrant": False})

    # --- LoRA -------------------------------------------------------------------------------------------------------------------

    @property
    def has_lora(self) -> bool:
        """Whether an adapter is attached."""
        return hasattr(self.lm, "get_base_model")

    def add_lora(
        self, rank: int, alpha: float, dropout: float, targets: list[str] | None = None
    ) -> None:
        """Freeze the model and attach a fresh adapter; ``targets: None`` = peft's default modules of the model family."""
        self.lm = attach_lora(self.lm, rank, alpha, dropout, targets)

    def merge_lora(self) -> None:
        """Add the adapter to the weights it adapts and remove it; all weights are trainable again, and no folder holds them."""
        self.origin = None
        self.lm = self.lm.merge_and_unload()
        self.lm.requires_grad_(True)


class BeamCache(DynamicCache):
    """Keys and values in buffers allocated once: written in place, read as views, cut back by :meth:`rewind`."""

    def __init__(self, reserve: int):
        super().__init__()
        self.reserve = reserve
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self.lengths: list[int] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Append ``[B, heads, Q, d]`` of a layer and return views of everything it holds."""
        added = key_states.shape[2]
        if layer_idx == len(self.buffers):
            self.buffers.append(
                (
                    _grown(key_states, 0, added + self.reserve),
                    _grown(value_states, 0, added + self.reserve),
                )
            )
            self.lengths.append(0)
        start, (keys, values) = self.lengths[layer_idx], self.buffers[layer_idx]
        end = start + added
        if end > keys.shape[2]:
            keys, values = _grown(keys, start, 2 * end), _grown(values, start, 2 * end)
            self.buffers[layer_idx] = keys, values
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.lengths[layer_idx] = end
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens held."""
        return self.lengths[layer_idx] if self.lengths else 0

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        self.lengths = [length] * len(self.lengths)

    def select(self, rows: Tensor, length: int) -> BeamCache:
        """A cache of the first ``length`` tokens of some rows."""
        part = BeamCache(self.reserve)
        for keys, values in self.buffers:
            part.buffers.append(
                tuple(
                    _grown(x[rows, :, :length], length, length + self.reserve)
                    for x in (keys, values)
                )
            )
        part.lengths = [length] * len(part.buffers)
        return part


def _grown(tensor: Tensor, keep: int, capacity: int) -> Tensor:
    """A buffer like ``tensor`` with ``capacity`` tokens whose first ``keep`` are taken over."""
    buffer = tensor.new_empty(*tensor.shape[:2], capacity, tensor.shape[3])
    buffer[:, :, :keep] = tensor[:, :, :keep]
    return buffer


def own_paths(sees: Tensor, parents: Tensor) -> Tensor:
    """What a new block of queries sees of all blocks so far: the path of its parent, and itself.

    Args:
        sees: bool ``[B, Q_before, N]`` of the previous block. parents: ``[B, Q]``, index in the previous block.

    Returns:
        bool ``[B, Q, N + Q]``.
    """
    count = parents.shape[1]
    ancestors = sees.gather(1, parents.unsqueeze(-1).expand(-1, -1, sees.shape[-1]))
    own = torch.eye(count, dtype=torch.bool, device=sees.device).expand(len(sees), -1, -1)
    return torch.cat([ancestors, own], dim=-1)


class CausalDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``): prompts of B users, queries that share them.

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        embed_code: ``(codes [B, Q], level) -> [B, Q, d_in]``.
        log_probs: ``(states [B, Q, d_out], level) -> float32 [B, Q, V_level]``.
        reserve: tokens for which the cache has room at once.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        prompt: Tensor,
        lengths: Tensor,
        embed_code: Callable[[Tensor, int], Tensor],
        log_probs: Callable[[Tensor, int], Tensor],
        reserve: int = 128,
    ):
        self.backbone, self.embed_code, self.log_probs = backbone, embed_code, log_probs
        self.lengths, self.width = lengths, prompt.shape[1]
        self.cache = BeamCache(reserve)
        states = backbone(prompt, cache=self.cache)
        last = states[torch.arange(len(lengths), device=lengths.device), lengths - 1].unsqueeze(1)
        self.root = log_probs(last, 0)
        self._prepare()

    def _prepare(self) -> None:
        reach = torch.arange(self.width, device=self.lengths.device) < self.lengths.unsqueeze(1)
        self.sees_prompt = reach.unsqueeze(1)
        self.batch_size, self.device, self.longest = (
            len(self.lengths),
            self.lengths.device,
            int(self.lengths.max()),
        )
        self.start()

    def start(self) -> Tensor:
        """Back to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self.level = 0
        self.cache.rewind(self.width)
        self.sees = self.sees_prompt.new_zeros(self.batch_size, 1, 0)
        return self.root

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Append a code to the path of a query of the previous block.

        Args:
            codes: ``[B, Q]``. parents: ``[B, Q]``, index of the query in the previous block.

        Returns:
            Log-probabilities of the following code, ``[B, Q, V_next]``.
        """
        count = codes.shape[1]
        self.backbone.check_length(self.longest + self.level + 1)
        self.sees = own_paths(self.sees, parents)
        visible = torch.cat([self.sees_prompt.expand(-1, count, -1), self.sees], dim=-1)
        embeddings = self.embed_code(codes, self.level)
        positions = (self.lengths + self.level).unsqueeze(1).expand(-1, count)
        self.level += 1
        return self.log_probs(
            self.backbone(embeddings, visible.unsqueeze(1), positions, self.cache), self.level
        )

    def select(self, rows: Tensor) -> CausalDecoder:
        """A decoder at the root for some of the users."""
        part = object.__new__(CausalDecoder)
        part.backbone, part.embed_code, part.log_probs = (
            self.backbone,
            self.embed_code,
            self.log_probs,
        )
        part.lengths, part.width, part.root = self.lengths[rows], self.width, self.root[rows]
        part.cache = self.cache.select(rows, self.width)
        part._prepare()
        return part
