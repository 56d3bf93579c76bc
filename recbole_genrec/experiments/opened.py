"""A checkpoint that is opened, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from recbole.utils import init_seed

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError, explained
from recbole_genrec.experiments.ensemble_file import EnsembleFile, is_ensemble
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.stored_settings import (
    MOVABLE,
    changes_of_model,
    config_from_plain,
)
from recbole_genrec.model.outside import check_stored_class
from recbole_genrec.settings.classification import evaluation_keys
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.storage.checkpoints import load_checkpoint


@dataclass(frozen=True)
class Opened:
    """A checkpoint that is opened, and what is asked of it.

    Attributes:
        path: the file, or the folder of an export.
        state: its content.
        model_class: the class of a model from outside this package, or ``package.module:Class``.
            Not needed for registered classes and those of entry points.
        changes: settings to replace; ``Model.key`` is for that model alone.
    """

    path: str
    state: dict[str, Any]
    model_class: type | str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        model_class: type | str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Opened:
        """Open a checkpoint.

        Args:
            name: a file, a folder, or a hub id.
            model_class: as the attribute.
            changes: as the attribute.

        Raises:
            ArtefactError: it is missing, damaged or a result.
            ConfigError: it is an ensemble.
        """
        path = local_checkpoint(name)
        if is_ensemble(path):
            EnsembleFile.read(path)  # refuses other JSON files
            raise ConfigError(
                f"{name} is an ensemble, which has no model of its own. evaluate, recommend and "
                "load_recommender take it."
            )
        return cls(path, load_checkpoint(path), model_class, changes or {})

    def with_defaults(self, **values: Any) -> Opened:
        """The same with further settings to replace, over which those that were asked for win."""
        return replace(self, changes={**values, **self.changes})

    def asked(self, name: str) -> Any:
        """The value of a key, stored or changed, as it was given."""
        stored = self.state["config"]
        return changes_of_model(stored["model"], self.changes).get(name, stored[name])

    def with_changes(self, **values: Any) -> Opened:
        """The same with further settings to replace, which win over those that were asked for."""
        model = self.state["config"]["model"]
        return replace(self, changes={**changes_of_model(model, self.changes), **values})

    def explained(self) -> AbstractContextManager[None]:
        """Refuse the checkpoint, whatever error its content leads to."""
        return explained(f"The checkpoint {self.path}", "Train the model again.")

    def config(self) -> GenRecConfig:
        """The settings of its run, with the changes; the random state is that of their seed.

        Raises:
            ArtefactError: the class of the model is from outside, and neither named nor known.
            ConfigError: the class that was named has another name, or the settings no longer fit
                this version.
        """
        check_stored_class(self.state["config"], self.model_class, self.path)
        config = config_from_plain(self.state["config"], **self.changes)
        init_seed(config.settings.seed, config.settings.reproducibility)
        return config

    def check_changes(self) -> None:
        """Refuse to test a trained model under settings that say how it was trained.

        Raises:
            ConfigError: a key that the weights depend on, or an unknown one.
        """
        stored = self.state["config"]
        with self.explained():
            check_stored_class(stored, self.model_class, self.path)
            known = evaluation_keys(config_from_plain(stored).declarations)
        for name in self.changes:
            owner, _, key = name.rpartition(".")
            if owner in ("", stored["model"]) and key not in (*known, *MOVABLE):
                raise ConfigError(
                    f"{name} cannot be changed for a trained model. "
                    f"evaluate takes {', '.join(known)}.{did_you_mean(key, known)}"
                )
