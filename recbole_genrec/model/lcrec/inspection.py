"""What LC-Rec says about items whose codes alone it sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from recbole_genrec.backbone import greedy_text
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lcrec.cases import Case

if TYPE_CHECKING:
    from recbole_genrec.model.lcrec.model import LCRec


@torch.no_grad()
def describe_items(model: LCRec, tokens: Sequence[str]) -> list[dict]:
    """What a model generates about items when it sees their codes alone.

    The task is ``index2item`` with its first template; the most likely tokens are taken.

    Args:
        model: a trained model.
        tokens: raw item ids.

    Returns:
        ``[{"item", "codes", "generated", "text"}]``; ``text`` is what the template asks for, the
        title in our file.

    Raises:
        ConfigError: unknown item, or a model that was not trained to describe items.
    """
    tasks = model.mixture.tasks
    if "index2item" not in tasks:
        raise ConfigError(
            f"This model was trained without index2item (tasks {', '.join(tasks)}); "
            "it cannot describe items."
        )
    model.eval()
    templates = model.instructions.templates
    template = templates.tasks["index2item"][0]
    items = torch.tensor(model.item_ids(tokens), device=model.codes.device)
    max_tokens = model.settings.text_max_len
    ids, _ = model.instructions.prompts(template, Case(items), max_tokens + 1)
    embedded = model.text_and_codes.embed(ids)
    generated = greedy_text(model.backbone, embedded, templates.end, max_tokens)
    sentences = model.text_tokenizer.batch_decode(generated, skip_special_tokens=True)

    asked = model.slot_texts()[template.answer]
    return [
        {
            "item": model.item_tokens[item],
            "codes": model.code_words(item),
            "generated": sentence.strip(),
            "text": asked[item],
        }
        for item, sentence in zip(items.tolist(), sentences, strict=True)
    ]
