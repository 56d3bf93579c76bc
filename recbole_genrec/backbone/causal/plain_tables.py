"""Whether the vectors and logits of a language model are its tables, without factors of its own."""

from __future__ import annotations

import torch

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.errors import BackboneError

FEW = 4
"""Words that are read for the check (our choice)."""


@torch.no_grad()
def check_plain_tables(lm: TransformersModule) -> None:
    """Refuse families that scale their embeddings (Gemma) or logits (Granite, Cohere).

    Vectors of codes stand beside the rows of the text table, and their logits beside those of the
    output layer. A factor that the family applies to the text alone would leave the codes out: they
    would start at another scale, and an exported model would compute something else than was
    trained.

    Args:
        lm: a causal language model of transformers, without an adapter.

    Raises:
        BackboneError: the family scales them.
    """
    table = lm.get_input_embeddings()
    head = lm.get_output_embeddings()
    if head is None:
        return
    ids = _some_words(lm)
    rows = table.weight[ids]
    if not torch.equal(table(ids), rows):
        raise _scaled(lm, "the embeddings of its words")

    was_training = lm.training
    lm.eval()
    try:
        theirs = lm(input_ids=ids, use_cache=False).logits.float()
        states = lm.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state
        ours = head(states).float()
    finally:
        lm.train(was_training)
    if not torch.allclose(theirs, ours, rtol=0.02, atol=1e-3 * float(ours.abs().max())):
        raise _scaled(lm, "its logits behind the output layer")


def _some_words(lm: TransformersModule) -> torch.Tensor:
    """Ids ``[1, n]`` of the first words that are no padding."""
    padding = getattr(lm.config, "pad_token_id", None)
    n_rows = lm.get_input_embeddings().num_embeddings
    words = [word for word in range(min(n_rows, FEW + 1)) if word != padding]
    return torch.tensor([words], device=lm.device)


def _scaled(lm: TransformersModule, what: str) -> BackboneError:
    return BackboneError(
        f"This language model of the family {lm.config.model_type} scales {what}, and the item "
        "codes beside its words would lack that factor. Use another family (opt, llama, qwen2, "
        "qwen3, mistral), or settings without the factor."
    )
