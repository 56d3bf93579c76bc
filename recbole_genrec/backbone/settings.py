"""The keys that choose and tune a causal language model, for every method that has one."""

from recbole_genrec.settings.rules import Rule

BACKBONE_RULES: dict[str, Rule] = {
    "backbone_config": Rule(dict, "settings of a backbone from scratch"),
    "text_vocab_size": Rule(int, "tokens of the text vocabulary", low=300),
    "tuning": Rule(str, "which weights train", choices=("full", "lora")),
    "lora_rank": Rule(int, "rank of the adapter", low=1),
    "lora_alpha": Rule(float, "scale of the adapter", low=0),
    "lora_dropout": Rule(float, "dropout of the adapter", low=0, high=1),
    "lora_targets": Rule(list, "modules that get an adapter", optional=True),
    "gradient_checkpointing": Rule(
        bool, "recompute activations in the backward pass instead of keeping them"
    ),
}
# for methods that train the language model as it was loaded: LC-Rec
PROMPT_RULES: dict[str, Rule] = {
    "quantisation": Rule(
        str, "number format of the frozen weights", choices=("8bit", "4bit"), optional=True
    ),
    "packing": Rule(
        str, "how prompts of different length share a batch", choices=("groups", "pack")
    ),
}
