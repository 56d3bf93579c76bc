"""Keys of LC-Rec, and what they may hold."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.model.lcrec.templates import FORMS
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import SharedSettings


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
