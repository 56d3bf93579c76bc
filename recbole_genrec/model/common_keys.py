"""Keys that several methods declare."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import Settings, key
from recbole_genrec.settings.shared_keys import SharedSettings


class TemperatureKeys(Settings):
    """How sharp the distribution of a code is, in training and in the search."""

    temperature: float = key("divides the logits in training", ge=1e-6)
    infer_temperature: float | Literal["match"] = key(
        "divides the logits in the search; match = temperature", ge=1e-6, affects="search"
    )

    @property
    def search_temperature(self) -> float:
        """What divides the logits in the search."""
        if self.infer_temperature == "match":
            return self.temperature
        return self.infer_temperature


class ClippedGradientKeys(Settings):
    """A key of RecBole's that these methods set in their files."""

    clip_grad_norm: dict | None = key("largest norm of the gradient: {max_norm: 1.0}")


class OneTargetSettings(SharedSettings):
    """The keys of methods whose training rows have one target."""

    train_rows: Literal["all"] = key("a row trains its last item alone")
