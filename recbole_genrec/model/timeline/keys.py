"""The keys of TimelineRec and what must hold among them."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import GIVEN, key
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.settings.shared_keys import SharedSettings

PARTS = ("id", "text", "code")
HEADS = ("tree", "flat")
OLDER_WAY = ("item_parts", None)
OF_PARTS = ("item_parts", GIVEN)


class TimelineSettings(SharedSettings):
    """Keys of TimelineRec."""

    d_model: int = key("width", ge=1, affects="training")
    n_layers: int = key("layers of the transformer over items", ge=1, affects="training")
    n_heads: int = key("attention heads", ge=1, affects="training")
    timeline_dropout: float = key("dropout", ge=0, le=1, affects="training")
    positions: Literal["relative", "absolute"] = key(
        "a learned bias for each head and distance, or a vector for each position",
        affects="training",
        neutral="absolute",
    )
    norm: Literal["pre", "post"] = key(
        "where the layer norms stand; post has one on the input too, and weights start small",
        affects="training",
        neutral="pre",
    )
    output: Literal["codes", "items"] = key(
        "what is generated: codes, or the items themselves (the flat twin)",
        affects="training",
        default="codes",
        neutral="codes",
    )
    heads: list[str] | None = key(
        "heads on one transformer whose log-probabilities are added: tree, flat; null = by output",
        affects="training",
        default=None,
        neutral=None,
    )
    depth: Literal["none", "mlp", "transformer"] = key(
        "decoder along the codes; none = logits of the history and an edge of the tree alone",
        affects="training",
    )
    depth_layers: int = key(
        "layers of depth: transformer",
        ge=1,
        affects="training",
        only_if=("depth", "transformer"),
    )
    item_parts: list[str] | None = key(
        "what an item's vector is the sum of, on the input and the output side: id, text, code; "
        "null = as input_id, output_id and input_text say",
        affects="training",
        default=None,
        neutral=None,
    )
    tie_output: bool = key(
        "input and output side share the item vectors",
        affects="training",
        default=True,
        neutral=True,
        only_if=OF_PARTS,
    )
    text_mlp: int = key(
        "hidden width of the map from sentence embeddings to item vectors; 0 = a linear map",
        ge=0,
        affects="training",
        default=0,
        neutral=0,
        only_if=OF_PARTS,
    )
    input_id: bool = key(
        "add an embedding of the item's id to its input vector",
        affects="training",
        only_if=OLDER_WAY,
    )
    output_id: bool = key(
        "a code's output vector is raised by the mean id embedding of the items below it",
        affects="training",
        only_if=OLDER_WAY,
    )
    input_text: bool = key(
        "add the item's projected sentence embedding to its input vector",
        affects="training",
        only_if=OLDER_WAY,
    )
    loss_vocab: Literal["level", "trie"] = key(
        "codes among which a target competes", affects="training"
    )
    tie_code_tables: bool = key(
        "input and depth decoder share their code embeddings (ablation)", affects="training"
    )

    sparse_tables: bool = key(
        "a step changes the rows of its batch alone in the tables of ids and of edges, for large "
        "catalogues; with depth: none, item_parts: null and output_id: False",
        affects="training",
        default=False,
        neutral=False,
    )
    tokenizers: list[str] | None = key(
        "tokenizers of several trees on one transformer, the first that of tokenizer; one that is "
        "named again has another seed",
        affects="training",
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


class Plan:
    """What the keys together say about the model.

    Args:
        settings: of the run; later changes of a key are followed.
    """

    def __init__(self, settings: TimelineSettings):
        self.settings = settings

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads: ``tree`` (codes), ``flat`` (items) or both."""
        if self.settings.heads is not None:
            return tuple(self.settings.heads)
        return ("flat",) if self.settings.output == "items" else ("tree",)

    @property
    def n_trees(self) -> int:
        """Number of trees of codes."""
        if "tree" not in self.head_names:
            return 0
        return len(self.settings.tokenizers or [self.settings.tokenizer])

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
        if self.settings.item_parts is not None:
            return tuple(self.settings.item_parts)
        return ("id",) if self.settings.output_id else ()

    @property
    def parts(self) -> set[str]:
        """All parts of items, of the input or of the output side."""
        return {*self.input_parts, *self.output_parts}

    @property
    def shares_output(self) -> bool:
        """Whether input and output side have the same tables."""
        return self.settings.item_parts is None or self.settings.tie_output

    @property
    def scores_all_items(self) -> bool:
        """Whether one product scores the whole catalogue, so that nothing is searched."""
        if self.head_names != ("tree",) or self.n_trees > 1:
            return True
        return self.settings.depth == "none" and self.settings.score_mode != "beam"


def check_timeline(settings: TimelineSettings) -> None:
    """Refuse combinations of the keys of TimelineRec that cannot work.

    Args:
        settings: of the run.

    Raises:
        ConfigError: names the keys and what to change.
    """
    if settings.d_model % settings.n_heads:
        raise ConfigError(
            f"d_model {settings.d_model} is no multiple of n_heads {settings.n_heads}."
        )
    plan = Plan(settings)
    _check_names("item_parts", settings.item_parts, PARTS)
    _check_names("heads", settings.heads, HEADS)
    if settings.heads is not None and settings.output == "items":
        raise ConfigError(
            "output: items stands for heads: [flat], and heads is given too. Leave out one of them."
        )
    if "flat" in plan.head_names and not plan.output_parts:
        raise ConfigError(
            "A softmax over items needs item vectors on the output side. Use --item_parts=[id], "
            "[text] or [id,text]."
        )
    if "tree" in plan.head_names and settings.depth == "none":
        _check_stateless(settings)
    if settings.tokenizers is not None:
        _check_trees(settings, plan)
    if len(plan.head_names) > 1 and settings.depth != "none":
        raise ConfigError(
            f"heads: {list(plan.head_names)} adds the log-probabilities of all items, which "
            f"depth: {settings.depth} gives for a few items alone. Use depth: none."
        )
    if "flat" in plan.head_names:
        _check_flat(settings)
    if settings.sparse_tables:
        _check_sparse(settings, plan)


def _check_names(key_name: str, names: list[str] | None, known: tuple[str, ...]) -> None:
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"{key_name} names {name!r}; choose among {', '.join(known)}."
                f"{did_you_mean(str(name), known)}"
            )
    if len(set(names or ())) < len(names or ()):
        raise ConfigError(f"{key_name} names one of {names} twice.")


def check_refinable(settings: TimelineSettings) -> None:
    """Refuse ``self_improve`` where codes are fixed or missing.

    Raises:
        ConfigError: names the keys and what to change.
    """
    if not settings.self_improve:
        return
    if Plan(settings).head_names != ("tree",):
        raise ConfigError(
            "self_improve refines codes, and a softmax over items has none. Use heads: [tree] with "
            "--depth=mlp, or self_improve: False."
        )
    if settings.depth == "none":
        raise ConfigError(
            "self_improve changes codes while the model trains, and depth: none has a vector for "
            "each place in the tree of the first codes. Use --depth=mlp, or self_improve: False."
        )


def _check_trees(settings: TimelineSettings, plan: Plan) -> None:
    names = settings.tokenizers or []
    if "tree" not in plan.head_names:
        raise ConfigError(
            f"tokenizers: {names} gives codes to several trees, and output: items has none. Leave "
            "tokenizers out, or use output: codes."
        )
    if names[0] != settings.tokenizer:
        raise ConfigError(
            f"tokenizers begins with {names[0]!r}, but tokenizer is {settings.tokenizer!r}. Use "
            f"--tokenizer={names[0]} too."
        )
    if settings.depth != "none":
        raise ConfigError(
            f"tokenizers: {names} adds the log-probabilities of all items, which depth: "
            f"{settings.depth} gives for a few items alone. Use depth: none."
        )
    if settings.score_mode == "beam" and len(names) > 1:
        raise ConfigError(
            "score_mode: beam searches one tree of codes; several score all items. Use "
            "score_mode: auto or exact."
        )


def _check_stateless(settings: TimelineSettings) -> None:
    if settings.constraint != "trie":
        raise ConfigError(
            f"constraint: {settings.constraint} lets beams leave the catalogue, where the tree of "
            "depth: none has no vectors. Use constraint: trie, or --depth=mlp."
        )


def _check_sparse(settings: TimelineSettings, plan: Plan) -> None:
    own_vectors = plan.head_names == ("tree",) and settings.depth == "none"
    if not own_vectors or settings.item_parts is not None or plan.output_parts:
        raise ConfigError(
            "sparse_tables: True needs edges with vectors of their own, and item vectors that are "
            "made for the items of a batch. Use --heads=[tree] --depth=none --item_parts=~ "
            "--output_id=False."
        )
    if settings.fsdp:
        raise ConfigError(
            "sparse_tables: True and fsdp: True: shared weights have no sparse gradients. Leave "
            "one of them out."
        )


def _check_flat(settings: TimelineSettings) -> None:
    if settings.score_mode == "beam":
        raise ConfigError(
            "score_mode: beam searches one tree of codes; a softmax over items scores all of them. "
            "Use score_mode: auto or exact."
        )
