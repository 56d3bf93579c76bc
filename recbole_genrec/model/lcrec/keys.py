"""Keys of LC-Rec, and what they may hold."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.common_keys import TemperatureKeys
from recbole_genrec.model.lcrec.templates import FORMS
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys, SharedSettings


class LCRecSettings(TemperatureKeys, LabelSmoothingKeys, CausalBackboneKeys, SharedSettings):
    """Keys of LC-Rec."""

    weights_precision: Literal["fp32", "bf16"] = key(
        "number format in which the weights of a pretrained language model are kept and trained; "
        "bf16 needs precision: bf16; of the learners adafactor keeps its averages in fp32",
        default="fp32",
        neutral="fp32",
    )
    packing: Literal["groups", "pack"] = key("how prompts of different length share a batch")
    tasks: list[str] = key(f"families of instructions: {', '.join(FORMS)}")
    task_weights: dict = key("how often a task is drawn, times its natural number of samples")
    user_text_file: str | None = key("JSON file: user -> preference and query")
    prompt_file: str | None = key("YAML file with the prompts; ~ = ours")
    prompt_set: Literal["few", "all"] = key(
        "templates of the prompt file: few = those of tasks, all = those of further too; each "
        "training sample draws one",
        default="few",
        neutral="few",
    )
    test_prompt_ids: list[int] | Literal[0, "all"] = key(
        "templates of seqrec that are tested, or all; the metrics are averaged",
        ge=0,
        affects="search",
    )
    max_length: int = key("tokens of the longest sequence", ge=16)
    text_max_len: int = key("tokens of a title or another text", ge=1)
    sid_loss_vocab: Literal["full", "sid", "trie"] = key(
        "what a code competes with in training: all tokens and codes, codes and the end token, or "
        "the codes that the trie allows",
    )
    align_new_items: bool = key(
        "whether item2index and index2item may draw items without training interactions",
    )


def check_weights(settings: LCRecSettings) -> None:
    """Refuse ``weights_precision: bf16`` where it cannot work.

    Args:
        settings: of the run.

    Raises:
        ConfigError: names the key and what to change.
    """
    if settings.weights_precision != "bf16":
        return
    start = "weights_precision: bf16"
    if settings.backbone == "scratch":
        raise ConfigError(
            f"{start} is for pretrained weights; backbone: scratch has none. Leave it out."
        )
    if settings.precision != "bf16":
        raise ConfigError(f"{start} needs precision: bf16, which casts what enters the weights.")
    if settings.fsdp:
        raise ConfigError(
            f"{start} with fsdp: True would share out weights of two formats (those of the codes "
            "stay fp32). Use one of the two."
        )
    if settings.quantisation is not None:
        raise ConfigError(f"{start} with quantisation: {settings.quantisation}: use one of them.")
