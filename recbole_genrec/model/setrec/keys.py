"""Keys of SETRec, and which of them go together."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.common_keys import ClippedGradientKeys
from recbole_genrec.model.ranking import VectorMethodSettings
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key


class SETRecSettings(ClippedGradientKeys, CausalBackboneKeys, VectorMethodSettings):
    """Keys of SETRec."""

    n_cf: Literal[0, 1] = key("collaborative tokens of an item")
    n_sem: int = key("semantic tokens of an item", ge=0)
    alpha: float = key("weight of the auto-encoder's loss", ge=0)
    ae_layers: list[int] = key("widths between a text vector and its tokens", ge=1)
    ae_dropout: float = key("dropout of the auto-encoder", ge=0, le=1)
    ae_normalize: bool = key("standardise each dimension of the text vectors")
    cold_cf: Literal["keep", "zero", "mean"] = key(
        "collaborative vector of items without a training interaction"
    )
    query_init_std: float = key("spread of the query vectors at the start", ge=0)
    setrec_mask: Literal["paper", "official_t5"] = key("what tokens and queries see")
    setrec_position: Literal["compact", "official"] = key("position of the closing words")
    setrec_ce: Literal["full", "sampled"] = key("items that a target competes with")
    setrec_negatives: int = key("items drawn for a batch", ge=1, only_if=("setrec_ce", "sampled"))
    beta: float | Literal["auto"] = key(
        "weight of semantic tokens in a score; auto = the best of beta_grid on validation",
        ge=0,
        le=1,
        affects="search",
    )
    beta_grid: list[float] = key(
        "what beta: auto chooses from", ge=0, le=1, only_if=("beta", "auto")
    )
    score_norm: Literal["zscore", "logsoftmax"] | None = key(
        "scale of the scores of a token before they are summed; none = as they are",
        affects="search",
        default=None,
    )
    train_rows: Literal["all", "longest", "windows"] = key(
        "which training rows; each trains its last item alone"
    )


def check_keys(settings: SETRecSettings) -> None:
    """Refuse settings that cannot work together.

    Args:
        settings: of the run.

    Raises:
        ConfigError: names the keys and what to change.
    """
    if settings.n_cf + settings.n_sem == 0:
        raise ConfigError("n_cf: 0 and n_sem: 0 leave an item without tokens. Raise one of them.")
    content = settings.item_text_fields or settings.item_vectors
    if settings.n_sem and not content:
        raise ConfigError(
            "SETRec's semantic tokens come from item texts: name the columns in item_text_fields, "
            "or set n_sem: 0 for the collaborative token alone."
        )
