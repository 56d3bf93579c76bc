"""A run that starts from the weights of a checkpoint, on data that may have grown since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.data.ids import raw_ids
from recbole_genrec.errors import ArtefactError, ConfigError, explained
from recbole_genrec.experiments.loading import take_in_new_items
from recbole_genrec.experiments.other_pasts import held_out_is_drawn, sentence_about_other_pasts
from recbole_genrec.model.registry import build_model, is_generative, reads_codes
from recbole_genrec.model.starting_codes import code_settings
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state


class WarmStart:
    """The checkpoint that ``init_from`` names.

    Items keep their codes; new items of the data are placed by the tokenizer.

    Args:
        config: a ``GenRecConfig``.

    Attributes:
        ids: raw ids of the checkpoint, whose numbers the dataset takes over.

    Raises:
        ArtefactError: the checkpoint is missing or damaged.
        ConfigError: it holds another model or other codes, or may know what this run holds out.
    """

    def __init__(self, config: GenRecConfig) -> None:
        self.config = config
        self.file = str(config.settings.init_from)
        self.state = load_checkpoint(self.file)
        model = self.state["config"]["model"]
        trained = config.settings.model
        if model != trained:
            raise ConfigError(
                f"init_from: {self.file} holds {model}, but {trained} is to be trained. "
                "Name a checkpoint of the same model."
            )
        self._check_held_out()
        self._check_codes()
        self.ids: dict[str, list[str]] = self.state["ids"]

    def _check_held_out(self) -> None:
        """Refuse weights that may have been trained on interactions that this run holds out.

        Raises:
            ConfigError: names the settings that differ.
        """
        before = _held_out(self.state["config"])
        now = _held_out(self.config.final_config_dict)
        if not now["hold_out"]:
            return
        keys = [key for key in now if now[key] != before[key]]
        if keys:
            raise ConfigError(
                f"init_from: {self.file} was trained with {keys[0]}: {before[keys[0]]}, and this "
                f"run has {now[keys[0]]}. So its weights may know interactions that this run "
                f"holds out to test them. Use the same {', '.join(keys)}, or train on everything "
                "(--hold_out=False), which tests nothing."
            )

    def _check_codes(self) -> None:
        """Refuse settings of the codes that are not those of the checkpoint.

        What the user leaves out, the configuration takes from there.

        Raises:
            ConfigError: names the setting.
        """
        if not reads_codes(self.config):
            return
        now = self.config.plain()
        for name, before in code_settings(self.state["config"]).items():
            if now.get(name) != before:
                raise ConfigError(
                    f"init_from: {self.file} was trained with {name}: {before}, and this run has "
                    f"{now.get(name)}. Known items keep their codes, so it would change nothing. "
                    f"Leave {name} out or use the same, or train from the beginning, without "
                    "init_from."
                )

    def sentence_about_histories(self, bought: EventHistories) -> str:
        """What the log says of data that the training of the weights did not end before.

        Args:
            bought: what the users have chosen.

        Raises:
            ConfigError: chance decides what is held out, and it decides anew on other data.
        """
        sentence = sentence_about_other_pasts(self.config, self.state, bought)
        if not sentence:
            return ""
        if held_out_is_drawn(self.config.final_config_dict):
            raise ConfigError(
                f"init_from: {self.file}: {sentence} Train from the beginning, without init_from, "
                "or train on everything (--hold_out=False), which tests nothing."
            )
        return f"init_from: {self.file}: {sentence}"

    def build(self, dataset: Dataset, bought: EventHistories) -> AbstractRecommender:
        """The model with the weights of the checkpoint.

        Args:
            dataset: RecBole's training dataset, numbered by :attr:`ids`.
            bought: raw item ids of each user.

        Raises:
            ArtefactError: the weights do not fit these settings, or new items have no place.
        """
        with explained(f"The checkpoint {self.file}", "Use the settings of its run."):
            if not is_generative(self.config.model_class):
                return self._grown(dataset)
            model = self.config.model_class.from_checkpoint(
                self.config, dataset, self.state, begins=True
            )
            left_out = take_in_new_items(self.config, model, dataset, bought, self.ids, begins=True)
        if left_out:
            raise ArtefactError(
                f"init_from: {len(left_out)} items of the data, for example {left_out[0]!r}, are "
                f"unknown to {self.file} and have no place in its codes. Train from the beginning, "
                "without init_from."
            )
        return model

    def _grown(self, dataset: Dataset) -> AbstractRecommender:
        """A model of RecBole: rows of known users and items are taken over, others start anew."""
        model = build_model(self.config, dataset)
        here = raw_ids(dataset)
        sizes = {(len(self.ids[kind]), len(here[kind])) for kind in ("items", "users")}
        fresh = model.state_dict()
        weights = {
            name: _with_rows(name, fresh[name], stored, sizes) if name in fresh else stored
            for name, stored in self.state["state_dict"].items()
        }
        load_state(model, weights)
        return model


def _held_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide which interactions a run does not train on.

    Args:
        config: settings of a run, also of a version that did not have all of these keys.
    """
    arguments = config["eval_args"]
    return {
        "hold_out": config.get("hold_out", True),
        "benchmark_filename": config.get("benchmark_filename"),
        "cold_users": config.get("cold_users", 0),
        **{f"eval_args: {part}": arguments.get(part) for part in ("split", "order", "group_by")},
        "seed": config["seed"] if held_out_is_drawn(config) else None,
    }


def _with_rows(
    name: str, fresh: torch.Tensor, stored: torch.Tensor, sizes: set[tuple[int, int]]
) -> torch.Tensor:
    if fresh.shape == stored.shape:
        return stored
    grown = fresh.dim() > 0 and (len(stored), len(fresh)) in sizes
    if not grown or fresh.shape[1:] != stored.shape[1:]:
        raise ArtefactError(
            f"The weight {name} has the shape {list(stored.shape)} in the checkpoint and "
            f"{list(fresh.shape)} under these settings."
        )
    return torch.cat([stored.to(fresh), fresh[len(stored) :]])


def warm_start(config: GenRecConfig) -> WarmStart | None:
    """What ``init_from`` names; ``None`` when it names nothing."""
    if config.settings.init_from is None:
        return None
    return WarmStart(config)
