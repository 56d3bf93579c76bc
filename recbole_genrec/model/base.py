"""What all generative methods share: code table, search, RecBole's interface. A method adds its loss and its next-code scores."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType, init_seed
from torch import Tensor

from recbole_genrec.checkpoints import load_state, save_checkpoint
from recbole_genrec.collaborative import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.decoding import (
    CodeDecoder,
    ItemTrie,
    SearchLog,
    SearchResult,
    beam_search,
    beam_search_auto,
    exact_search,
    grammar_search,
    path_scores,
)
from recbole_genrec.errors import ArtefactError
from recbole_genrec.keys import Rule
from recbole_genrec.model.serving import Serving
from recbole_genrec.tokenizer import ItemCodes, fit_or_load, make_tokenizer
from recbole_genrec.tokenizer.collision import parse_policies


class GenerativeRecommender(Serving, SequentialRecommender):
    """A sequential recommender that generates the codes of the next item.

    A method overrides two functions: :meth:`loss` and :meth:`item_logits`. Prompts and labels are built from item ids through
    ``self.codes`` at run time, so a changed table takes effect at the next call.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        codes: buffer int64 ``[n_items, L]``, row 0 = padding item. codes_version: buffer, rises with every change of the table.
    """

    generative = True
    input_type = InputType.POINTWISE
    uses_users = False  # whether loss and item_logits take ``user``, RecBole's user ids [B]
    config_rules: dict[str, Rule] = {}

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset)
        self.config, self.stored = config, stored
        self.logger = logging.getLogger()
        self.item_tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        self.tokenizer = make_tokenizer(config, config["seed"])
        self.content = ItemContent.from_dataset(dataset, config, needed=self.tokenizer.uses_text or self.reads_text(config))
        self.content.interactions = TrainingInteractions(config, self.logger.info)
        if stored:  # items that add_items made recommendable
            self.item_tokens += stored["added"]["tokens"]
            self.content.text += stored["added"]["texts"]
        self.n_dataset_items = dataset.item_num
        self.item_codes = self.pretrain_tokenizer(dataset)
        self.register_buffer("codes", self.item_codes.codes.clone())
        self.n_items = len(self.codes)
        self.register_buffer("codes_version", torch.zeros((), dtype=torch.long))
        self._trie: tuple[tuple, ItemTrie] | None = None
        self._epoch_hook_seen = None
        self.reset_search_log()
        init_seed(config["seed"], config["reproducibility"])  # the same start with a fitted and with a stored tokenizer

    # --- what a method writes -------------------------------------------------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Training loss of a batch; a tuple is summed and logged part by part.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0. length: ``[B]``. target: next item ids ``[B]``.
        """
        raise NotImplementedError

    def item_logits(self, history: Tensor, length: Tensor) -> CodeDecoder:
        """Next-code log-probabilities, level by level, as a decoder that the search steps through.

        Args:
            history: item ids ``[B, T]``, right-padded with 0. length: ``[B]``.
        """
        raise NotImplementedError

    # what self_improve asks for besides: the codes of an item from its own content, by the same weights

    prefix_width: int | None = None  # width of the vectors ``item_prefix(items) [B, 2, width]``; None = the method has a text prompt

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the first ``n_aligned`` codes of ``items [B]`` given their content, in the unit of :meth:`loss`."""
        raise NotImplementedError

    def item_decoder(self, items: Tensor) -> CodeDecoder:
        """Next-code log-probabilities (``score_type: level``) given the content of ``items [B]``, in the place of a history."""
        raise NotImplementedError

    def reserved_codes(self) -> Tensor:
        """Codes ``[R, L]`` that no item may take; none by default."""
        return self.codes[:0]

    @property
    def n_aligned(self) -> int:
        """Levels that :meth:`alignment_loss` covers: the learned ones; all of them with self_improve, which replaces all."""
        return self.item_codes.n_learned

    def parameter_groups(self) -> list[dict]:
        """Parameters for the optimiser; a group may carry its own ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    # --- tokenizer ------------------------------------------------------------------------------------------------------------------

    def pretrain_tokenizer(self, dataset) -> ItemCodes:
        """The item codes: from a checkpoint, from the artefact store, or by fitting the tokenizer now."""
        if self.stored is None:
            return fit_or_load(self.tokenizer, self.content, self.config["cache_dir"], self.config["seed"], self.logger.info)
        self.tokenizer.set_state(self.stored["tokenizer"]["tensors"], self.stored["tokenizer"]["meta"])
        codes = ItemCodes(**{**self.stored["item_codes"], "sizes": tuple(self.stored["item_codes"]["sizes"])})
        return codes.aligned(self.item_tokens)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Alphabet size of each code position."""
        return self.item_codes.sizes

    @property
    def trie(self) -> ItemTrie:
        """The item trie of the present code table; rebuilt when the table has changed."""
        key = (int(self.codes_version), self.codes._version, self.codes.data_ptr(), self.codes.device)
        if self._trie is None or self._trie[0] != key:
            codes, sizes = self.trie_table()
            self._trie = key, ItemTrie(codes.cpu(), sizes, budget_mb=self.config["trie_budget_mb"]).to(codes.device)
        return self._trie[1]

    def trie_table(self) -> tuple[Tensor, tuple[int, ...]]:
        """Codes ``[n_items, L]`` and alphabet sizes that the search follows."""
        return self.codes, self.level_sizes

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
        return self.loss(*self._history(interaction), interaction[self.POS_ITEM_ID], **self._user(interaction))

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
        """Scores of all items, float32 ``[B, n_items]``: reached items their log-likelihood, the others finite and below, padding -inf."""
        history, length = self._history(interaction)
        more = self._user(interaction)
        scores = torch.empty(len(length), len(self.codes), device=history.device)
        for rows in torch.argsort(length, stable=True).split(self.config["search_batch_size"]):
            own = {name: value[rows] for name, value in more.items()}
            scores[rows] = self.search(history[rows], length[rows], fill=True, **own).full
        scores[:, 0] = -torch.inf
        return scores

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Teacher-forced score ``[B]`` of the candidate item of each row, under the same ``score_type``."""
        history, length = self._history(interaction)
        items, more = interaction[self.ITEM_ID].unsqueeze(1), self._user(interaction)
        step = self.config["search_batch_size"]
        parts = []
        for rows in torch.arange(len(length), device=length.device).split(step):
            decoder = self.item_logits(history[rows], length[rows], **{name: value[rows] for name, value in more.items()})
            parts.append(path_scores(decoder, self.trie, items[rows], score_type=self.config["score_type"]))
        return torch.cat(parts).squeeze(1)

    # --- search ---------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def search(
        self, history: Tensor, length: Tensor, k: int | None = None, fill: bool = False, trie: ItemTrie | None = None, **more: Tensor
    ) -> SearchResult:
        """The best ``k`` items (default ``max(topk)``) per user by the configured search.

        Args:
            history: item ids ``[B, T]``, right-padded. length: ``[B]``. fill: also score all items. trie: candidates, default all items.
            more: ``user`` ids ``[B]``, for methods that use them.
        """
        config, trie = self.config, trie or self.trie
        decoder = self.item_logits(history[:, : int(length.max())], length, **more)
        wanted = k or max(config["topk"])
        options = {"score_type": config["score_type"], "fill": fill}
        width = config["beam_width"]
        if config["constraint"] != "trie":
            result = grammar_search(decoder, trie, max(width, wanted), **options)
        elif config["score_mode"] == "exact":
            result = exact_search(decoder, trie, wanted, **options)
        elif width == "auto":
            limits = {"beam_max": max(config["beam_max"], wanted), "uncertified": config["uncertified"]}
            result = beam_search_auto(decoder, trie, max(20, wanted), k=wanted, **limits, **options)
        else:
            result = beam_search(decoder, trie, max(width, wanted), **options)
        self.search_log.add(result)
        return result

    def reset_search_log(self) -> None:
        """Forget the search statistics; our trainer does so before each evaluation."""
        self.search_log = SearchLog(self.config["topk"])

    # --- checkpoints and reports ----------------------------------------------------------------------------------------------------

    @property
    def frozen_names(self) -> set[str]:
        """Weights that a checkpoint leaves out because the hub id or folder in ``backbone`` holds them."""
        if self.config["backbone"] == "scratch" or self.config["tuning"] != "lora":
            return set()
        return {name for name, parameter in self.named_parameters(remove_duplicate=False) if not parameter.requires_grad}

    def checkpoint_state(self) -> dict[str, Tensor]:
        """``state_dict()`` without :attr:`frozen_names`."""
        left_out = self.frozen_names
        return {name: tensor for name, tensor in self.state_dict().items() if name not in left_out}

    def other_parameter(self) -> dict:
        """RecBole's hook for what is no weight: the codes by raw item id, and the tokenizer (plain values and tensors)."""
        tensors, meta = self.tokenizer.state()
        codes = {**vars(self.item_codes), "codes": self.codes.cpu(), "sizes": list(self.level_sizes), "tokens": list(self.item_tokens)}
        first = self.n_dataset_items
        added = {"tokens": list(self.item_tokens[first:]), "texts": list(self.content.text[first:])}
        return {"item_codes": codes, "tokenizer": {"tensors": tensors, "meta": meta}, "added": added}

    def save(self, path: str) -> None:
        """Write a checkpoint of the model as it is, for example after ``add_items``; ``load_data_and_model`` reads it."""
        state = {"config": self.config.plain(), "epoch": -1, "state_dict": self.checkpoint_state()}
        save_checkpoint(path, {**state, "other_parameter": self.other_parameter()})

    def load_other_parameter(self, para) -> None:
        """Nothing to do: the constructor reads it (``stored``)."""

    @classmethod
    def from_checkpoint(cls, config, dataset, state: dict) -> GenerativeRecommender:
        """The model of a checkpoint: no stage runs; rows of the code table follow this dataset's item ids."""
        if not state.get("other_parameter"):
            raise ArtefactError("The checkpoint holds no item codes; give the .pth file that a finished epoch wrote.")
        model = cls(config, dataset, stored=state["other_parameter"])
        rows = model.codes.clone()
        load_state(model, {**state["state_dict"], "codes": rows})
        return model

    @classmethod
    def reads_text(cls, config) -> bool:
        """Whether the generator reads sentence embeddings itself, besides what the tokenizer does."""
        return False

    @classmethod
    def check_config(cls, values: dict) -> None:
        """Refuse combinations of settings that cannot work, before anything is trained; a method adds its own."""
        if "collision" in values:  # stored codes have none
            parse_policies(values["collision"])

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        return {
            "tokenizer": f"{config['tokenizer']}, sizes {config['codebook_sizes']}, collision {config['collision']}",
            "item text": ", ".join(config["item_text_fields"] or ["none"]),
            **({"text encoder": config["text_encoder"]} if config["tokenizer_input"] == "text" or cls.reads_text(config) else {}),
            "search": ", ".join(f"{key} {config[key]}" for key in ("score_mode", "beam_width", "score_type", "constraint")),
        }

    def report(self) -> dict:
        """Tokenizer and search statistics for the result file."""
        search = {key: self.config[key] for key in ("beam_width", "score_type", "score_mode", "constraint")}
        return {
            "tokenizer": {**replace(self.item_codes, codes=self.codes.cpu()).stats(), **getattr(self.tokenizer, "quality", {})},
            "search": {**search, **self.search_log.shares()},
        }
