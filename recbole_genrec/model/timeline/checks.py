"""What must hold among the keys of TimelineRec."""

from __future__ import annotations

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.timeline.keys import HEADS, PARTS, Plan, TimelineSettings
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.training.row_adam import check_row_learner


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
    if plan.has_stateless_trees:
        _check_stateless(settings, plan)
    if settings.tokenizers is not None:
        _check_trees(settings, plan)
    if "parallel" in plan.head_names or settings.generator == "parallel":
        _check_parallel(settings, plan)
    elif len(plan.head_names) > 1 and settings.depth != "none":
        raise ConfigError(
            f"heads: {list(plan.head_names)} adds the log-probabilities of all items, which "
            f"depth: {settings.depth} gives for a few items alone. Use depth: none."
        )
    if "flat" in plan.head_names:
        _check_flat(settings)
    if plan.has_text_stream:
        _check_text_stream(settings, plan)
    _check_training(settings, plan)


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
            "self_improve refines a path of codes, and these heads have none. Use heads: [tree] "
            "with --depth=mlp, or self_improve: False."
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


def _check_parallel(settings: TimelineSettings, plan: Plan) -> None:
    if "parallel" not in plan.head_names:
        raise ConfigError(
            f"generator: parallel has the head parallel, and the heads are "
            f"{list(plan.head_names)}. Leave generator out, or use --heads=[parallel] or "
            "[parallel,flat] without output: items."
        )
    if "tree" in plan.head_names:
        raise ConfigError(
            "heads: tree and parallel read the same codes in two ways that exclude each other. "
            "Use one of them, with or without flat."
        )
    if settings.score_mode == "beam":
        raise ConfigError(
            "score_mode: beam searches a tree of codes; parallel codes score all items. Use "
            "score_mode: auto or exact."
        )
    if settings.exclude_history_in_training:
        raise ConfigError(
            "exclude_history_in_training: a parallel code belongs to many items, so none leaves "
            "the softmax. Use exclude_history_in_training: False with parallel codes."
        )


def _check_text_stream(settings: TimelineSettings, plan: Plan) -> None:
    if "parallel" in plan.head_names:
        raise ConfigError(
            "text_stream: True has a tree or a softmax over items, and generator: parallel has "
            "another head. Leave one of them out."
        )
    if plan.has_depth:
        raise ConfigError(
            "text_stream: True is a second stateless tree of codes beside the first. Use it with "
            "depth: none, or leave it out."
        )
    if plan.n_trees > 1:
        raise ConfigError(
            f"tokenizers: {settings.tokenizers} are trees over other codes, and text_stream: True "
            "has a tree over the codes of the first. Leave one of them out."
        )
    if settings.sparse_tables:
        raise ConfigError(
            "text_stream: True maps the texts of the whole catalogue in each step, and "
            "sparse_tables: True is for catalogues where that is too much. Leave one of them out."
        )


def _check_training(settings: TimelineSettings, plan: Plan) -> None:
    if settings.sparse_tables:
        _check_sparse(settings, plan)
    if settings.prefix_loss:
        _check_prefix_loss(settings, plan)


def _check_stateless(settings: TimelineSettings, plan: Plan) -> None:
    if settings.edge_vectors == "mean" and not plan.output_parts:
        raise ConfigError(
            "edge_vectors: mean makes an edge the mean of the items below it, and items have no "
            "vectors on the output side. Use --item_parts=[id,text], or edge_vectors: own."
        )
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
    check_row_learner(settings.learner)


def _check_prefix_loss(settings: TimelineSettings, plan: Plan) -> None:
    if "tree" not in plan.head_names:
        raise ConfigError(
            "prefix_loss is about prefixes of codes, and these heads have none. Leave it out, or "
            "use heads: [tree]."
        )
    if max(settings.nproc, settings.world_size) > 1:
        raise ConfigError(
            "prefix_loss weighs the prefixes by their losses in the whole batch, which several "
            "processes do not see. Use --nproc=1, or leave prefix_loss out."
        )


def _check_flat(settings: TimelineSettings) -> None:
    if settings.score_mode == "beam":
        raise ConfigError(
            "score_mode: beam searches one tree of codes; a softmax over items scores all of them. "
            "Use score_mode: auto or exact."
        )
