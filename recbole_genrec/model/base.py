"""What every method of ours shares, with codes or without: hooks, training, use after training.

A method writes :meth:`GenRecModel.loss` and ``scores``. Two bases stand on this:
:class:`~recbole_genrec.model.generative.GenerativeRecommender` for methods that generate codes, and
:class:`~recbole_genrec.model.ranking.VectorRecommender` for methods that compare vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from recbole.utils import InputType, init_seed
from torch import Tensor

from recbole_genrec.data.histories.evaluated_histories import EXCLUDED
from recbole_genrec.decoding import histories_of, without_targets
from recbole_genrec.decoding.topk import ordered_topk
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.answers import ListOptions
from recbole_genrec.model.lists.user_lists import UserLists
from recbole_genrec.model.new_items import TakesNewItems
from recbole_genrec.model.text_needs import text_line
from recbole_genrec.training.list_evaluation import MOST_SCORES

Validate = Callable[[], dict[str, float]]


class GenRecModel(UserLists, TakesNewItems):
    """A sequential recommender of this package.

    See also the attributes of :class:`~recbole_genrec.model.stored.StoredModel`, of
    :class:`~recbole_genrec.model.new_items.TakesNewItems` and of
    :class:`~recbole_genrec.model.lists.answers.Answering`.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then nothing is fitted before the training.

    Attributes:
        needs_tokenizer: whether the items of this method have codes, so that a ``tokenizer`` is
            fitted first.
        tokenizer_curves: losses of the stages of the tokenizer's fit, by stage and loss; empty
            where they are not known.
        properties: values of keys, below those of the user; for classes outside this package, which
            may instead have a file ``<Class>.yaml`` beside their module.
        trains_without_history: whether :meth:`loss` reads :meth:`excluded_in_training`, so that
            ``exclude_history_in_training`` can be set.
        uses_users: whether ``loss``, ``scores`` and ``ranked_lists`` take ``user``, RecBole's user
            ids ``[B]``.
    """

    tokenizer_curves: dict[str, dict[str, list[float]]]
    generative = True
    input_type = InputType.POINTWISE
    needs_tokenizer: ClassVar[bool] = False
    properties: ClassVar[dict[str, Any]] = {}
    trains_without_history: ClassVar[bool] = False

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._epoch_hook_seen: bool | None = None
        self._validates = False
        self.tokenizer_curves = {}

    def _start_anew(self) -> None:
        """Set the seed before the weights are drawn.

        They are the same whether what stands before them was fitted now or stored.
        """
        init_seed(self.settings.seed, self.settings.reproducibility)

    # --- what a method writes ---------------------------------------------------------------------

    # ``*_: Any, **user: Any`` leaves to a method whether it has an argument ``user``.

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, *_: Any, **user: Any
    ) -> Tensor | tuple[Tensor, ...]:
        """Training loss of a batch; the parts of a tuple are summed and logged one by one.

        Each mean over n terms goes through ``balanced(mean, n)`` of
        :mod:`recbole_genrec.runtime.processes`, so that several processes get the gradient of one.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            target: next item ids ``[B]``.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``.
        """
        raise NotImplementedError

    def scores_without(
        self, excluded: Tensor, history: Tensor, length: Tensor, **user: Any
    ) -> Tensor:
        """:meth:`scores` in which some items of each user get the lowest value.

        Args:
            excluded: item ids ``[B, H]``, 0 = none.
            history: as in :meth:`scores`.
            length: as in :meth:`scores`.
            **user: as in :meth:`scores`.
        """
        return self.scores(history, length, **user).scatter(1, excluded, -torch.inf)

    def validation_loss(
        self, history: Tensor, length: Tensor, target: Tensor, *_: Any, **user: Any
    ) -> Tensor:
        """Mean loss of recommending the targets of a batch, for ``valid_metric: loss``.

        Each row has one target (:attr:`has_one_target`). By default it is the sum of the parts of
        :meth:`loss`; a method leaves out tasks that do not recommend, and random draws.

        Args:
            history: as in :meth:`loss`.
            length: as in :meth:`loss`.
            target: as in :meth:`loss`.
            **user: as in :meth:`loss`.
        """
        losses = self.loss(history, length, target, **user)
        if isinstance(losses, tuple):
            return torch.stack(losses).sum()
        return losses

    # --- hooks that a method may write ------------------------------------------------------------

    def parameter_groups(self) -> list[dict]:
        """Parameters for the optimiser; a group may carry its own ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def optimiser_groups(self) -> list[dict]:
        """:meth:`parameter_groups`, and a last group of the parameters that they leave out."""
        groups = self.parameter_groups()
        grouped: set[int] = set()
        for group in groups:
            grouped.update(map(id, group["params"]))
        ungrouped = [p for p in self.parameters() if p.requires_grad and id(p) not in grouped]
        if not ungrouped:
            return groups
        return [*groups, {"params": ungrouped}]

    def on_epoch_start(self, epoch: int) -> Iterable[Tensor]:
        """Called before each epoch; may return losses to optimise first, one at a time."""
        self._epoch_hook_seen = True
        return ()

    def rate_factor(self) -> float:
        """Called once before each optimiser step: share of the learning rate that it takes."""
        return 1.0

    def after_fit(self, validate: Validate) -> None:
        """Called between training and test, with the weights of the best epoch.

        What is decided here (a weight, a threshold) goes into buffers or ``other_parameter``; the
        trainer writes the checkpoint again afterwards. A resumed run calls this again, perhaps on
        weights that an earlier call has changed already: start from the same values each time.

        Args:
            validate: evaluates the model as it is on the validation split; metrics by name, as in
                the result file (``ndcg@10``).
        """

    @property
    def decides_after_fit(self) -> bool:
        """Whether this method writes :meth:`after_fit`."""
        return type(self).after_fit is not GenRecModel.after_fit

    def test_variants(self) -> Iterator[str]:
        """Names of the ways to test the model, whose metrics are averaged.

        The model is set to each way while that name is handed out.
        """
        yield "all"

    def report(self) -> dict:
        """What the result file says about the model beside its metrics."""
        return {}

    @classmethod
    def check_config(cls, values: dict) -> None:
        """Refuse combinations of settings that cannot work, before anything is trained.

        Args:
            values: all settings of the run.

        Raises:
            ConfigError: names the keys and what to do.
        """
        if values.get("candidate_file") is not None:
            raise ConfigError(
                "candidate_file restricts a search over codes; this method has none. Leave it out, "
                "or use recommend(candidates=...)."
            )

    @classmethod
    def check_settings(cls, settings: Any) -> None:
        """Called before anything is trained: a method refuses settings that do not go together.

        Args:
            settings: the keys of ``settings_class``.

        Raises:
            ConfigError: names the keys and what to change.
        """

    @classmethod
    def reads_codes(cls, config) -> bool:
        """Whether the codes of items decide anything in a run with these settings.

        Args:
            config: the settings of the run.
        """
        return cls.needs_tokenizer

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        return {"item text": text_line(config)}

    # --- RecBole's interface ----------------------------------------------------------------------

    @property
    def has_one_target(self) -> bool:
        """Whether a row has one target, as with ``train_rows: all`` and in validation."""
        return self._validates or self.settings.train_rows == "all"

    def calculate_validation_loss(self, interaction) -> Tensor:
        """:meth:`validation_loss` of a batch, trimmed to its longest history."""
        history, length = self._history(interaction)
        target = interaction[self.POS_ITEM_ID]
        self._validates = True
        try:
            return self.validation_loss(history, length, target, **self._user(interaction))
        finally:
            self._validates = False

    def calculate_loss(self, interaction):
        """RecBole's training hook: :meth:`loss` of the batch, trimmed to its longest history."""
        if self._epoch_hook_seen is None:
            self._epoch_hook_seen = False
            self.logger.warning(
                "Another trainer than GenRecTrainer trains this model. All its parameters use "
                "learning_rate. It has no schedule of the learning rate, no hooks before epochs "
                "(align_mode: alternate), no gradient accumulation and no --resume. RecBole's "
                "checkpoints are pickles, which torch 2.6 or newer does not load: call "
                "fit(saved=False) and evaluate(load_best_model=False)."
            )
        history, length = self._history(interaction)
        target = interaction[self.POS_ITEM_ID]
        return self.loss(history, length, target, **self._user(interaction))

    def _history(self, interaction) -> tuple[Tensor, Tensor]:
        """Histories ``[B, T]``, trimmed to the longest, and their lengths ``[B]``."""
        length = interaction[self.ITEM_SEQ_LEN]
        return interaction[self.ITEM_SEQ][:, : int(length.max())], length

    def excluded_items(self, interaction) -> Tensor | None:
        """Item ids ``[B, H]`` that each row must not get, 0 = none; ``None`` where all are ranked.

        Our loaders say them. For other batches it is the history that they hold.
        """
        if not self.settings.exclude_history:
            return None
        if EXCLUDED in interaction:
            return interaction[EXCLUDED]
        return self._history(interaction)[0]

    def excluded_in_training(
        self, history: Tensor, target: Tensor, is_target: Tensor | None = None
    ) -> Tensor | None:
        """Items that do not compete with the targets of a training step.

        Args:
            history: item ids ``[P, H]`` before each target, 0 = none.
            target: item ids ``[P]``, which always compete.
            is_target: bool ``[B, T]``, for rows with several targets: ``history`` is ``[B, T]``,
                and an item up to each of these positions does not compete with the next one.

        Returns:
            Item ids ``[P, H]``, 0 = none; ``None`` without ``exclude_history_in_training``.
        """
        if not self.settings.exclude_history_in_training:
            return None
        if is_target is not None:
            history = histories_of(history, is_target)
        return without_targets(history, target)

    def _user(self, interaction) -> dict[str, Tensor]:
        """The argument ``user`` of the methods that take it."""
        if not self.uses_users:
            return {}
        return {"user": interaction[self.USER_ID]}

    @property
    def scores_every_item(self) -> bool:
        """Whether :meth:`scores` computes every item, so that its memory grows with them."""
        return True

    def rows_at_once(self) -> int:
        """Users that are ranked together: ``search_batch_size``, fewer in a large catalogue."""
        rows = self.settings.search_batch_size
        if self.scores_every_item:
            rows = min(rows, max(1, MOST_SCORES // self.n_items))
        return rows

    @torch.no_grad()
    def full_sort_predict(self, interaction) -> Tensor:
        """:meth:`scores` of all items, float32 ``[B, n_items]``; the padding item gets -inf.

        :meth:`rows_at_once` users with histories of similar length are scored at once. With
        ``exclude_history`` the items of the history get the lowest values.
        """
        history = interaction[self.ITEM_SEQ]
        scores = torch.empty(len(history), self.n_items, device=history.device)  # [B, n_items]
        for rows, users in self._together(interaction):
            scores[rows] = self._scores_of(**users)
        scores[:, 0] = -torch.inf
        return scores

    @torch.no_grad()
    def best_items(self, interaction, k: int) -> tuple[Tensor, Tensor]:
        """The first ``k`` places of each row of :meth:`full_sort_predict`.

        The scores of all items stand in memory for :meth:`rows_at_once` users at most.

        Args:
            interaction: a batch of RecBole's.
            k: number of places.

        Returns:
            Item ids ``[B, k]`` and their scores ``[B, k]``, best first.
        """
        device = interaction[self.ITEM_SEQ].device
        items = torch.zeros(len(interaction), k, dtype=torch.int64, device=device)
        scores = torch.zeros(len(interaction), k, device=device)
        for rows, users in self._together(interaction):
            items[rows], scores[rows] = self._best_of(k, **users)
        return items, scores

    def _best_of(
        self, k: int, history: Tensor, length: Tensor, excluded: Tensor | None, **user: Tensor
    ) -> tuple[Tensor, Tensor]:
        """:meth:`best_items` of users who are ranked together; arguments as of :meth:`scores`."""
        scores = self._scores_of(history, length, excluded, **user)  # [B, n_items]
        scores = scores.index_fill(1, scores.new_zeros(1, dtype=torch.int64), -torch.inf)
        best, items = ordered_topk(scores, k)
        return items, best

    def _scores_of(
        self, history: Tensor, length: Tensor, excluded: Tensor | None, **user: Tensor
    ) -> Tensor:
        """Scores of all items ``[B, n_items]``, without the excluded ones where some are."""
        if excluded is None:
            return self.scores(history, length, **user)
        return self.scores_without(excluded, history, length, **user)

    def _together(self, interaction) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The rows of a batch that are ranked together, and what is known about these users."""
        history, length = self._history(interaction)
        user = self._user(interaction)
        excluded = self.excluded_items(interaction)
        for rows in torch.argsort(length, stable=True).split(self.rows_at_once()):
            longest = int(length[rows].max())
            facts: dict[str, Any] = {name: ids[rows] for name, ids in user.items()}
            facts["history"] = history[rows, :longest]
            facts["length"] = length[rows]
            facts["excluded"] = excluded if excluded is None else excluded[rows]
            yield rows, facts

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Score ``[B]`` of the given item of each row, as in :meth:`full_sort_predict`."""
        items = interaction[self.ITEM_ID].unsqueeze(1)  # [B, 1]
        return self.full_sort_predict(interaction).gather(1, items).squeeze(1)

    # --- lists after training ---------------------------------------------------------------------

    def list_texts(self) -> list[str]:
        """The text of each item by its id."""
        return self.content.text

    def list_titles(self) -> list[str]:
        """Titles by item id: the first text field, or the whole text."""
        return self.content.titles or self.content.text

    def list_options(self) -> ListOptions:
        """What the settings say about lists."""
        return ListOptions(
            self.settings.exclude_history,
            self.rows_at_once(),
            self.settings.shows_progress,
            self._weights_device(),
        )

    def leave_training_mode(self) -> None:
        """As torch's ``eval``, where the model is not in that mode already."""
        if self.training:  # walking through all modules would cost a single query dearly
            self.eval()
