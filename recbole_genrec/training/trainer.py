"""RecBole's training loop with a schedule, mixed precision, safe checkpoints and an exact resume.

Nothing about methods stands here.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from recbole.trainer import Trainer
from recbole.utils import get_gpu_usage, get_trainer, set_color
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from recbole_genrec.data.ids import raw_ids
from recbole_genrec.errors import ArtefactError, GenRecError, explained, explained_memory
from recbole_genrec.runtime import interrupts, processes
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state, save_checkpoint
from recbole_genrec.training.accounting import clocks
from recbole_genrec.training.collector import Silent, make_collector, scratch_folder, storable
from recbole_genrec.training.replicas import Replicas
from recbole_genrec.training.resume import ResumePoints

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLER_BATCH = (
    "Use a smaller --train_batch_size, and a larger --gradient_accumulation_steps to make up for "
    "it."
)
CLIP = "--clip_grad_norm=\"{'max_norm': 1.0}\""
SMALLER_SEARCH = "Use a smaller --{}eval_batch_size or fewer --topk."


class GenRecTrainer(ResumePoints, Trainer):
    """RecBole's ``Trainer`` for our models and for RecBole's own.

    What it adds to RecBole's:

    * parameter groups (``model.optimiser_groups()``), a learning-rate schedule with warm-up,
      gradient accumulation, bf16 and fp16;
    * ``model.on_epoch_start(epoch)`` before each epoch, and ``model.after_fit(validate)``;
    * checkpoints without pickled objects, and a resume that continues bit for bit;
    * metrics as plain floats;
    * several processes that give the numbers of one (:mod:`recbole_genrec.runtime.processes`).
    """

    ids: dict[str, list[str]] | None = None  # raw ids of the training data, for checkpoints

    def __init__(self, config, model):
        self.settings = config.settings
        self.writes = processes.rank() == 0
        self.replicas = Replicas(model, bool(self.settings.fsdp))
        with nullcontext() if self.writes else scratch_folder():
            super().__init__(config, model)
        if not self.writes:
            self.tensorboard.close()
            self.tensorboard = Silent()
        self.eval_collector = make_collector(config)
        folder, self.run_name = Path(self.settings.checkpoint_dir), config.run_name()
        self.saved_model_file = str(folder / f"{self.run_name}.pth")
        self.resume_file = folder / f"{self.run_name}.resume.pth"
        self.accumulation = self.settings.gradient_accumulation_steps or 1
        self.dtype = DTYPES[self.settings.precision or "fp32"]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.scheduler = None
        self.seconds = {"train": 0.0, "valid": 0.0}
        self.cpu_seconds = {"train": 0.0, "valid": 0.0}
        self.history: list[dict] = []

    # --- optimiser --------------------------------------------------------------------------------

    def _build_optimizer(self, **kwargs):
        if "params" not in kwargs:
            groups = getattr(self.model, "optimiser_groups", None)
            trainable = [p for p in self.model.parameters() if p.requires_grad]
            # a model without parameters (Pop has a dummy one) still needs an optimiser object
            kwargs["params"] = groups() if groups else trainable or list(self.model.parameters())
        return super()._build_optimizer(**kwargs)

    def _build_scheduler(self, batches: int):
        name = self.settings.lr_scheduler or "constant"
        if name == "constant":
            return None
        from transformers import get_scheduler

        steps = max(1, -(-batches // self.accumulation) * self.epochs)
        warmup = int(steps * (self.settings.warmup_ratio or 0.0))
        return get_scheduler(
            name, self.optimizer, num_warmup_steps=warmup, num_training_steps=steps
        )

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        train_data,
        valid_data=None,
        verbose=True,
        saved=True,
        show_progress=False,
        callback_fn=None,
    ):
        self.scheduler = self._build_scheduler(len(train_data))
        processes.own_stream(self.settings.seed)
        if self.settings.resume:
            if self.resume_file.is_file():
                self._restore(train_data)
            else:
                self.logger.info(
                    f"Nothing to resume: there is no {self.resume_file}. Starting from the "
                    "beginning."
                )
        self._saved, self.ids = saved, raw_ids(train_data._dataset)
        return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        self.model.train()
        started = clocks()
        with explained_memory(SMALLER_BATCH):
            done, total = (
                self._continued(epoch_idx) if self._inside else self._started(train_data, epoch_idx)
            )
            means = self._train_batches(
                train_data,
                epoch_idx,
                loss_func or self.model.calculate_loss,
                show_progress,
                done,
                total,
            )
        self._count("train", started)
        self.history.append({"epoch": epoch_idx, "loss": means})
        return tuple(means) if len(means) > 1 else means[0]

    def _train_batches(
        self,
        train_data,
        epoch: int,
        loss_func,
        show_progress: bool,
        done: int,
        total: list[float] | None,
    ) -> list[float]:
        """Train on the batches of an epoch.

        Args:
            train_data: loader of the training split.
            epoch: number of the epoch.
            loss_func: gives the loss of a batch, or its parts.
            show_progress: whether to show a bar.
            done: how many batches an interrupted run has done already.
            total: sums of the losses of these batches.

        Returns:
            The mean losses of the epoch, one a part.
        """
        batches, count = train_data, len(train_data)
        if show_progress:
            batches = tqdm(
                train_data, total=count, ncols=100, desc=set_color(f"Train {epoch:>5}", "pink")
            )
        self.optimizer.zero_grad()
        with interrupts.safe_points() if self._saved else nullcontext():
            for index, interaction in enumerate(batches):
                if index < done:
                    if index + 1 == done:
                        self._set_random_states(self._random)
                    continue
                step = (index + 1) % self.accumulation == 0 or index + 1 == count
                own = processes.own_part(interaction).to(self.device)
                with self.replicas.accumulating(more=not step):
                    parts = self.replicas(lambda own=own: self._parts(loss_func, own))
                    loss = sum(parts)
                    self._check_finite(loss, epoch, index)
                    self.scaler.scale(loss / self.accumulation).backward()
                values = [float(part.detach()) for part in parts]
                total = (
                    values if total is None else [a + b for a, b in zip(total, values, strict=True)]
                )
                if step:
                    self._optimiser_step()
                    if self.scheduler is not None:
                        self.scheduler.step()
                    if self._saved:
                        self._safe_point(epoch, index + 1, total)
                if self.gpu_available and show_progress:
                    batches.set_postfix_str(
                        set_color("GPU RAM: " + get_gpu_usage(self.device), "yellow")
                    )
        return processes.mean([value / max(count, 1) for value in total])

    def _parts(self, loss_func, own) -> tuple[torch.Tensor, ...]:
        """The parts of the loss on this process's rows; RecBole's models average over the rows."""
        with self._autocast():
            losses = loss_func(own)
        parts = losses if isinstance(losses, tuple) else (losses,)
        if getattr(self.model, "generative", False):
            return parts
        return tuple(processes.balanced(part, len(own)) for part in parts)

    def _epoch_start(self, epoch: int) -> None:
        """Let the model refresh its codes or run another task.

        Losses that it yields are optimised one at a time, at the present rate of the schedule.
        """
        if not hasattr(self.model, "on_epoch_start"):
            return
        with self.replicas.whole():  # a refresh of the codes searches with the whole model
            losses = iter(self.model.on_epoch_start(epoch))
        values = []
        while True:
            with self._autocast():
                loss = self.replicas(lambda: next(losses, None))
            if loss is None:
                break
            self._check_finite(loss, epoch, len(values))
            self.scaler.scale(loss).backward()
            self._optimiser_step()
            values.append(float(loss.detach()))
        if values:
            (mean,) = processes.mean([sum(values) / len(values)])
            self.logger.info(f"epoch {epoch}: mean loss of the alternating task {mean:.4f}")

    def _autocast(self):
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def _optimiser_step(self) -> None:
        self.scaler.unscale_(self.optimizer)  # so that clipping sees true gradients
        if self.clip_grad_norm:
            clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _check_finite(self, loss, epoch: int, batch: int) -> None:
        if not torch.isfinite(loss):
            rate = self.optimizer.param_groups[0]["lr"]
            raise GenRecError(
                f"The training loss is {float(loss.detach())} in epoch {epoch}, batch {batch}, at "
                f"learning rate {rate:g}. Try a lower --learning_rate, {CLIP}, or --precision=fp32."
            )

    # --- evaluation -------------------------------------------------------------------------------

    def _valid_epoch(self, valid_data, show_progress=False):
        started = clocks()
        score, result = super()._valid_epoch(valid_data, show_progress)
        self._count("valid", started)
        self.history[-1]["valid"] = result
        return float(score), result

    def _count(self, stage: str, started: tuple[float, float]) -> None:
        for total, before, now in zip(
            (self.seconds, self.cpu_seconds), started, clocks(), strict=True
        ):
            total[stage] += now - before

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As RecBole's, from a checkpoint that cannot run code; metrics are plain floats."""
        if not eval_data:
            return None
        if load_best_model:
            self.load_best(model_file)
        if processes.size() > 1:
            eval_data.batch_sampler.sampler = processes.own_block(eval_data.sample_size)
        if hasattr(self.model, "reset_search_log"):
            self.model.reset_search_log()
        search = "beam_width, --search_batch_size, --" if hasattr(self.model, "search") else ""
        own = getattr(
            self.model, "generative", False
        )  # scores of other models may come in bf16, in which many items tie
        with (
            self._autocast() if own else nullcontext(),
            self.replicas.whole(),
            explained_memory(SMALLER_SEARCH.format(search)),
        ):
            result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        if hasattr(self.model, "search_log"):
            self.model.search_log.add_up(processes.summed)
            self.logger.info(str(self.model.search_log))
        return {name: float(value) for name, value in result.items()}

    def _full_sort_batch_eval(self, batched_data):
        found = super()._full_sort_batch_eval(batched_data)
        if torch.isnan(found[1]).any():
            raise GenRecError(
                "The model gives scores that are not numbers (NaN), so its lists would be "
                "arbitrary: its weights went wrong in the last epochs. Train again with a lower "
                f"--learning_rate, {CLIP}, or --precision=fp32."
            )
        return found

    def after_fit(self, valid_data, saved: bool) -> None:
        """Let the model decide on the validation split what its training leaves open.

        Calls ``model.after_fit(validate)`` with the weights of the best epoch, and writes them
        again with what the model has decided. A run that is killed here comes here again when it
        resumes, because its last epoch is done again.

        Args:
            valid_data: loader of the validation split.
            saved: whether the training wrote checkpoints; without them the weights of the last
                epoch count.
        """
        progress = bool(self.settings.show_progress)

        def validate() -> dict[str, float]:
            return self.evaluate(valid_data, load_best_model=False, show_progress=progress)

        if saved:
            self.load_best()
        self.model.after_fit(validate)
        if saved:
            self._replace_weights_of_checkpoint()

    def _replace_weights_of_checkpoint(self) -> None:
        weights = self._weights()
        if not self.writes:
            return
        checkpoint = load_checkpoint(self.saved_model_file)
        checkpoint["state_dict"] = weights
        checkpoint["other_parameter"] = storable(self.model.other_parameter())
        save_checkpoint(self.saved_model_file, checkpoint)

    # --- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        state = self._weights()
        if not self.writes:
            return
        save_checkpoint(
            path,
            {
                "run": self.run_name,
                "config": self.config.plain(),
                "epoch": epoch,
                "best_valid_score": float(self.best_valid_score),
                "state_dict": state,
                "ids": self.ids,
                "other_parameter": storable(self.model.other_parameter()),
            },
        )
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def _weights(self) -> dict[str, torch.Tensor]:
        return self.replicas.gathered(
            getattr(self.model, "checkpoint_state", self.model.state_dict)()
        )

    def load_best(self, model_file: str | None = None) -> None:
        """Load the weights of the best epoch (or of ``model_file``) into the model."""
        processes.wait_for_all()  # process 0 has written it
        file = model_file or self.saved_model_file
        checkpoint = load_checkpoint(file, self.device)
        with explained(f"The checkpoint {file}", "Train the model again."):
            if model_file is None and checkpoint["run"] != self.run_name:
                raise ArtefactError(
                    f"{file} belongs to {checkpoint['run']}, another run: it was renamed or "
                    "replaced. Train again."
                )
            load_state(self.model, self.replicas.weights(checkpoint["state_dict"]))
            self.model.load_other_parameter(
                checkpoint["other_parameter"]
            )  # LightGCN's cached embeddings, Pop's counts
            self.logger.info(f"Loaded the weights of epoch {checkpoint['epoch']} from {file}")


def get_trainer_class(model_class: type, name: str) -> type:
    """Our trainer; on top of RecBole's special one where a baseline has it (Pop, RecVAE, ...)."""
    from recbole.trainer import Trainer

    stock = get_trainer(model_class.type, name)
    if stock is Trainer:
        return GenRecTrainer
    # the special trainer's own loop comes first and calls ours through super()
    return type(f"GenRec{stock.__name__}", (stock, GenRecTrainer), {})
