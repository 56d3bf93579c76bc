"""What every method of ours shares, however it ranks items: RecBole's hooks, item content, checkpoints, use after training."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.ids import raw_ids, rows_by_token
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.model.serving import Serving
from recbole_genrec.settings.rules import Rule
from recbole_genrec.storage.checkpoints import load_state, save_checkpoint


class GenRecModel(Serving, SequentialRecommender):
    """A sequential recommender whose items are short sequences of learned tokens.

    A method of this kind registers the buffer ``codes`` (int64 ``[n_items, L]``, row 0 = padding item) in its constructor and writes
    :meth:`loss`, :meth:`scores`, :meth:`ranked` and :meth:`other_parameter`.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
        needs_text: whether item texts must be there.
    """

    generative = True
    input_type = InputType.POINTWISE
    uses_users = False  # whether loss and scores take ``user``, RecBole's user ids [B]
    tables: tuple[str, ...] = (
        "codes",
    )  # buffers by RecBole id: the constructor's win over those of a checkpoint
    rows_by_id: dict[
        str, str
    ] = {}  # weights by RecBole id ("items" or "users"): a checkpoint's move to this dataset's ids
    config_rules: dict[str, Rule] = {}

    def __init__(self, config, dataset, stored: dict | None, needs_text: bool):
        super().__init__(config, dataset)
        self.config, self.stored = config, stored
        self.logger = logging.getLogger()
        self.item_tokens, self.user_tokens = raw_ids(dataset).values()
        self.content = ItemContent.from_dataset(dataset, config, needed=needs_text)
        if stored:  # items that add_items made recommendable
            self.item_tokens += stored["added"]["tokens"]
            self.content.extend(stored["added"]["texts"])
        self.n_dataset_items = dataset.item_num
        self._epoch_hook_seen = None

    @classmethod
    def build(cls, config, dataset, stored: dict | None = None) -> GenRecModel:
        """The model of a run: what the constructor makes, and what switches of the settings add to it.

        Args:
            config: a ``GenRecConfig``.
            dataset: RecBole's training dataset.
            stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
        """
        return cls(config, dataset, stored)

    # --- what a method writes -------------------------------------------------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Training loss of a batch; a tuple is summed and logged part by part. Each mean over n terms goes through ``balanced(mean, n)``
        of :mod:`recbole_genrec.runtime.processes`, so that several processes get the gradient of one.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0. length: ``[B]``. target: next item ids ``[B]``.
        """
        raise NotImplementedError

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """Scores of all items, float32 ``[B, n_items]``; column 0 is not looked at. ``history [B, T]`` is right-padded with 0."""
        raise NotImplementedError

    def ranked(
        self, history: Tensor, length: Tensor, k: int, candidates: Tensor | None
    ) -> list[tuple[int, dict]]:
        """The best ``k`` of the ``candidates`` (item ids; default all) for one user: item ids with ``{"score": ...}`` and other columns."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict]:
        """Parameters for the optimiser; a group may carry its own ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def optimiser_groups(self) -> list[dict]:
        """:meth:`parameter_groups`, and a last group of the trainable parameters that it leaves out."""
        groups = self.parameter_groups()
        grouped = {id(parameter) for group in groups for parameter in group["params"]}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in grouped]
        return [*groups, {"params": rest}] if rest else groups

    # --- RecBole's interface --------------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction):
        """RecBole's training hook: :meth:`loss` of the batch, trimmed to its longest history."""
        if self._epoch_hook_seen is None:
            self._epoch_hook_seen = False
            self.logger.warning(
                "This is not GenRecTrainer: all parameters use learning_rate, and schedule, epoch hooks (align_mode: alternate), "
                "gradient accumulation, --resume and checkpoints without pickles are not available; RecBole's evaluate cannot reload the "
                "best epoch on torch 2.6 or newer (use saved=False and load_best_model=False)."
            )
        return self.loss(
            *self._history(interaction), interaction[self.POS_ITEM_ID], **self._user(interaction)
        )

    def on_epoch_start(self, epoch: int):
        """Called by our trainer before each epoch; may return losses to optimise first, one at a time."""
        self._epoch_hook_seen = True
        return ()

    def _history(self, interaction) -> tuple[Tensor, Tensor]:
        length = interaction[self.ITEM_SEQ_LEN]
        return interaction[self.ITEM_SEQ][:, : int(length.max())], length

    def _user(self, interaction) -> dict[str, Tensor]:
        return {"user": interaction[self.USER_ID]} if self.uses_users else {}

    @torch.no_grad()
    def full_sort_predict(self, interaction) -> Tensor:
        """:meth:`scores` of all items, float32 ``[B, n_items]``, ``search_batch_size`` users of similar history at once; padding -inf."""
        history, length = self._history(interaction)
        more = self._user(interaction)
        scores = torch.empty(len(length), len(self.codes), device=history.device)
        for rows in torch.argsort(length, stable=True).split(self.config["search_batch_size"]):
            own, longest = (
                {name: value[rows] for name, value in more.items()},
                int(length[rows].max()),
            )
            scores[rows] = self.scores(history[rows, :longest], length[rows], **own)
        scores[:, 0] = -torch.inf
        return scores

    def test_variants(self) -> Iterator[str]:
        """Names of the ways to test the model, whose metrics are averaged; it is set to each while that one is handed out."""
        yield "all"

    # --- checkpoints ----------------------------------------------------------------------------------------------------------------

    @property
    def frozen_names(self) -> set[str]:
        """Weights that a checkpoint leaves out because the hub id or folder in ``backbone`` holds them, and their quantisation."""
        if self.config["backbone"] == "scratch" or self.config["tuning"] != "lora":
            return set()
        trains = {
            name: parameter.requires_grad
            for name, parameter in self.named_parameters(remove_duplicate=False)
        }
        modules = {name.rpartition(".")[0] for name, learned in trains.items() if not learned}
        return {
            name
            for name in self.state_dict()
            if not trains.get(name) and not modules.isdisjoint(_above(name))
        }

    def checkpoint_state(self) -> dict[str, Tensor]:
        """``state_dict()`` without :attr:`frozen_names`."""
        left_out = self.frozen_names
        return {name: tensor for name, tensor in self.state_dict().items() if name not in left_out}

    def added_items(self) -> dict:
        """Raw ids and texts of the items that ``add_items`` made recommendable, for :meth:`other_parameter`."""
        first = self.n_dataset_items
        return {"tokens": list(self.item_tokens[first:]), "texts": list(self.content.text[first:])}

    def checkpoint(self) -> dict:
        """The content of a checkpoint of the model as it is."""
        state = {"config": self.config.plain(), "epoch": -1, "state_dict": self.checkpoint_state()}
        return {**state, "ids": self.raw_ids, "other_parameter": self.other_parameter()}

    @property
    def raw_ids(self) -> dict[str, list[str]]:
        """Raw ids of ``items`` (added ones too) and ``users`` by internal id."""
        return {"items": list(self.item_tokens), "users": list(self.user_tokens)}

    def save(self, path: str) -> None:
        """Write a checkpoint of the model as it is, for example after ``add_items``; ``load_data_and_model`` reads it."""
        save_checkpoint(path, self.checkpoint())

    def load_other_parameter(self, para) -> None:
        """Nothing to do: the constructor reads it (``stored``)."""

    @classmethod
    def from_checkpoint(cls, config, dataset, state: dict) -> GenRecModel:
        """The model of a checkpoint: no stage runs; rows of :attr:`tables` and :attr:`rows_by_id` follow this dataset's ids."""
        if not state.get("other_parameter"):
            raise ArtefactError(
                "The checkpoint holds no item codes; give the .pth file that a finished epoch wrote."
            )
        model = cls.build(config, dataset, state["other_parameter"])
        weights, ids = dict(state["state_dict"]), model.raw_ids
        weights |= {
            name: rows_by_token(weights[name], state["ids"][of], ids[of])
            for name, of in cls.rows_by_id.items()
            if name in weights
        }
        load_state(
            model, {**weights, **{name: getattr(model, name).clone() for name in cls.tables}}
        )
        return model

    # --- settings -------------------------------------------------------------------------------------------------------------------

    @classmethod
    def reads_text(cls, config) -> bool:
        """Whether the model reads sentence embeddings itself, besides what the tokenizer does."""
        return False

    @classmethod
    def check_config(cls, values: dict) -> None:
        """Refuse combinations of settings that cannot work, before anything is trained; a method adds its own."""
        if values.get("candidate_file") is not None:
            raise ConfigError(
                "candidate_file restricts a search over codes; this method has none. Leave it out, or use recommend(candidates=...)."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        return {"item text": ", ".join(config["item_text_fields"] or ["none"])}


def _above(name: str) -> list[str]:
    """Paths of the modules that hold ``a.b.c``: ``a`` and ``a.b``."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
