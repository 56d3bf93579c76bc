"""Self-improving item tokenisation: our interpretation of SIIT (arXiv 2412.17171).

==================================  ===============================================================
idea of the paper                   here
==================================  ===============================================================
alignment of items and identifiers  the method's ``alignment_loss``,
                                    added by :meth:`SelfImprovement.with_alignment`
the model generates identifiers     :meth:`SelfImprovement.refine_codes`,
                                    over the method's ``item_decoder``
diverse generation                  ``decoding/code_tuples.py``: any code of a level,
                                    whether an item has it or not
collision avoidance                 ``assignment.py``, used by ``refresh.py``
periodic regeneration               :meth:`SelfImprovement.on_epoch_start`
==================================  ===============================================================

The paper fixes this loop and publishes no code. Every number, schedule and rule is our choice.

Vocabulary, weights and optimiser keep their size. Only the table ``codes`` changes, in place, and
always before an epoch: never between training and validation. The table is a buffer, so a
checkpoint holds the codes that its weights were trained with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import SoftPrefix
from recbole_genrec.backbone.word_prefix import WordPrefix
from recbole_genrec.errors import ConfigError, GenRecError, explained_memory
from recbole_genrec.model.self_improve.checks import check_code_space, warn_about_schedule
from recbole_genrec.model.self_improve.content import content_source
from recbole_genrec.model.self_improve.fresh_codes import start_unused_codes_anew
from recbole_genrec.model.self_improve.old_checkpoints import rename_old_state
from recbole_genrec.model.self_improve.prefixes import make_prefix
from recbole_genrec.model.self_improve.refresh import new_codes, refined_codes
from recbole_genrec.model.self_improve.schedule import refresh_epochs
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.randomness import rng_state, set_rng_state
from recbole_genrec.storage.digests import digest

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving
    from recbole_genrec.settings.shared_keys import SharedSettings


class SelfImprovement(nn.Module):
    """What a model is given so that it improves its item codes while it trains.

    The model holds this object as ``self_improvement`` and calls its hooks. It hands itself to
    each of them, so the object keeps no reference to the model among its own modules.
    ``properties/self_improve.yaml`` lists the keys.

    Args:
        model: the model to improve; its constructor has finished.
        settings: the settings of the run.

    Attributes:
        epoch: buffer, number of epochs that have begun.
        step: buffer, number of batches of the present epoch.
        round: buffer, number of refreshes.
        refreshes: the log, one entry per refresh, stored with the weights.
        since_refresh: buffer, optimiser steps since the last refresh; with ``si_rewarm_steps``.
        item_prefix: content of items as input vectors; ``None`` for a method with a text prompt.

    Raises:
        ConfigError: there are too few ids for the items, or no level of the codes may change.
    """

    epoch: Tensor
    step: Tensor
    round: Tensor
    since_refresh: Tensor

    def __init__(self, model: SelfImproving, settings: SharedSettings):
        super().__init__()
        check_code_space(model, settings)
        self.settings = settings
        self.refreshes: list[dict] = []
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("round", torch.zeros((), dtype=torch.long))

        if settings.si_rewarm_steps:
            self.register_buffer("since_refresh", torch.zeros((), dtype=torch.long))
        self.item_prefix = make_prefix(model, settings)

        model.register_load_state_dict_pre_hook(rename_old_state)
        warn_about_schedule(model, settings)

    # --- hooks of training ------------------------------------------------------------------------

    def check_trainer(self, epoch_hook_seen: bool) -> None:
        """Refuse a trainer that does not announce its epochs.

        Args:
            epoch_hook_seen: whether the model's ``on_epoch_start`` has been called.

        Raises:
            ConfigError: it has not been called.
        """
        if not epoch_hook_seen:
            raise ConfigError(
                "self_improve: True needs the epoch hook of GenRecTrainer, which this trainer "
                "does not call: the codes would never be refreshed. Train through "
                "run_recbole_genrec or recbole_genrec.training.trainer.GenRecTrainer."
            )

    def on_epoch_start(self, model: SelfImproving, epoch: int) -> None:
        """Refresh the codes if a refresh is due before this epoch.

        A run that resumes inside an epoch has made that refresh before it stopped. Its codes come
        from the resume point, so there is no second refresh.

        Args:
            model: the model that holds this object.
            epoch: number of the epoch, counted from 0.
        """
        is_due = epoch in refresh_epochs(self.settings)
        has_begun = int(self.epoch) > epoch
        if is_due and not has_begun:
            with explained_memory("Use a smaller --si_batch_size or --si_num_candidates."):
                self.refine_codes(model, epoch)
        self.epoch.fill_(epoch + 1)
        self.step.zero_()

    def with_alignment(
        self, model: SelfImproving, losses: Tensor | tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Add the losses of content -> codes and of codes -> words.

        They are ``si_align_weight`` times ``L_align`` and ``si_back_weight`` times ``L_back``, of
        the same items. These are drawn uniformly from a random stream of their own, which is the
        same in every process. STORE and LCRec have the first task in their own loss, with the
        weight that it has there.

        Args:
            model: the model that holds this object.
            losses: the method's loss of the batch, or its parts.

        Returns:
            The parts of the loss; the tasks of the items come last.
        """
        if not isinstance(losses, tuple):
            losses = (losses,)
        weight = self.settings.si_align_weight
        if "si_align_weight" in model.own_tasks:
            weight = 0.0  # the method's loss has the task
        back = self.settings.si_back_weight
        if weight == 0 and back == 0:
            return losses

        count = max(1, round(self.settings.si_align_ratio * self.settings.train_batch_size))
        generator = self._generator("alignment", int(self.epoch), int(self.step))
        self.step += 1
        items = torch.randint(1, len(model.codes), (count,), generator=generator)  # [count]
        items = items.to(model.codes.device)
        if weight:
            losses = (*losses, weight * model.alignment_loss(items))
        if back:
            losses = (*losses, back * model.description_loss(items))
        return losses

    def rate_factor(self) -> float:
        """Share of the learning rate for the next optimiser step.

        It rises anew over ``si_rewarm_steps`` steps after each refresh; the moments of the
        optimiser stay.
        """
        steps = self.settings.si_rewarm_steps
        if not steps or not self.round:
            return 1.0
        self.since_refresh += 1
        return min(1.0, int(self.since_refresh) / steps)

    # --- refresh ----------------------------------------------------------------------------------

    @torch.no_grad()
    def refine_codes(self, model: SelfImproving, epoch: int | None = None) -> None:
        """Let the model code all items anew and replace the code table.

        Random states stay as they are. With several processes the first one computes the table and
        sends it to the others. The first process also writes the log and the table, the latter as
        a folder that the key ``tokenizer`` takes.

        Args:
            model: the model that holds this object.
            epoch: number of the epoch that follows, for the log.
        """
        is_first = processes.rank() == 0
        random_states = rng_state()
        was_training = model.training
        model.eval()
        try:
            popularity = model.popularity()[1:]  # [N]
            table = model.codes.clone()  # [n_items, L]
            entry: dict = {}
            # A broadcast alone would time out before the first process has finished.
            with processes.first_process_first("refreshing the codes"):
                if is_first:
                    generator = self._generator("refresh", int(self.round))
                    table, entry = refined_codes(model, generator, popularity)
            self.replace_codes(model, processes.from_first(table))
            if self.settings.si_reinit_unused:
                started = start_unused_codes_anew(
                    model, self._generator("unused codes", int(self.round))
                )
                entry["unused_codes_started"] = started
            self.round += 1
            if self.settings.si_rewarm_steps:
                self.since_refresh.zero_()
        finally:
            model.train(was_training)
            set_rng_state(random_states)

        if is_first:
            self._record(model, {"round": int(self.round), "epoch": epoch, **entry})

    def replace_codes(self, model: SelfImproving, table: Tensor) -> None:
        """Check a table and copy it into the model; the trie is built anew at its next use.

        Args:
            model: the model that holds this object.
            table: codes int64 ``[n_items, L]``, row 0 = padding item.

        Raises:
            GenRecError: two items have the same codes, or an item has reserved ones.
        """
        # ItemCodes checks the shape, the type, the range of each level and the padding row.
        item_codes = replace(model.item_codes, codes=table.cpu())
        reserved = model.reserved_codes().cpu().unique(dim=0)  # [R, L]
        codes_in_use = torch.cat([item_codes.codes[1:], reserved])  # [N + R, L]
        if len(codes_in_use.unique(dim=0)) < len(codes_in_use):
            raise GenRecError(
                "A refresh gave two items the same codes, or gave an item reserved codes. This "
                "is a bug in recbole_genrec; please report it with the settings of the run."
            )
        model.item_codes = item_codes
        model.codes.copy_(table)
        model.codes_version += 1

    def _generator(self, *key) -> torch.Generator:
        """A random stream that depends on the seed of the run and on ``key`` alone."""
        seed = int(digest(self.settings.seed, *key), 16) % 2**63
        return torch.Generator().manual_seed(seed)

    # --- new items --------------------------------------------------------------------------------

    def check_new_items(self, model: SelfImproving) -> None:
        """Refuse new items that cannot be coded.

        Args:
            model: the model that holds this object.

        Raises:
            ConfigError: refreshed codes come from interactions, which new items do not have.
        """
        if not self.round or not isinstance(self.item_prefix, SoftPrefix):
            return
        if not model.prefix_follows_items and content_source(model.config) != "text":
            raise ConfigError(
                "The codes of this model were refreshed by self_improve from collaborative "
                "vectors, which new items do not have. Train again with the new items."
            )

    @torch.no_grad()
    def code_new_items(self, model: SelfImproving, items: list[int]) -> None:
        """After a refresh the model codes new items by their content, as a refresh does.

        Before the first refresh they keep the codes of the tokenizer. Both are our choice.

        Args:
            model: the model that holds this object.
            items: internal ids of the new items.
        """
        if self.item_prefix is not None:
            self.item_prefix.forget()
        if isinstance(self.item_prefix, WordPrefix):
            self.item_prefix.extend(model.content.text)
        if not self.round:
            return
        was_training = model.training
        model.eval()
        generator = self._generator("new items", len(model.codes))
        self.replace_codes(model, new_codes(model, torch.tensor(items), generator))
        model.train(was_training)

    # --- log and checkpoints ----------------------------------------------------------------------

    def _record(self, model: SelfImproving, entry: dict) -> None:
        """Store the new table, add ``entry`` to the log and print it."""
        levels = [
            {"used": level["used"], "entropy": level["entropy"]}
            for level in model.item_codes.stats()["levels"]
        ]
        earlier = self.refreshes[: entry["round"] - 1]
        self.refreshes = [*earlier, {**entry, "levels": levels}]

        name = f"{model.config.run_name()}.codes_v{entry['round']}"
        folder = Path(self.settings.checkpoint_dir) / name
        model.item_codes.save(folder)

        churn_per_level = ", ".join(f"{share:.1%}" for share in entry["churn_per_level"])
        fallbacks = ", ".join(f"{kind} {count}" for kind, count in entry["fallbacks"].items())
        model.logger.info(
            f"Codes refreshed, round {entry['round']}: {entry['churn']:.1%} of the items changed "
            f"(per level {churn_per_level}), log-probability per code "
            f"{entry['fit_before']:.3f} -> {entry['fit_after']:.3f}, "
            f"{entry['collision_rate']:.1%} wanted the same codes, mean rank "
            f"{entry['mean_rank']:.2f}, fallbacks: {fallbacks}; "
            f"{entry['cpu_seconds']:.1f} CPU seconds, stored in {folder}"
        )

    def get_extra_state(self) -> dict:
        """The log is stored with the weights, so that a resumed run has it."""
        return {"log": self.refreshes}

    def set_extra_state(self, state: dict) -> None:
        """Take over the log of a checkpoint.

        The weights of the best epoch, loaded after training, do not shorten the log.

        Args:
            state: what :meth:`get_extra_state` returned.
        """
        self.refreshes = max(self.refreshes, state["log"], key=len)

    def other_parameter(self) -> dict:
        """The width of the content vectors, or the vocabulary of words.

        With the width a loaded model reads the vectors only if it trains or refreshes on.
        """
        if isinstance(self.item_prefix, WordPrefix):
            return {"content_width": None, "words": self.item_prefix.vocabulary()}
        if self.item_prefix is None:
            return {"content_width": None}
        return {"content_width": self.item_prefix.projection.in_features}

    def report(self) -> dict:
        """The log, and the number of the refresh that the model's codes come from."""
        return {"round": int(self.round), "refreshes": self.refreshes}
