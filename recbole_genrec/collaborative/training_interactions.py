"""Collaborative item vectors and item sequences, both from the training split alone.

The vectors are the item embeddings of RecBole's SASRec, as in LETTER (arXiv 2405.07314, section
3.1). Nothing held out reaches them: no gradient, no choice of the epoch, and neither the numbering
nor the number of items (all our choice, unpublished).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader

from recbole_genrec.collaborative.external import external_file
from recbole_genrec.collaborative.lightgcn_vectors import TrainingGraph
from recbole_genrec.collaborative.training import settings_that_count, stored_vectors, trained_model
from recbole_genrec.collaborative.training_split import (
    only_trained_items,
    read_sequences,
    training_split,
)
from recbole_genrec.data.rows.training_rows import (
    TargetLoader,
    check_growing,
    length_of_cut_histories,
)
from recbole_genrec.data.vectors.vector_files import files_of_vectors, read_vectors
from recbole_genrec.runtime.randomness import kept_randomness
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys
from recbole_genrec.storage.artefacts import check_tensors
from recbole_genrec.storage.digests import digest, file_digest

BATCH_TARGETS = 512
"""Targets of a batch of SASRec, whatever its rows (our choice)."""


class TrainingInteractions:
    """What a tokenizer may learn from interactions.

    Sequences and collaborative vectors of the training split of ``config``.

    The vectors are those of SASRec (:meth:`vectors`) or of LightGCN (:meth:`graph`).

    The split is made anew from the settings, with all rows, whatever ``train_rows`` the run uses.
    Everything is keyed by raw ids. Nothing is read before it is asked for. Random states and log
    handlers of the caller stay as they are.

    Args:
        config: the run's ``GenRecConfig``; reads the keys ``cf_*`` and ``graph_*``,
            ``allow_external_cf`` and ``cache_dir``.
        log: takes one line of text.

    Raises:
        ConfigError: ``cf_file`` is given without ``allow_external_cf: true``.
    """

    def __init__(self, config, log: Callable[[str], None] = print):
        self.settings = CollaborativeKeys.of(config)
        self.file = external_file(config, "cf_file")
        self.run_config = config
        self.log = log

    @cached_property
    def config(self):
        """Settings of the model that gives the vectors."""
        return self._sasrec()

    def _sasrec(self, **values: object):
        settings = self.settings
        return sasrec_config(
            self.run_config, settings.cf_dim, settings.cf_epochs, settings.cf_rows, **values
        )

    @cached_property
    def sequences(self) -> dict[str, list[str]]:
        """Raw item ids of every user's training interactions, oldest first.

        Users sorted by raw id.
        """
        return read_sequences(self.run_config)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the training sequences and of all that the vectors depend on besides."""
        if self.file:
            files = files_of_vectors(self.file)
            return digest(self.sequences, *[file_digest(file) for file in files])
        return digest(self.sequences, settings_that_count(self.config))

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """``(raw item ids, float32 [n, d])`` of the items that occur in the training split.

        Stored, or trained now and stored.

        With ``cf_file``: the items and vectors of that file.

        Raises:
            ArtefactError: the stored vectors are damaged.
            DataError: the dataset or ``cf_file`` cannot be used.
        """
        if self.file:
            self.log(
                f"WARNING: collaborative vectors come from {self.file}; whether they saw held-out "
                "interactions is unchecked."
            )
            return read_vectors(self.file)
        folder = Path(self.run_config.settings.cache_dir) / f"cf-{self.fingerprint}"
        tensors, meta = stored_vectors(folder, self.fingerprint, self._train, self.log)
        check_tensors(folder, tensors, {"vectors": (len(meta["tokens"]), None)})
        return meta["tokens"], tensors["vectors"].numpy()

    @cached_property
    def _graph(self) -> TrainingGraph:
        return TrainingGraph(self.run_config, self.sequences, self.log)

    @property
    def graph_fingerprint(self) -> str:
        """Digest of the training edges and of all that :meth:`graph` depends on besides."""
        return self._graph.fingerprint

    def graph(self) -> tuple[list[str], np.ndarray]:
        """``(raw item ids, float32 [n, d])``.

        The propagated vectors of LightGCN on the training split.

        Raises:
            ArtefactError: the stored vectors are damaged.
            DataError: the dataset or the files of ``graph_user_file`` and ``graph_item_file``
                cannot be used.
        """
        graph = self._graph.load()
        return graph.item_tokens, graph.item_layers.mean(0).numpy()

    def _train(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        config = self.config
        with kept_randomness():
            data = only_trained_items(training_split(config))
            cut = length_of_cut_histories(config, data)
            if config.settings.train_rows == "windows" and cut is not None:
                config = self._sasrec(MAX_ITEM_LIST_LENGTH=cut)
                data = only_trained_items(training_split(config))
            model = trained_model(config, data, sasrec_loader(config, data), self.log)
        vectors = model.item_embedding.weight[1:].detach().cpu()
        tokens = data.field2id_token[data.iid_field][1:].tolist()
        settings = self.settings.model_dump(include={"cf_dim", "cf_epochs", "cf_rows"})
        return {"vectors": vectors}, {"tokens": tokens, **settings}


def sasrec_config(config, dim: int, epochs: int, rows: str, **values: object):
    """Settings of RecBole's SASRec on the data, split, seed and device of ``config``.

    What the vectors depend on stands here, so that the section of a dataset for the baseline
    SASRec does not change them.

    Args:
        config: the run's ``GenRecConfig``.
        dim: size of the vectors.
        epochs: epochs of the training; nothing is validated.
        rows: ``windows`` or ``all``; an epoch of both has the same targets and as many steps.
        **values: further settings.
    """
    sasrec = config.derived(
        "SASRec",
        hidden_size=dim,
        inner_size=4 * dim,
        n_layers=2,
        n_heads=2 if dim % 2 == 0 else 1,
        hidden_dropout_prob=0.5,
        attn_dropout_prob=0.5,
        loss_type="CE",
        epochs=epochs,
        learner="adam",
        learning_rate=1e-3,
        lr_scheduler="constant",
        warmup_ratio=0.0,
        ema_decay=0.0,
        weight_decay=0.0,
        batch_targets=0,
        stopping_step=10,
        eval_step=1,
        valid_users=0,
        train_rows=rows,
        **values,
    )
    # not among the values above, beside which each of the two would warn of the other
    sasrec["train_batch_size"] = BATCH_TARGETS
    if rows == "windows":
        sasrec["batch_targets"] = max(BATCH_TARGETS, sasrec.settings.MAX_ITEM_LIST_LENGTH)
    return sasrec


def sasrec_loader(config, data) -> TrainDataLoader:
    """Batches of the training split for the SASRec of :func:`sasrec_config`.

    Args:
        config: its settings.
        data: all rows of the split, those of a user together and the shortest prefix first.

    Raises:
        DataError: ``windows``, and the rows of a user are not the prefixes of one history.
    """
    rows = config.settings.train_rows
    if rows == "all":
        return TrainDataLoader(config, data, None, shuffle=True)
    check_growing(config, data, "cf_rows")
    return TargetLoader(config, data, None, shuffle=True, rows=rows)
