"""Curves and code usage for TensorBoard, Weights & Biases and MLflow.

RecBole sends the training losses and the validation of each epoch to the first two; this adds the
tokenizer, and MLflow.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_genrec.settings.shared_keys import SharedSettings

Curves = Mapping[str, Mapping[str, Sequence[float]]]
TEXT_LENGTH = 250
"""Longest value of a parameter that every version of MLflow takes."""


class Trackers:
    """The trackers that a run asks for.

    Args:
        trainer: RecBole's or ours; holds the TensorBoard writer and RecBole's W&B logger.
        settings: of the run.
        writes: whether this process writes.
    """

    def __init__(self, trainer: Any, settings: SharedSettings, writes: bool) -> None:
        self.trainer = trainer
        self.writes = writes
        self.wandb = trainer.wandblogger if settings.log_wandb and writes else None
        self.mlflow: MLflow | None = None
        if settings.log_mlflow and writes:
            self.mlflow = MLflow(settings.mlflow_experiment, vars(settings))
        self._epochs_sent = 0

    def tokenizer(self, curves: Curves, levels: Sequence[Mapping[str, float]]) -> None:
        """Send the losses of a tokenizer's fit and how its codes are used.

        Args:
            curves: losses by stage and loss.
            levels: ``size``, ``used`` and ``perplexity`` of each level of the codes.
        """
        if not self.writes:
            return
        for stage, losses in curves.items():
            for loss, values in losses.items():
                for step, value in enumerate(values):
                    self._scalar(f"tokenizer/{stage}/{loss}", value, step)
        for number, level in enumerate(levels, start=1):
            for figure in ("used", "perplexity"):
                self._scalar(f"codes/{figure}", level[figure], number)
                self._summary(f"codes/level {number} {figure}", level[figure])

    def epochs(self) -> None:
        """Send the epochs that MLflow does not have yet; RecBole sends them to the others."""
        if self.mlflow is None:
            return
        for epoch in self.trainer.history[self._epochs_sent :]:
            for part, loss in enumerate(epoch["loss"]):
                name = "train/loss" if len(epoch["loss"]) == 1 else f"train/loss part {part}"
                self.mlflow.metric(name, loss, epoch["epoch"])
            for name, value in (epoch.get("valid") or {}).items():
                self.mlflow.metric(f"valid/{name}", value, epoch["epoch"])
        self._epochs_sent = len(self.trainer.history)

    def test(self, metrics: Mapping[str, float]) -> None:
        """Send the metrics of the test and end the run of MLflow."""
        self.epochs()
        if self.mlflow is None:
            return
        for name, value in metrics.items():
            self.mlflow.metric(f"test/{name}", value)
        self.mlflow.end()

    def failed(self) -> None:
        """End the run of MLflow as one that failed."""
        if self.mlflow is not None:
            self.mlflow.end("FAILED")

    def _scalar(self, name: str, value: float, step: int) -> None:
        self.trainer.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            head, _, figure = name.partition("/")
            self.wandb.log_metrics({figure: value, f"{head}_step": step}, head=head)
        if self.mlflow is not None:
            self.mlflow.metric(name, value, step)

    def _summary(self, name: str, value: float) -> None:
        if self.wandb is not None:
            head, _, figure = name.partition("/")
            self.wandb.log_eval_metrics({figure: value}, head=head)


class MLflow:
    """One run of MLflow: the one that is active, or a new one.

    Args:
        experiment: its name, for a new run.
        parameters: settings, logged as parameters.
    """

    def __init__(self, experiment: str, parameters: Mapping[str, Any]) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._is_ours = self._mlflow.active_run() is None
        if self._is_ours:
            self._mlflow.set_experiment(experiment)
            self._mlflow.start_run()
        texts = {name: str(value)[:TEXT_LENGTH] for name, value in parameters.items()}
        self._mlflow.log_params(texts)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Log a value; ``@`` is no character of MLflow's names."""
        self._mlflow.log_metric(name.replace("@", "_at_"), float(value), step=step)

    def end(self, status: str = "FINISHED") -> None:
        """End the run, unless the program had started it.

        Args:
            status: ``FINISHED`` or ``FAILED``, MLflow's words.
        """
        if self._is_ours:
            self._mlflow.end_run(status)
