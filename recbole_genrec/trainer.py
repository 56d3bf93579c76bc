"""RecBole's training loop with a schedule, mixed precision, safe checkpoints and an exact resume. Nothing about methods."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import torch
from recbole.trainer import Trainer
from recbole.utils import get_gpu_usage, set_color
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from recbole_genrec import distributed
from recbole_genrec.checkpoints import load_checkpoint, load_state, save_checkpoint
from recbole_genrec.compat import Silent, make_collector, rng_state, scratch_folder, set_rng_state, storable
from recbole_genrec.errors import GenRecError
from recbole_genrec.replicas import Replicas

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds so far, of this process with all its threads."""
    return time.perf_counter(), time.process_time()


class GenRecTrainer(Trainer):
    """RecBole's ``Trainer`` for our models and for RecBole's own.

    Differences: parameter groups (``model.parameter_groups()``), learning-rate schedule and warm-up, gradient accumulation, bf16/fp16,
    ``model.on_epoch_start(epoch)`` before each epoch, checkpoints without pickled objects, a resume that continues bit for bit,
    metrics as plain floats, and several processes that give the numbers of one (:mod:`recbole_genrec.distributed`).
    """

    def __init__(self, config, model):
        self.writes = distributed.rank() == 0
        self.replicas = Replicas(model, bool(config["fsdp"]))
        with contextlib.nullcontext() if self.writes else scratch_folder():
            super().__init__(config, model)
        if not self.writes:
            self.tensorboard.close()
            self.tensorboard = Silent()
        self.eval_collector = make_collector(config)
        folder = Path(config["checkpoint_dir"])
        self.saved_model_file = str(folder / f"{config.run_name()}.pth")
        self.resume_file = folder / f"{config.run_name()}.resume.pth"
        self.accumulation = config["gradient_accumulation_steps"] or 1
        self.dtype = DTYPES[config["precision"] or "fp32"]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16 and self.device.type == "cuda")
        self.scheduler = None
        self.seconds = {"train": 0.0, "valid": 0.0}
        self.cpu_seconds = {"train": 0.0, "valid": 0.0}
        self.history: list[dict] = []

    # --- optimiser ------------------------------------------------------------------------------------------------------------------

    def _build_optimizer(self, **kwargs):
        if "params" not in kwargs:
            groups = getattr(self.model, "parameter_groups", None)
            trainable = [p for p in self.model.parameters() if p.requires_grad]
            # a model without parameters (Pop has a dummy one) still needs an optimiser object
            kwargs["params"] = groups() if groups else trainable or list(self.model.parameters())
        return super()._build_optimizer(**kwargs)

    def _build_scheduler(self, batches: int):
        name = self.config["lr_scheduler"] or "constant"
        if name == "constant":
            return None
        from transformers import get_scheduler

        steps = max(1, -(-batches // self.accumulation) * self.epochs)
        warmup = int(steps * (self.config["warmup_ratio"] or 0.0))
        return get_scheduler(name, self.optimizer, num_warmup_steps=warmup, num_training_steps=steps)

    # --- training -------------------------------------------------------------------------------------------------------------------

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, show_progress=False, callback_fn=None):
        self.scheduler = self._build_scheduler(len(train_data))
        if self.config["resume"]:
            if self.resume_file.is_file():
                self._restore(train_data)
            else:
                self.logger.info(f"Nothing to resume: there is no {self.resume_file}. Starting from the beginning.")
        self._saved = saved
        return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if self._saved:
            self._save_resume_point(train_data, epoch_idx)
        self.model.train()
        started = clocks()
        distributed.vary_dropout(self.config["seed"], epoch_idx)
        self._epoch_start(epoch_idx)
        loss_func = loss_func or self.model.calculate_loss
        batches = train_data
        if show_progress:
            batches = tqdm(train_data, total=len(train_data), ncols=100, desc=set_color(f"Train {epoch_idx:>5}", "pink"))
        total, count = None, len(train_data)
        self.optimizer.zero_grad()
        for index, interaction in enumerate(batches):
            step = (index + 1) % self.accumulation == 0 or index + 1 == count
            own = distributed.own_part(interaction).to(self.device)
            with self.replicas.accumulating(more=not step):
                parts = self.replicas(lambda own=own: self._parts(loss_func, own))
                loss = sum(parts)
                self._check_finite(loss, epoch_idx, index)
                self.scaler.scale(loss / self.accumulation).backward()
            if step:
                self._optimiser_step()
                if self.scheduler is not None:
                    self.scheduler.step()
            values = [float(part.detach()) for part in parts]
            total = values if total is None else [a + b for a, b in zip(total, values, strict=True)]
            if self.gpu_available and show_progress:
                batches.set_postfix_str(set_color("GPU RAM: " + get_gpu_usage(self.device), "yellow"))
        self._count("train", started)
        means = distributed.mean([value / max(count, 1) for value in total])
        self.history.append({"epoch": epoch_idx, "loss": means})
        return tuple(means) if len(means) > 1 else means[0]

    def _parts(self, loss_func, own) -> tuple[torch.Tensor, ...]:
        """The parts of the loss on this process's rows; RecBole's models average theirs over the rows."""
        with self._autocast():
            losses = loss_func(own)
        parts = losses if isinstance(losses, tuple) else (losses,)
        if getattr(self.model, "generative", False):
            return parts
        return tuple(distributed.balanced(part, len(own)) for part in parts)

    def _epoch_start(self, epoch: int) -> None:
        """Let the model refresh its codes or run another task; losses that it yields are optimised one at a time, at the rate of the
        schedule's present step."""
        if not hasattr(self.model, "on_epoch_start"):
            return
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
            (mean,) = distributed.mean([sum(values) / len(values)])
            self.logger.info(f"epoch {epoch}: mean loss of the alternating task {mean:.4f}")

    def _autocast(self):
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

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
                f"The training loss is {float(loss.detach())} in epoch {epoch}, batch {batch}, at learning rate {rate:g}. Try a lower "
                "--learning_rate, --clip_grad_norm=\"{'max_norm': 1.0}\", or --precision=fp32. The last good epoch can be continued "
                "with --resume."
            )

    # --- evaluation -----------------------------------------------------------------------------------------------------------------

    def _valid_epoch(self, valid_data, show_progress=False):
        started = clocks()
        score, result = super()._valid_epoch(valid_data, show_progress)
        self._count("valid", started)
        self.history[-1]["valid"] = result
        return float(score), result

    def _count(self, stage: str, started: tuple[float, float]) -> None:
        for total, before, now in zip((self.seconds, self.cpu_seconds), started, clocks(), strict=True):
            total[stage] += now - before

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As RecBole's, from a checkpoint that cannot run code; metrics are plain floats."""
        if not eval_data:
            return None
        if load_best_model:
            self.load_best(model_file)
        if distributed.size() > 1:
            eval_data.batch_sampler.sampler = distributed.own_block(eval_data.sample_size)
        if hasattr(self.model, "reset_search_log"):
            self.model.reset_search_log()
        with self._autocast(), self.replicas.whole():
            result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        if hasattr(self.model, "search_log"):
            self.model.search_log.add_up(distributed.summed)
        return {name: float(value) for name, value in result.items()}

    # --- checkpoints ----------------------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        state = self._weights()
        if not self.writes:
            return
        save_checkpoint(
            path,
            {
                "config": self.config.plain(),
                "epoch": epoch,
                "best_valid_score": float(self.best_valid_score),
                "state_dict": state,
                "other_parameter": storable(self.model.other_parameter()),
            },
        )
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def _weights(self) -> dict[str, torch.Tensor]:
        return self.replicas.gathered(getattr(self.model, "checkpoint_state", self.model.state_dict)())

    def load_best(self, model_file: str | None = None) -> None:
        """Load the weights of the best epoch (or of ``model_file``) into the model."""
        distributed.wait_for_all()  # process 0 has written it
        checkpoint = load_checkpoint(model_file or self.saved_model_file, self.device)
        load_state(self.model, self.replicas.weights(checkpoint["state_dict"]))
        self.model.load_other_parameter(checkpoint["other_parameter"])  # LightGCN's cached embeddings, Pop's counts
        self.logger.info(f"Loaded the weights of epoch {checkpoint['epoch']} from {model_file or self.saved_model_file}")

    def _save_resume_point(self, train_data, epoch: int) -> None:
        """Everything that the rest of the run depends on, as it stands before ``epoch`` begins; the same in every process."""
        weights, optimiser = self._weights(), self.replicas.gathered(self.optimizer.state_dict())
        if not self.writes:
            return
        save_checkpoint(
            self.resume_file,
            {
                "config": self.config.plain(),
                "epoch": epoch,
                "cur_step": int(self.cur_step),
                "best_valid_score": float(self.best_valid_score),
                "best_valid_result": self.best_valid_result,
                "state_dict": weights,
                "optimizer": optimiser,
                "scheduler": self.scheduler.state_dict() if self.scheduler else None,
                "scaler": self.scaler.state_dict(),
                "rng": rng_state(),
                "loader": train_data.generator.get_state(),
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "history": self.history,
            },
        )

    def resume_checkpoint(self, resume_file):
        """RecBole's way to name the file to continue from; the state itself is restored in :meth:`fit`."""
        self.resume_file = Path(resume_file)
        self.config["resume"] = True

    def _restore(self, train_data) -> None:
        state = load_checkpoint(self.resume_file)
        load_state(self.model, self.replicas.weights(state["state_dict"]))
        self.optimizer.load_state_dict(self.replicas.optimiser_state(self.optimizer, state["optimizer"]))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        train_data.generator.set_state(state["loader"].cpu())
        self.start_epoch, self.cur_step = state["epoch"], state["cur_step"]
        self.best_valid_score, self.best_valid_result = state["best_valid_score"], state["best_valid_result"]
        self.seconds, self.cpu_seconds, self.history = state["seconds"], state["cpu_seconds"], state["history"]
        set_rng_state(state["rng"])
        self.logger.info(f"Resuming at epoch {self.start_epoch} from {self.resume_file}")
