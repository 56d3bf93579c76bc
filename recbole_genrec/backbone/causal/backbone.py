"""Decoder-only language models behind the protocol of all backbones."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.beam_cache import RESERVE, BeamCache, KeysAreWritten
from recbole_genrec.backbone.causal.llama import is_llama, llama_states
from recbole_genrec.backbone.causal.lora import attach_lora
from recbole_genrec.backbone.causal.packing import LAYOUTS
from recbole_genrec.backbone.causal.prompt_memory import PromptInput, PromptMemory
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.visibility import as_numbers, causal, restricted
from recbole_genrec.errors import BackboneError


class CausalBackbone(nn.Module):
    """A causal language model seen as *embeddings in, states out* (``protocol.Backbone``).

    Args:
        lm: ``AutoModelForCausalLM`` of transformers.
        origin: what tells the folder or hub id that holds these weights from others
            (``lora.base_facts``); ``None`` = none holds them.

    Attributes:
        d_in: width of the input embeddings.
        d_out: width of the states that the output layer reads.
        d_model: hidden size. The three differ only for models with projections around the stack
            (OPT-350M: 512, 512, 1024).
        output_scale: factor on the states before an output layer, always 1.
    """

    output_scale = 1.0

    def __init__(self, lm: TransformersModule, origin: dict | None = None):
        super().__init__()
        self.lm: TransformersModule = lm
        self.origin = origin
        head = lm.get_output_embeddings()
        if head is None:
            raise BackboneError(
                f"{type(lm).__name__} has no output layer. Use a causal language model."
            )
        self.d_in = self.text_table.embedding_dim
        self.d_out = head.weight.shape[1]
        self.d_model = lm.config.hidden_size

    # --- text -------------------------------------------------------------------------------

    @property
    def text_table(self) -> nn.Embedding:
        """Embedding of the text vocabulary."""
        return self.lm.get_input_embeddings()

    @property
    def tied(self) -> bool:
        """Whether the output layer over the text vocabulary is the text table itself."""
        return self.lm.get_output_embeddings().weight is self.text_table.weight

    def text_logits(self, states: Tensor) -> Tensor:
        """As ``Backbone.text_logits``."""
        return self.lm.get_output_embeddings()(states)

    @property
    def text_rows(self) -> Tensor | None:
        """The output layer over the text as a matrix ``[V, d_out]``.

        None where it is more than one: a layer with a bias or an adapter, quantised or shared out.
        """
        head = self.lm.get_output_embeddings()
        plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter
        if not plain or head.bias is not None:
            return None
        return head.weight

    # --- the stack --------------------------------------------------------------------------

    @property
    def stack(self) -> TransformersModule:
        """The model below its output layer; peft wraps the whole model."""
        lm = self.lm
        if self.has_lora:
            lm = lm.get_base_model()
        return lm.base_model

    @property
    def layers_called_whole(self) -> list[nn.Module]:
        """The layers of the stack.

        Their weights are needed only while they run, so FSDP may gather each of them by itself.
        """
        names = self.stack._no_split_modules or ()
        return [module for module in self.stack.modules() if type(module).__name__ in names]

    @property
    def max_positions(self) -> int | None:
        """As ``Backbone.max_positions``, in tokens."""
        return getattr(self.lm.config, "max_position_embeddings", None)

    def check_length(self, length: int) -> None:
        """Check that a sequence of ``length`` tokens has room.

        Raises:
            BackboneError: it has none.
        """
        if self.max_positions is not None and length > self.max_positions:
            room = 1 << (length - 1).bit_length()  # also for the next batches
            raise BackboneError(
                f"A sequence of {length} tokens does not fit the backbone's {self.max_positions} "
                "positions. Lower MAX_ITEM_LIST_LENGTH or the text lengths. One from scratch "
                f'has more with --backbone_config="{{max_position_embeddings: {room}}}"; its other '
                "settings stay."
            )

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: BeamCache | None = None,
    ) -> Tensor:
        """One pass over sequences.

        Args:
            embeddings: ``[B, S, d_in]``.
            mask: bool, or float added to the scores, ``[B, 1, S, S_all]``, what each token sees;
                ``None`` = causal. Right padding needs no mask: no token sees what follows it.
            positions: ``[B, S]`` position ids, not checked against :attr:`max_positions`;
                ``None`` = 0, 1, 2, ...
            cache: keys and values to read and extend.

        Returns:
            States ``[B, S, d_out]``.
        """
        if positions is None:
            self.check_length(embeddings.shape[1])
        if mask is not None:  # once, not in each layer
            mask = as_numbers(mask, embeddings.dtype)
        if (
            cache is not None
            and mask is not None
            and positions is not None
            and self.passes_are_ours
        ):
            return llama_states(self.stack, embeddings, mask, positions, cache)
        output = self.stack(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    @property
    def has_hooks(self) -> bool:
        """Whether layers wait for the end of their pass, such as those of FSDP."""
        return any(
            module._forward_hooks or "_hf_hook" in vars(module) for module in self.stack.modules()
        )

    @property
    def passes_are_ours(self) -> bool:
        """Whether :func:`llama_states` makes the passes of a search."""
        return is_llama(self.stack) and not self.has_hooks

    def write_keys(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        positions: Tensor | None,
        cache: BeamCache,
        ends: Tensor | None = None,
    ) -> Tensor | None:
        """Extend a cache by a block of tokens of which at most one state a row is read.

        The last layer then has little to do but to write its keys and values. Layers with hooks
        get the end of their pass.

        Args:
            embeddings: as in :meth:`forward`.
            mask: as in :meth:`forward`, causal.
            positions: as in :meth:`forward`.
            cache: keys and values to read and extend.
            ends: ``[B]``, the token of each row whose state is read; None = none.

        Returns:
            States ``[B, 1, d_out]`` of the ``ends``; None where that takes a pass of their own.
        """
        if ends is not None and self.passes_are_ours:
            if positions is None:
                positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
            if mask is not None:
                mask = as_numbers(mask, embeddings.dtype)
            return llama_states(self.stack, embeddings, mask, positions, cache, ends)

        if not self.has_hooks:
            cache.ends_after = self.stack.config.num_hidden_layers - 1
        try:
            self(embeddings, mask, positions, cache)
        except KeysAreWritten:
            pass
        finally:
            cache.ends_after = None
        return None

    def states(self, embeddings: Tensor, lengths: Tensor, packing: str = "groups") -> Tensor:
        """States of sequences of different length, each as if it had been read alone.

        A loss over right-padded ``ids [B, S]`` with ``lengths [B]`` becomes::

            valid = length_mask(lengths, S)
            states = backbone.states(embed(ids[valid]), lengths)  # [T, d_out]
            label_of_next = labels.roll(-1, 1)[valid]  # [T]; -100 at the last token of a sequence

        Args:
            embeddings: ``[T, d_in]``, the sequences one after another.
            lengths: ``[B]``, at least 1 each, sum T.
            packing: ``groups`` or ``pack``, see ``packing.py``; the states are equal.

        Returns:
            ``[T, d_out]`` in the order of ``embeddings``.
        """
        self.check_length(int(lengths.max()))
        return LAYOUTS[packing](self, embeddings, lengths)

    def hidden_states(self, embeddings: Tensor) -> Tensor:
        """Last states of the stack, before the output projection if there is one (OPT-350M).

        Args:
            embeddings: ``[B, S, d_in]``, right-padded; a token sees itself and those before it.

        Returns:
            ``[B, S, d_model]``.
        """
        named = self.lm.named_modules()
        projection = next((module for name, module in named if name.endswith("project_out")), None)
        if projection is None:
            return self(embeddings)

        inputs: list[Tensor] = []
        hook = projection.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            self(embeddings)
        finally:
            hook.remove()
        return inputs[0]

    def checkpoint_gradients(self) -> None:
        """In training keep the inputs of each layer only (arXiv 1604.06174).

        The rest is computed again in the backward pass.
        """
        with warnings.catch_warnings():
            # late releases of transformers 5 prefer a name that early ones lack
            warnings.simplefilter("ignore", FutureWarning)
            self.stack.gradient_checkpointing_enable({"use_reentrant": False})

    # --- sources and queries ----------------------------------------------------------------

    def read(
        self,
        source: Tensor,
        valid: Tensor,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> PromptMemory:
        """As ``Backbone.read``.

        With ``sees``, each token must see one that is not padding.

        Raises:
            BackboneError: a prompt is longer than the model allows.
        """
        rows, size = valid.shape
        if positions is None:
            positions = torch.arange(size, device=source.device)
        elif sees is None:  # without a mask, transformers would guess one from the positions
            sees = causal(size, source.device)
        positions = positions.expand(rows, -1)  # [B, S]
        if sees is not None:
            if sees.dim() == 2:
                sees = sees.unsqueeze(0)
            sees = restricted(sees.unsqueeze(1), valid[:, None, None])  # [B, 1, S, S]

        end = positions.masked_fill(~valid, -1).amax(1) + 1  # [B]
        longest = int(end.max())
        self.check_length(longest)
        if torch.is_grad_enabled():
            if sees is None:
                sees = causal(size, source.device)[None, None]
            prompt = PromptInput(source, positions, sees.expand(rows, -1, -1, -1))
            return PromptMemory(valid, end, longest, prompt)
        cache = BeamCache(RESERVE)
        self(source, sees, positions, cache)
        return PromptMemory(valid, end, longest, cache)

    def decode(
        self,
        queries: Tensor,
        memory: PromptMemory,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> Tensor:
        """As ``Backbone.decode``; queries stand behind the prompt.

        Raises:
            BackboneError: a query stands behind the model's last position.
        """
        rows, count, _ = queries.shape
        last = count - 1
        if positions is None:
            positions = torch.arange(count, device=queries.device)
        else:
            last = int(positions.max())
        self.check_length(memory.longest + last + 1)
        positions = memory.end.unsqueeze(1) + positions  # [B, Q]
        if sees is None:
            sees = causal(count, queries.device)

        prompt = memory.prompt
        if isinstance(prompt, PromptInput):
            sequence = torch.cat([prompt.embeddings, queries], dim=1)  # [B, S + Q, d_in]
            positions = torch.cat([prompt.positions, positions], dim=1)
            states = self(sequence, memory.joint_mask(prompt.sees, sees), positions)
            return states[:, -count:]
        states = self(queries, memory.query_mask(sees), positions, prompt)
        prompt.rewind(memory.valid.shape[1])
        return states

    # --- LoRA -------------------------------------------------------------------------------

    @property
    def has_lora(self) -> bool:
        """Whether an adapter is attached."""
        return hasattr(self.lm, "get_base_model")

    def add_lora(
        self, rank: int, alpha: float, dropout: float, targets: list[str] | None = None
    ) -> None:
        """Freeze the model and attach a fresh adapter.

        Args:
            rank: of the adapter.
            alpha: scale of the adapter.
            dropout: of the adapter.
            targets: names of linear layers; ``None`` = peft's default modules of the model family.
        """
        self.lm = attach_lora(self.lm, rank, alpha, dropout, targets)

    def merge_lora(self) -> None:
        """Add the adapter to the weights it adapts and remove it.

        All weights are trainable again, and no folder holds them.
        """
        self.origin = None
        self.lm = self.lm.merge_and_unload()
        self.lm.requires_grad_(True)
