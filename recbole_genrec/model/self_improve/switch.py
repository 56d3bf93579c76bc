"""Self-improving item tokenisation, ``self_improve: True``: our interpretation of SIIT (arXiv 2412.17171), not a reproduction.

====================================  ===========================================================================
idea of the paper                     here
====================================  ===========================================================================
item <-> identifier alignment task    the method's ``alignment_loss``, added by :meth:`SelfImprovement.loss`
the model generates identifiers anew  :meth:`SelfImprovement.refine_codes`, over the method's ``item_decoder``
diverse generation                    ``decoding/candidates.py``: any code of a level, owned by an item or not
collision avoidance                   ``code_assignment.py``, put together in ``code_refresh.py``
periodic regeneration                 :meth:`SelfImprovement.on_epoch_start`, before an epoch, never between training and validation
====================================  ===========================================================================

The paper fixes this loop; every number, schedule and rule is our choice (unpublished). Vocabulary, weights and optimiser keep their size:
only the table ``codes`` changes, in place. It is a buffer, so a checkpoint holds the codes that its weights were trained with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_genrec.backbone import SoftPrefix
from recbole_genrec.data.text_encoder import standardised
from recbole_genrec.errors import ConfigError, GenRecError, explained_memory
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.self_improve.refresh import new_codes, refined_codes
from recbole_genrec.model.self_improve.schedule import CONTRACT, RULES, refresh_epochs
from recbole_genrec.runtime.processes import first_process_first
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.digests import digest


@cache
def self_improving(method: type) -> type:
    """``method`` with :class:`SelfImprovement`, under the same name.

    Raises:
        ConfigError: the method does not generate discrete codes; names what it lacks.
    """
    for member in CONTRACT:
        if getattr(method, member, None) in (None, getattr(GenerativeRecommender, member)):
            raise ConfigError(
                f"self_improve: True needs a method that generates discrete codes and can code an item from its content; "
                f"{method.__name__} does not define {member}(items). Leave self_improve out for {method.__name__}."
            )
    members = {
        "__module__": method.__module__,
        "__doc__": method.__doc__,
        "config_rules": {**method.config_rules, **RULES},
    }
    return type(method.__name__, (SelfImprovement, method), members)


class SelfImprovement:
    """The part of a method's class that :func:`self_improving` adds; see ``properties/self_improve.yaml`` for the keys.

    Attributes:
        si_epoch, si_step, si_round: buffers, epochs begun, batches of the last one, and refreshes made.
        refreshes: the log, one entry a refresh, in the ``state_dict`` as extra state.
    """

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self.register_buffer("si_epoch", torch.zeros((), dtype=torch.long))
        self.register_buffer("si_step", torch.zeros((), dtype=torch.long))
        self.register_buffer("si_round", torch.zeros((), dtype=torch.long))
        self.refreshes: list[dict] = []
        if config["si_rounds"] and config["si_fixed_levels"] >= len(self.level_sizes):
            raise ConfigError(
                f"si_fixed_levels: {config['si_fixed_levels']} fixes all {len(self.level_sizes)} levels of the codes, so no refresh could "
                "change one. Use fewer, or si_rounds: 0."
            )
        ids, n_items = math.prod(self.level_sizes) - len(self.reserved_codes()), len(self.codes) - 1
        if ids <= n_items:
            raise ConfigError(
                f"self_improve: True needs more ids than items, but sizes {list(self.level_sizes)} give {ids} for {n_items} items. "
                "Raise codebook_sizes or dedup_spare."
            )
        if self.prefix_width is not None:
            if config["si_rounds"] and not config["si_align_weight"]:
                self.logger.warning(
                    "With si_align_weight: 0 nothing teaches the model to code an item: its refreshes will be random."
                )
            self.item_prefix = SoftPrefix(
                self._content_vectors, self.prefix_width, (stored or {}).get("content_width")
            )
        patience = config["stopping_step"] * config["eval_step"]
        if config["si_rounds"] and config["eval_step"] and patience < config["si_interval"] + 1:
            self.logger.warning(
                f"Validation can dip after a refresh of the codes: stopping_step {config['stopping_step']} x eval_step "
                f"{config['eval_step']} = {patience} epochs of patience are fewer than si_interval + 1 = {config['si_interval'] + 1}."
            )

    def _content_source(self) -> str:
        """What the tokenizer reads; ``cf`` for a tokenizer of text where items have none."""
        source = self.config["tokenizer_input"]
        return (
            source
            if source in ("cf", "graph")
            else "text"
            if self.config["item_text_fields"]
            else "cf"
        )

    def _content_vectors(self) -> Tensor:
        """Standardised vectors of what the tokenizer reads."""
        read = {
            "text": self.content.embeddings,
            "cf": self.content.collaborative,
            "graph": self.content.graph,
        }[self._content_source()]
        return torch.from_numpy(standardised(read(), self.n_dataset_items))

    @property
    def n_aligned(self) -> int:
        """All levels: each of them is decoded anew, the extra token too."""
        return len(self.level_sizes)

    @classmethod
    def reads_text(cls, config) -> bool:
        """Whenever there are item texts."""
        return super().reads_text(config) or bool(config["item_text_fields"])

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The method's checks, and a schedule that fits."""
        super().check_config(values)
        refresh_epochs(values)
        if cls.prefix_width is None and not values["item_text_fields"]:
            raise ConfigError(
                f"{cls.__name__} codes an item from its words: self_improve: True needs item texts (item_text_fields)."
            )
        if values["si_max_candidates"] < values["si_num_candidates"]:
            raise ConfigError(
                f"si_max_candidates {values['si_max_candidates']} is below si_num_candidates {values['si_num_candidates']}."
            )
        if values["si_control"] and values["si_fixed_levels"]:
            raise ConfigError(
                "si_control: shuffled passes whole codes on, so it cannot keep first levels; set si_fixed_levels: 0."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The method's lines and when the codes are refreshed."""
        when = ", ".join(map(str, refresh_epochs(config))) or "none"
        control = f", CONTROL: {config['si_control']}" if config["si_control"] else ""
        return {
            **super().describe(config),
            "self-improvement": f"our interpretation; refresh before epochs {when}{control}",
        }

    # --- training -------------------------------------------------------------------------------------------------------------------

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, **more: Tensor
    ) -> tuple[Tensor, ...]:
        """The method's loss and ``si_align_weight`` times L_align of items drawn uniformly, by a random stream of their own."""
        parts = super().loss(history, length, target, **more)
        parts = parts if isinstance(parts, tuple) else (parts,)
        weight = self.config["si_align_weight"]
        if weight == 0:
            return parts
        count = max(1, round(self.config["si_align_ratio"] * self.config["train_batch_size"]))
        draw = self._generator(
            "alignment", int(self.si_epoch), int(self.si_step)
        )  # the same items in every process
        self.si_step += 1
        items = torch.randint(1, len(self.codes), (count,), generator=draw)
        return *parts, weight * self.alignment_loss(items.to(self.codes.device))

    def calculate_loss(self, interaction):
        """As the method's, under our trainer only."""
        if not self._epoch_hook_seen:
            raise ConfigError(
                "self_improve: True needs the epoch hook of GenRecTrainer, which this trainer does not call: the codes would never be "
                "refreshed. Train through run_recbole_genrec or recbole_genrec.training.trainer.GenRecTrainer."
            )
        return super().calculate_loss(interaction)

    def on_epoch_start(self, epoch: int):
        """Refresh the codes where it is due, then whatever the method does before an epoch.

        A run that goes on inside an epoch has begun it before: its codes are those of the resume point.
        """
        if epoch in refresh_epochs(self.config) and int(self.si_epoch) <= epoch:
            with explained_memory("Use a smaller --si_batch_size or --si_num_candidates."):
                self.refine_codes(epoch)
        self.si_epoch.fill_(epoch + 1)
        self.si_step.zero_()
        return super().on_epoch_start(epoch)

    def parameter_groups(self) -> list[dict]:
        """The method's, and the content projection where they leave it out."""
        groups = super().parameter_groups()
        known = {id(parameter) for group in groups for parameter in group["params"]}
        rest = [
            p
            for name, p in self.named_parameters()
            if name.startswith("item_prefix.") and id(p) not in known
        ]
        return [*groups, {"params": rest}] if rest else groups

    # --- refresh --------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refine_codes(self, epoch: int | None = None) -> None:
        """Let the model code all items anew and put the new table in the place of the old one.

        Random states stay as they are. With several processes rank 0 decides and the others take over its table; tables, as folders that
        the key ``tokenizer`` takes, and the log are written by rank 0.
        """
        randomness, training = rng_state(), self.training
        self.eval()
        try:
            popularity, table = self.popularity()[1:], self.codes.clone()
            with first_process_first(
                "refreshing the codes"
            ):  # the broadcast would not wait as long
                if _first():
                    table, entry = refined_codes(
                        self, self._generator("refresh", int(self.si_round)), popularity
                    )
            if _several():
                dist.broadcast(table, 0)
            self._commit(table)
            self.si_round += 1
        finally:
            self.train(training)
            set_rng_state(randomness)
        if _first():
            self._record({"round": int(self.si_round), "epoch": epoch, **entry})

    def _commit(self, table: Tensor) -> None:
        """Check the table and copy it in place; whatever is derived from it follows its version."""
        checked = replace(
            self.item_codes, codes=table.cpu()
        )  # shape, type, range of each level, padding row
        every = torch.cat([checked.codes[1:], self.reserved_codes().cpu().unique(dim=0)])
        if len(every.unique(dim=0)) < len(every):
            raise GenRecError(
                "A refresh gave two items the same codes, or an item reserved ones; this is a fault of the package."
            )
        self.item_codes = checked
        self.codes.copy_(table)
        self.codes_version += 1

    def _generator(self, *key) -> torch.Generator:
        return torch.Generator().manual_seed(int(digest(self.config["seed"], *key), 16) % 2**63)

    # --- log ------------------------------------------------------------------------------------------------------------------------

    def _record(self, entry: dict) -> None:
        levels = [
            {key: level[key] for key in ("used", "entropy")}
            for level in self.item_codes.stats()["levels"]
        ]
        self.refreshes = [*self.refreshes[: entry["round"] - 1], {**entry, "levels": levels}]
        path = (
            Path(self.config["checkpoint_dir"])
            / f"{self.config.run_name()}.codes_v{entry['round']}"
        )
        self.item_codes.save(path)
        fallbacks = ", ".join(f"{name} {count}" for name, count in entry["fallbacks"].items())
        self.logger.info(
            f"Codes refreshed, round {entry['round']}: {entry['churn']:.1%} of the items changed "
            f"(per level {', '.join(f'{share:.1%}' for share in entry['churn_per_level'])}), log-probability per code "
            f"{entry['fit_before']:.3f} -> {entry['fit_after']:.3f}, {entry['collision_rate']:.1%} wanted the same codes, mean rank "
            f"{entry['mean_rank']:.2f}, fallbacks: {fallbacks}; {entry['cpu_seconds']:.1f} CPU seconds, stored in {path}"
        )

    def get_extra_state(self) -> dict:
        """The log travels with the weights, so that a resumed run has it; beside what the method keeps there itself."""
        method = super().get_extra_state
        kept = {} if method.__func__ is torch.nn.Module.get_extra_state else {"method": method()}
        return {"log": self.refreshes, **kept}

    def set_extra_state(self, state: dict) -> None:
        """Take over the log; the best epoch's weights do not shorten it."""
        self.refreshes = max(self.refreshes, state["log"], key=len)
        if "method" in state:
            super().set_extra_state(state["method"])

    def other_parameter(self) -> dict:
        """The method's, and the width of the content vectors: a loaded model reads these only if it trains or refreshes on."""
        width = None if self.prefix_width is None else self.item_prefix.projection.in_features
        return {**super().other_parameter(), "content_width": width}

    @torch.no_grad()
    def add_items(self, texts, tokens=None) -> list[int]:
        """As the method's; after a refresh the model gives the new items their codes, from their content as in a refresh (our choice).

        Raises:
            ConfigError: the codes were refreshed, and come from interactions, which new items do not have.
        """
        refreshed, prefix = bool(self.si_round), self.prefix_width is not None
        if refreshed and prefix and self._content_source() != "text":
            raise ConfigError(
                "The codes of this model were refreshed by self_improve from collaborative vectors, which new items do not have. Train "
                "again with the new items."
            )
        added = super().add_items(texts, tokens)
        if added and prefix:
            self.content.forget_embeddings()
            self.item_prefix.forget()
        if refreshed and added:
            training = self.training
            self.eval()
            self._commit(
                new_codes(self, torch.tensor(added), self._generator("new items", len(self.codes)))
            )
            self.train(training)
        return added

    def report(self) -> dict:
        """The method's report, the log, and which round's codes the model has."""
        return {
            **super().report(),
            "self_improve": {"round": int(self.si_round), "refreshes": self.refreshes},
        }


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _first() -> bool:
    return not _several() or dist.get_rank() == 0
