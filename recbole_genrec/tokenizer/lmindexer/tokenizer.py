"""LMIndexer's tokenizer (arXiv 2310.07815): a language model learns to name items without labels.

====================================  ==========================================================
paper                                 here
====================================  ==========================================================
quantiser (3.2)                       ``quantiser.py``: ``quantise``
reconstructor (3.2)                   ``network.py``: ``IndexerNetwork.restore``
losses (3.3)                          ``losses.py``
warm-up, no-code and joint training   ``stages.py``
progressive training, a position      :meth:`LMIndexerTokenizer.learn_position`
after another (3.3)
what the ids say about the texts      ``inspection.py``
unique index of equal ids             ``tokenizer/collision.py``: ``add_extra_token``
====================================  ==========================================================
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from recbole_genrec.backbone import (
    EncoderDecoderBackbone,
    PretrainedBackbone,
    QueryStream,
    backbone_identity,
    load_encoder_decoder,
    serialised,
    tokenise_texts,
)
from recbole_genrec.backbone.encoder_decoder.build import load_text_encoder_decoder, narrow_settings
from recbole_genrec.errors import ConfigError
from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.storage.checkpoints import load_state
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import parse_policies
from recbole_genrec.tokenizer.lmindexer.inspection import (
    chosen_codes,
    greedy_codes,
    last_states,
    position_figures,
    restored,
    self_consistency,
)
from recbole_genrec.tokenizer.lmindexer.network import IndexerNetwork
from recbole_genrec.tokenizer.lmindexer.new_items import place_by_likelihood
from recbole_genrec.tokenizer.lmindexer.settings import LMIndexerTokenizerSettings
from recbole_genrec.tokenizer.lmindexer.stages import PositionStage, Texts, WarmUp
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, cluster

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


LARGE = 20_000
"""Items above which ``codebook_sizes: auto`` asks for more codes."""


class LMIndexerTokenizer(ItemTokenizer):
    """Item ids that a T5 learns by restoring the item texts.

    Args:
        config: a ``GenRecConfig``, or values by key.
        seed: of everything random.

    Attributes:
        sizes: alphabet size of each learned position; never more than there are different texts.
        vocabulary: the text vocabulary (JSON) of a language model from scratch.
        weights: of the language model and its codes, without the reconstructor.
    """

    name = "lmindexer"
    settings_class = LMIndexerTokenizerSettings
    settings: LMIndexerTokenizerSettings

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.sizes: tuple[int, ...] = ()
        self.vocabulary: str | None = None
        self.weights: dict[str, Tensor] = {}

    @property
    def revision(self) -> int:
        """1 of half precision, whose codes are chosen in float32 since then."""
        return int(self.settings.precision not in (None, "fp32"))

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """The settings that the codes depend on, and what the backbone's folder holds."""
        identity = backbone_identity(self.settings.indexer_backbone)
        return {**super().config_key(switches), "indexer_backbone": identity}

    @classmethod
    def auto_sizes(cls, *counts: int) -> list[int]:
        """Two of 128, of 512 above 20,000 items; the first count is that of the items."""
        return [512 if counts[0] > LARGE else 128] * 2

    # --- the fit ------------------------------------------------------------------------------

    def fit(self, content: ItemContent) -> ItemCodes:
        """Warm-up, then one position after another, then the index column.

        All in the order of the raw item ids: the numbering of the items changes no item's codes.
        """
        check_settings(self.settings)
        ordered = content.by_raw_id()
        texts = ordered.text[1:]
        n_different = len(set(texts))
        asked = self.sizes_asked(self.settings.codebook_sizes, len(texts))
        self.sizes = tuple(min(size, n_different) for size in asked)
        with seeded(self.seed):
            network = self._network(texts)
            _check_dropout(network)
            codes = self._train(network, self._tokenised(texts))
        left_out = network.frozen_names
        self.weights = {
            name: value.detach().cpu().clone()
            for name, value in network.state_dict().items()
            if name not in left_out
        }
        return ItemCodes.build(
            codes,
            self.sizes,
            ordered.tokens,
            **self.settings.collision_options,
        ).aligned(content.tokens)

    def _train(self, network: IndexerNetwork, texts: Texts) -> Tensor:
        """All stages; the codes ``[N, T]``."""
        loop = self.loop(self.settings.precision)
        first, later = self.settings.tok_max_len
        loop.train(WarmUp(network, texts.cut(first), self.settings, self.seed))

        texts = texts.cut(later)
        codes = torch.zeros(len(texts), 0, dtype=torch.long)
        figures = []
        for position in range(1, len(self.sizes) + 1):
            column, entry = self.learn_position(network, texts, codes)
            codes = torch.cat([codes, column.unsqueeze(1)], dim=1)  # [N, position]
            figures.append(entry)
            _log_position(position, entry)

        greedy = loop.compute("greedy", partial(greedy_codes, network, texts))
        self.quality = {
            "positions": figures,
            "self_consistency": self_consistency(greedy, codes),
        }
        return codes

    def learn_position(
        self, network: IndexerNetwork, texts: Texts, prefix: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The stages of one position.

        Args:
            network: after the stages of the earlier positions.
            texts: of all items.
            prefix: codes of the earlier positions ``[N, t - 1]``.

        Returns:
            The codes of the position ``[N]``, and what ``position_figures`` says of them.
        """
        settings, level = self.settings, prefix.shape[1]
        loop, position = self.loop(settings.precision), level + 1
        seed = self.seed + position
        stage = partial(PositionStage, network=network, texts=texts, prefix=prefix)
        stage = partial(stage, settings=settings, seed=seed)
        loop.train(stage(f"no-code {position}", quantised=False))

        centroids = partial(self._centroids, network, texts, prefix)
        network.set_codebook(level, loop.compute(f"k-means {position}", centroids))

        revive = None
        if settings.revive_dead:
            revive = partial(self._revive, network, texts, prefix)
        loop.train(stage(f"joint {position}", quantised=True, revive=revive))
        assign = partial(self._assign, network, texts, prefix)
        result = loop.compute(f"assign {position}", assign)
        return result["codes"], result["figures"]

    def _centroids(self, network: IndexerNetwork, texts: Texts, prefix: Tensor) -> Tensor:
        """Euclidean k-means of ``h_t`` over all items, ``[k, d]``."""
        states = last_states(network, texts, prefix)  # [N, d]
        check_rows(states)
        level = prefix.shape[1]
        with threadpool_limits(1):
            return cluster(
                states.double(),
                torch.ones(len(states)),
                self.sizes[level],
                self.seed + level,
                self.settings.kmeans_restarts,
                self.settings.kmeans_iterations,
            )

    def _assign(self, network: IndexerNetwork, texts: Texts, prefix: Tensor) -> dict[str, Any]:
        """The codes of a position in evaluation mode, and its figures."""
        level = prefix.shape[1]
        codes = chosen_codes(network, last_states(network, texts, prefix), level)
        rate = self.settings.mask_rate[min(level, 1)]
        figures = position_figures(network, texts, prefix, codes, rate, self.seed)
        return {"codes": codes, "figures": figures}

    @torch.no_grad()
    def _revive(self, network: IndexerNetwork, texts: Texts, prefix: Tensor) -> None:
        """Unused codes move to the states of the items that are restored worst (our choice)."""
        level = prefix.shape[1]
        states = last_states(network, texts, prefix)
        codes = chosen_codes(network, states, level)
        rate = self.settings.mask_rate[min(level, 1)]
        rows = torch.arange(len(texts))
        by_item = restored(network, texts, rows, prefix, codes, rate, self.seed).by_item
        used = torch.bincount(codes, minlength=self.sizes[level]) > 0  # [K]
        worst = by_item.topk(int((~used).sum())).indices
        codebook = network.codebook(level)
        codebook[~used.to(codebook.device)] = states[worst].to(codebook)
        network.train()

    # --- the network ----------------------------------------------------------------------------

    def _network(self, texts: Sequence[str] = (), trained: bool = True) -> IndexerNetwork:
        """The network.

        Args:
            texts: what a new text vocabulary is trained on.
            trained: with the stored weights, if there are any.

        Raises:
            ArtefactError: they are not those of this network.
        """
        settings = self.settings
        lm, self.text_tokenizer = load_text_encoder_decoder(
            settings.indexer_backbone,
            settings.indexer_config,
            texts,
            settings.indexer_vocab_size,
            self.vocabulary,
        )
        if settings.indexer_backbone == "scratch":
            self.vocabulary = serialised(self.text_tokenizer)
        weak = load_encoder_decoder("scratch", narrow_settings(lm.config, settings.recon_layers))
        network = IndexerNetwork(
            EncoderDecoderBackbone(lm, text=True),
            QueryStream(weak),
            self.sizes,
            self.text_tokenizer.eos_token_id,
            settings.tau,
        )
        if trained and self.weights:
            load_state(network, self.weights, f"The stored tokenizer {self.name}")
        return network.to(settings.chosen_device)

    def _tokenised(self, texts: Sequence[str]) -> Texts:
        """The texts as token ids, as long as any stage wants them."""
        longest = max(self.settings.tok_max_len)
        ids, valid = tokenise_texts(self.text_tokenizer, texts, longest)
        return Texts(ids, valid, self.settings.chosen_device)

    # --- for the recommender and for new items --------------------------------------------------

    def hand_over(self) -> PretrainedBackbone[EncoderDecoderBackbone]:
        """The language model that names items, with the rows of its codes."""
        network = self._finished()
        rows = network.codes.embedding.detach().cpu()
        return PretrainedBackbone(network.backbone.cpu(), self.text_tokenizer, code_rows=rows)

    def fresh_backbone(self) -> EncoderDecoderBackbone:
        """The language model as it was before the fit, with the same text vocabulary.

        Its weights are those of the folder or hub id, or random.
        """
        with seeded(self.seed):
            return self._network(trained=False).backbone.cpu()

    def encode(self, new: NewItems) -> Tensor:
        """Codes ``[n, T]`` of new item texts: the best code of each position in turn.

        Any prefix may arise, also one that no item has.
        """
        network = self._finished()
        return greedy_codes(network, self._later_texts(new))

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """As the base says; without a free index the likeliest prefix that has one."""
        network = self._finished()
        texts = self._later_texts(new)
        learned = greedy_codes(network, texts)
        if len(sizes) == len(self.sizes):
            return learned, 0
        return place_by_likelihood(network, texts, learned, existing, sizes)

    def _finished(self) -> IndexerNetwork:
        with torch.random.fork_rng():
            return self._network().eval()

    def _later_texts(self, new: NewItems) -> Texts:
        return self._tokenised(new.texts).cut(self.settings.tok_max_len[1])

    # --- the store --------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that :meth:`encode` and :meth:`hand_over` need."""
        meta = {
            "vocabulary": self.vocabulary,
            "sizes": list(self.sizes),
            "quality": self.quality,
        }
        return self.weights, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.vocabulary = meta["vocabulary"]
        self.sizes = tuple(meta["sizes"])
        self.quality = meta["quality"]
        self.weights = dict(tensors)


def check_settings(settings: LMIndexerTokenizerSettings) -> None:
    """Refuse settings that cannot work.

    Args:
        settings: of the tokenizer.

    Raises:
        ConfigError: names the key and what to do.
    """
    lengths = {"stage_epochs": 3, "stage_batch": 2, "mask_rate": 2, "tok_max_len": 2}
    for name, length in lengths.items():
        value = getattr(settings, name)
        if len(value) != length:
            raise ConfigError(
                f"{name} is {value}; it takes {length} values, as in "
                "properties/tokenizer/lmindexer.yaml."
            )
    policies = parse_policies(settings.collision)
    if policies not in (["extra_token"], ["none"]):
        raise ConfigError(
            f"collision is {policies}; tokenizer: lmindexer tells items with the same codes apart "
            "by an index column: write collision: [extra_token], or [none] to allow equal codes."
        )
    dropout = settings.indexer_config.get("dropout_rate", 0.1)
    if settings.indexer_backbone == "scratch" and dropout == 0:
        raise ConfigError(_NO_DROPOUT)


_NO_DROPOUT = (
    "The language model of tokenizer: lmindexer has no dropout, so that both views of an item "
    "would be the same. Set dropout_rate above 0, in indexer_config or in the folder's config.json."
)


def _check_dropout(network: IndexerNetwork) -> None:
    modules = network.backbone.modules()
    if not any(module.p for module in modules if isinstance(module, nn.Dropout)):
        raise ConfigError(_NO_DROPOUT)


def _log_position(position: int, figures: dict[str, float]) -> None:
    logging.getLogger().info(
        f"LMIndexer, position {position}: {figures['accuracy']:.1%} of the hidden text restored, "
        f"{figures['accuracy_exchanged']:.1%} with the codes of other items; perplexity "
        f"{figures['perplexity']:.1f} and {figures['perplexity_exchanged']:.1f}; codebook "
        f"perplexity {figures['codebook_perplexity']:.1f}; {figures['distinct_share']:.1%} "
        "distinct codes among items with the same prefix."
    )
