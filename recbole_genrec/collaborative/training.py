"""RecBole's models, trained on the training split for their vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole.data.dataloader import TrainDataLoader
from recbole.utils import init_seed
from tqdm.auto import tqdm

from recbole_genrec.errors import ArtefactError
from recbole_genrec.settings.classification import named_values, split_keys
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.storage.atomic import made_once, publish_folder
from recbole_genrec.training.trainer import GenRecTrainer


def settings_that_count(config) -> dict:
    """All settings that the vectors of a derived ``config`` depend on besides the interactions."""
    left_out = split_keys()  # they act through the interactions
    values = named_values(config.declarations, config.plain(), switches=False)
    if values.get("train_rows") == "all":
        left_out = left_out | {"train_rows"}  # as vectors from before `cf_rows` were stored
    return {name: value for name, value in values.items() if name not in left_out}


class _Trainer(GenRecTrainer):
    """One progress bar over all epochs, or some twenty lines in the log.

    Keeps its curves out of the TensorBoard folder, which belongs to the run, and nothing but its
    resume file.
    """

    def train(self, rows, label: str, show_progress: bool) -> None:
        """Train on ``rows`` without validation; a training that was killed continues."""
        self.config["resume"] = self.resume_points.file.is_file()
        with tqdm(total=self.epochs, desc=label, disable=not show_progress, ncols=100) as self.bar:
            self.fit(rows, verbose=False)
        self.tensorboard.close()
        self.resume_points.file.unlink(missing_ok=True)

    def _save_checkpoint(self, *_, **__):
        pass

    def _train_epoch(self, *args, **options):
        loss = super()._train_epoch(*args, **options)
        shown = f"{self.history[-1]['loss'][0]:.4f}"
        self.bar.set_postfix(loss=shown)
        self.bar.update()
        if self.bar.disable and len(self.history) % -(-self.epochs // 20) == 0:
            self.logger.info(
                f"Collaborative vectors: epoch {len(self.history)} of {self.epochs}, loss {shown}"
            )
        return loss

    def _add_train_loss_to_tensorboard(self, *_, **__):
        pass

    def _add_hparam_to_tensorboard(self, *_):
        pass


def trained_model(config, data, rows: TrainDataLoader, log: Callable[[str], None]) -> Any:
    """The model of ``config``, trained from its seed on ``rows`` of ``data`` for all its epochs."""
    size = f"{len(data.inter_feat)} rows, {data.item_num - 1} items"
    settings = config.settings
    log(
        f"Collaborative vectors: training {settings.model}, {settings.epochs} epochs on the "
        f"training split, {size}."
    )
    init_seed(settings.seed, settings.reproducibility)
    model = config.build_model(data).to(settings.device)
    trainer = _Trainer(config, model)
    trainer.train(rows, f"{settings.model} vectors", settings.show_progress)
    first, last = (trainer.history[epoch]["loss"][0] for epoch in (0, -1))
    log(f"Collaborative vectors: loss {first:.4f} in the first epoch, {last:.4f} in the last.")
    return model


def stored_vectors(
    folder: Path, key: str, make: Callable[[], tuple[dict, dict]], log: Callable[[str], None]
) -> tuple[dict, dict]:
    """Tensors and meta data that ``make()`` gives, kept in ``folder`` under ``key``.

    Made by one process at a time.

    Args:
        folder: where they are kept.
        key: digest of all that they depend on.
        make: computes them where they are not there; tensors by name, and JSON-like values.
        log: takes one line of text.

    Raises:
        ArtefactError: the folder is damaged, or belongs to another key.
    """
    with made_once(folder, log) as missing:
        if missing:
            tensors, meta = make()
            with publish_folder(folder) as temporary:
                save_artefact(temporary, tensors, {"fingerprint": key, **meta})
            log(f"Collaborative vectors stored in {folder}.")
    if not missing:
        log(f"Collaborative vectors not trained again: reused from {folder}.")
    tensors, meta = load_artefact(folder)
    if meta.pop("fingerprint", None) != key:
        raise ArtefactError(
            f"{folder} was renamed or replaced: its vectors belong to other data or settings. "
            "Delete the folder."
        )
    return tensors, meta
