"""The keys of TimelineRec and what they say together."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import GIVEN, key
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys, SharedSettings

PARTS = ("id", "text", "code")
HEADS = ("tree", "flat", "parallel")
OLDER_WAY = ("item_parts", None)
OF_PARTS = ("item_parts", GIVEN)


class TimelineSettings(LabelSmoothingKeys, SharedSettings):
    """Keys of TimelineRec."""

    generator: Literal["timeline", "parallel"] | None = key(
        "how codes are generated: timeline = each given those before it, parallel = each given the "
        "history alone",
        default=None,
        neutral=None,
    )
    code_temperature: float = key(
        "divides the cosines of generator: parallel",
        ge=1e-3,
        default=0.03,
        neutral=0.03,
    )
    d_model: int = key("width", ge=1)
    n_layers: int = key("layers of the transformer over items", ge=1)
    n_heads: int = key("attention heads", ge=1)
    timeline_dropout: float = key("dropout", ge=0, le=1)
    positions: Literal["relative", "absolute"] = key(
        "a learned bias for each head and distance, or a vector for each position",
        neutral="absolute",
    )
    norm: Literal["pre", "post"] = key(
        "where the layer norms stand; post has one on the input too, and weights start small",
        neutral="pre",
    )
    output: Literal["codes", "items"] = key(
        "what is generated: codes, or the items themselves (the flat twin)",
        default="codes",
        neutral="codes",
    )
    heads: list[str] | None = key(
        "heads on one transformer whose log-probabilities are added: tree, flat, parallel; "
        "null = by output and generator",
        default=None,
        neutral=None,
    )
    depth: Literal["none", "mlp", "transformer"] = key(
        "decoder along the codes; none = logits of the history and an edge of the tree alone",
    )
    depth_layers: int = key(
        "layers of depth: transformer",
        ge=1,
        only_if=("depth", "transformer"),
    )
    item_parts: list[str] | None = key(
        "what an item's vector is the sum of, on the input and the output side: id, text, code; "
        "null = as input_id, output_id and input_text say",
        default=None,
        neutral=None,
    )
    tie_output: bool = key(
        "input and output side share the item vectors",
        default=True,
        neutral=True,
        only_if=OF_PARTS,
    )
    text_mlp: int = key(
        "hidden width of the map from sentence embeddings to item vectors; 0 = a linear map",
        ge=0,
        default=0,
        neutral=0,
        only_if=OF_PARTS,
    )
    text_map_precision: Literal["auto", "fp32", "bf16"] = key(
        "in training the map multiplies in this precision; auto = bf16 where the hardware does",
        default="auto",
        neutral="fp32",
    )
    input_id: bool = key(
        "add an embedding of the item's id to its input vector",
        only_if=OLDER_WAY,
    )
    output_id: bool = key(
        "a code's output vector is raised by the mean id embedding of the items below it",
        only_if=OLDER_WAY,
    )
    input_text: bool = key(
        "add the item's projected sentence embedding to its input vector",
        only_if=OLDER_WAY,
    )
    prefix_loss: float = key(
        "weight of a loss over the prefixes of codes beside the cross-entropy, as in APAO",
        ge=0,
        default=0.0,
        neutral=0.0,
    )
    prefix_adaptation: float = key(
        "how much more the worst prefix counts in prefix_loss; 0 = in proportion to its loss",
        ge=0,
        default=0.0,
        neutral=0.0,
    )
    align_weight: float = key(
        "weight of a loss that draws item vectors towards the sentence embeddings of their items",
        ge=0,
        default=0.0,
        neutral=0.0,
    )
    loss_vocab: Literal["level", "trie"] = key("codes among which a target competes")
    tie_code_tables: bool = key("input and depth decoder share their code embeddings (ablation)")

    sparse_tables: bool = key(
        "a step changes the rows of its batch alone in the tables of ids and of edges, for large "
        "catalogues; with depth: none, item_parts: null and output_id: False",
        default=False,
        neutral=False,
    )
    tokenizers: list[str] | None = key(
        "tokenizers of several trees on one transformer, the first that of tokenizer; one that is "
        "named again has another seed",
        default=None,
        neutral=None,
    )
    tree_scores: Literal["mean", "logmeanexp"] = key(
        "score of an item by several trees: the mean of its log-probabilities, or the logarithm of "
        "its mean probability",
        affects="search",
        default="mean",
        neutral="mean",
        only_if=("tokenizers", GIVEN),
    )
    edge_vectors: Literal["own", "mean"] = key(
        "whether an edge of depth: none has a vector of its own beside the mean of the items below",
        default="own",
        neutral="own",
        only_if=("depth", "none"),
    )
    text_stream: bool | Literal["auto"] = key(
        "a second transformer and tree that know items by their texts alone; codes compete by the "
        "means of both logits; auto = beside one stateless tree over ids and texts",
        default="auto",
        neutral=False,
    )
    text_stream_mlp: int = key(
        "hidden width of the text map of text_stream; 0 = a linear map",
        ge=0,
        default=256,
        neutral=256,
    )
    text_stream_dropout: float = key(
        "dropout of text_stream",
        ge=0,
        le=1,
        default=0.3,
        neutral=0.3,
    )


class Plan:
    """What the keys together say about the model.

    Args:
        settings: of the run; later changes of a key are followed.
    """

    def __init__(self, settings: TimelineSettings):
        self.settings = settings

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads: ``tree`` or ``parallel`` (codes), ``flat`` (items), or codes and items."""
        if self.settings.heads is not None:
            return tuple(self.settings.heads)
        if self.settings.output == "items":
            return ("flat",)
        if self.settings.generator == "parallel":
            return ("parallel",)
        return ("tree",)

    @property
    def has_depth(self) -> bool:
        """Whether a decoder follows the codes (``depth: mlp`` and ``transformer``)."""
        return "tree" in self.head_names and self.settings.depth != "none"

    @property
    def has_stateless_trees(self) -> bool:
        """Whether logits depend on the state and the edge alone (``depth: none``)."""
        return "tree" in self.head_names and self.settings.depth == "none"

    @property
    def n_trees(self) -> int:
        """Number of trees of codes."""
        if "tree" not in self.head_names:
            return 0
        return len(self.settings.tokenizers or [self.settings.tokenizer])

    @property
    def has_text_stream(self) -> bool:
        """Whether a second stream reads the texts alone."""
        settings = self.settings
        if settings.text_stream != "auto":
            return settings.text_stream
        is_alone = self.head_names == ("tree",) and self.n_trees == 1
        is_stateless = settings.depth == "none"
        has_both = {"id", "text"} <= set(settings.item_parts or ())
        return is_alone and is_stateless and has_both

    @property
    def input_parts(self) -> tuple[str, ...]:
        """What the input vector of an item is the sum of."""
        if self.settings.item_parts is not None:
            return tuple(self.settings.item_parts)
        older = {"code": True, "id": self.settings.input_id, "text": self.settings.input_text}
        return tuple(part for part, is_on in older.items() if is_on)

    @property
    def output_parts(self) -> tuple[str, ...]:
        """What the output vector of an item is the sum of."""
        if self.head_names == ("parallel",):
            return ()
        if self.settings.item_parts is not None:
            return tuple(self.settings.item_parts)
        return ("id",) if self.settings.output_id else ()

    @property
    def all_item_parts(self) -> set[str]:
        """All parts of items, of the input or of the output side."""
        return {*self.input_parts, *self.output_parts}

    @property
    def reads_texts(self) -> bool:
        """Whether sentence embeddings of the items are read."""
        if self.has_text_stream:
            return True
        return "text" in self.all_item_parts or bool(self.settings.align_weight)

    @property
    def reads_codes(self) -> bool:
        """Whether codes enter the items, or are generated."""
        return self.head_names != ("flat",) or "code" in self.all_item_parts

    @property
    def shares_output(self) -> bool:
        """Whether input and output side have the same tables."""
        return self.settings.item_parts is None or self.settings.tie_output

    @property
    def shares_code_table(self) -> bool:
        """Whether parallel codes are compared to the embeddings with which items enter."""
        return self.shares_output and "code" in self.input_parts

    @property
    def scores_all_items(self) -> bool:
        """Whether one product scores the whole catalogue, so that nothing is searched."""
        if self.head_names != ("tree",) or self.n_trees > 1:
            return True
        return self.settings.depth == "none" and self.settings.score_mode != "beam"
