"""The run of one model: from its settings to its result file, stage by stage."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import init_logger, init_seed

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.histories.evaluated_histories import unreachable_targets
from recbole_genrec.data.histories.history_digests import digests_of
from recbole_genrec.data.ids import raw_ids
from recbole_genrec.data.items.cold_items import sentence_about_cold_items
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows.cold_users import seen_and_unseen
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.experiments.command_line import command_of
from recbole_genrec.experiments.cost import backbone_notice, memory_notice
from recbole_genrec.experiments.rank_files import RankFile
from recbole_genrec.experiments.stages import (
    candidates_of_test,
    check_topk,
    metrics_of_test,
    paper_scale_notice,
    start_summary,
    tested_entries,
)
from recbole_genrec.experiments.warm_start import warm_start
from recbole_genrec.model.registry import build_model, is_generative
from recbole_genrec.report.outcome import side_by_side
from recbole_genrec.report.result_files import beside_checkpoint
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.logs import no_empty_logs
from recbole_genrec.runtime.recbole_repairs import forget_logger_handlers, make_folders
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.training.accounting import Stages, commit, n_parameters, versions
from recbole_genrec.training.earlier_runs import finished_result
from recbole_genrec.training.held_runs import held_run
from recbole_genrec.training.local_steps import check_local_steps
from recbole_genrec.training.optimiser import check_learner
from recbole_genrec.training.trackers import Trackers
from recbole_genrec.training.trainer import GenRecTrainer
from recbole_genrec.training.trainer_class import get_trainer_class


def run_single_model(saved: bool, argv: list[str] | None, **settings: Any) -> dict[str, Any]:
    """Train and test one model in this process.

    Args:
        saved: whether to write checkpoints.
        argv: arguments of the command line.
        **settings: other arguments of ``GenRecConfig``.

    Returns:
        The result, which the first process also writes to the result file.

    Raises:
        HeldError: another process runs these settings.
    """
    run = SingleRun(saved, argv, **settings)
    with held_run(run.config, run.logger.warning):
        return _result_of(run)


def _result_of(run: SingleRun) -> dict[str, Any]:
    """Carry a run out, or find the result of one that has ended."""
    if run.config.settings.resume and run.saved:
        finished = finished_result(run.config, run.trainer_class.can_resume)
        if finished is not None:
            run.logger.warning(
                "Nothing to resume: this run has ended. Its result is returned; evaluate tests "
                "its checkpoint again."
            )
            return finished
    with no_empty_logs(Path("log", run.config.settings.model)):
        run.prepare()
        run.build()
    try:
        run.fit()
        run.after_fit()
        run.test()
    except BaseException:
        run.trackers.failed()
        raise
    result = run.result()
    run.write(result)
    return result


class SingleRun:
    """One model, one dataset, one seed; call the stages in the order of :func:`run_single_model`.

    Attributes:
        config: the settings.
        stages: time and memory of the stages.
        dataset: RecBole's dataset; from ``prepare`` on.
        train: loader of the training split; ``valid`` and ``test`` likewise.
        bought: what the users have chosen; with a warm start, from ``prepare`` on.
        histories: digests of what the users have chosen; from ``prepare`` on.
        unreachable: targets in their own history by split; from ``prepare`` on.
        candidates: number and digest of the items that the test ranks, where these are not all;
            from ``prepare`` on.
        ranks: the file of the test users' ranks; from ``prepare`` on.
        model: the model; from ``build`` on.
        trainer: the trainer.
        result_file: where the result goes.
        best_valid: validation metrics of the best epoch; from ``fit`` on.
        test_entries: entries of the result with metrics of the test; from ``test`` on.
        ranks_name: name of the folder that holds the ranks, where they are stored.
        report: what the model says about its codes and its search.
        by_user: test metrics of users in training and of those kept out, with ``cold_users``.
    """

    def __init__(self, saved: bool, argv: list[str] | None, **settings: Any) -> None:
        self.stages = Stages()
        self.saved = saved
        self.command = command_of(argv=argv, **settings)
        self.commit = commit()  # of the code that starts; a checkout may move on meanwhile
        self.config = GenRecConfig(argv=argv, **settings)
        self.generative = is_generative(self.config.model_class)
        self.writes = processes.rank() == 0
        self.logger = logging.getLogger()

    def prepare(self) -> None:
        """Load the data and split it."""
        self.warm_start = warm_start(self.config)
        self._start_logging()
        self._seed()
        known_ids = None if self.warm_start is None else self.warm_start.ids
        self.dataset = create_dataset(self.config, known_ids)
        bought = histories(self.dataset)
        self.histories = digests_of(bought)
        if self.warm_start is not None:
            self.bought = bought
            self._say(self.warm_start.sentence_about_histories(bought), True)
        loaders = make_loaders(self.config, self.dataset, self.generative)
        self.train, self.valid, self.test_loader = loaders
        self.logger.info(self.dataset)
        if self.config.settings.catalogue == "interactions":
            sentence = sentence_about_cold_items(self.config, self.dataset)
            if sentence:
                self.logger.info(sentence)
        check_topk(self.config, self.dataset)
        check_learner(self.config.settings)
        if processes.size() > 1:
            check_local_steps(self.config.settings)

        self.ranks = RankFile(self.config, self.test_loader)
        self.logger.info(start_summary(self.config, self.dataset))
        for notice in [*self.config.notices, paper_scale_notice(self.config)]:
            self._say(notice, True)
        rows = dataset_of(self.train).inter_feat
        lengths = self.config.settings.ITEM_LIST_LENGTH_FIELD
        if lengths in rows:  # general models have none
            self._say(*backbone_notice(self.config, rows[lengths]))
        self.unreachable = unreachable_targets(self.valid, self.test_loader)
        self.candidates = candidates_of_test(self.config)
        self.stages.end("data")

    def _say(self, sentence: str, warns: bool) -> None:
        """Log a sentence, if there is one."""
        if not sentence:
            return
        if warns:
            self.logger.warning(sentence)
        else:
            self.logger.info(sentence)

    def _start_logging(self) -> None:
        make_folders(self.config)
        forget_logger_handlers()
        if self.writes:
            init_logger(self.config)
        else:
            logging.basicConfig(level=logging.ERROR)

    def _seed(self) -> None:
        """Start a stage with the random state of the seed, whatever was drawn before."""
        init_seed(self.config.settings.seed, self.config.settings.reproducibility)

    def build(self) -> None:
        """Fit the tokenizer, build the model and its trainer, and check where the result goes."""
        self._seed()
        with processes.first_process_first("fitting the tokenizer and building the model"):
            model = self._model()
            self.model = model.to(self.config.settings.device)
        self.stages.end("model_and_tokenizer")

        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.logger.info(
            f"{self.config.settings.model}: {n_parameters(self.model):,} parameters, "
            f"{trained:,} of them trained"
        )
        self._say(*memory_notice(self.model, self.config))
        self._seed()
        self.trainer = self.trainer_class(self.config, self.model)
        # Set here because the loops of RecBole's special trainers need not call ours.
        self.trainer.ids = raw_ids(self.dataset)
        self.trainer.histories = self.histories

        self.ranks.check(self.trainer.eval_collector)
        beside = beside_checkpoint(self.trainer.saved_model_file)
        self.result_file = self.config.settings.result_file or beside
        check_writable(self.result_file)
        self._track_tokenizer()

    def _track_tokenizer(self) -> None:
        """Send the tokenizer's curves and the use of its codes to the trackers."""
        self.trackers = Trackers(self.trainer, self.config.settings, self.writes)
        if self.generative and self.model.needs_tokenizer:
            levels = self.model.report()["tokenizer"]["levels"]
            self.trackers.tokenizer(self.model.tokenizer_curves, levels)

    def _model(self) -> AbstractRecommender:
        """The model before its training."""
        if self.warm_start is not None:
            return self.warm_start.build(dataset_of(self.train), self.bought)
        return build_model(self.config, dataset_of(self.train))

    @property
    def trainer_class(self) -> type[GenRecTrainer]:
        """What trains the model."""
        return get_trainer_class(self.config.model_class, self.config.settings.model)

    def fit(self) -> None:
        """Train the model."""
        _, self.best_valid = self.trainer.fit(
            self.train,
            self.valid,
            saved=self.saved,
            show_progress=self.config.settings.show_progress,
            callback_fn=lambda *_: self.trackers.epochs(),
        )
        self.stages.end("fit", self.trainer.used_before)

    def after_fit(self) -> None:
        """Let the model decide on the validation split what its training leaves open."""
        if not self.generative or not self.model.decides_after_fit:
            return
        if self.valid is None:
            self.logger.warning(
                f"{type(self.model).__name__} decides on the validation split after its training; "
                "there is none, so its settings stay as they are."
            )
        else:
            self.trainer.after_fit(self.valid, self.saved)
            self.stages.end("after_fit")

    def test(self) -> None:
        """Test the model of the best epoch, with ``cold_users`` also by kind of user."""
        if self.test_loader is None:
            self.test_entries: dict[str, Any] = {"test_result": {}}
        else:
            self.test_entries = metrics_of_test(
                self.trainer, self.test_loader, load_best_model=self.saved
            )
        self.stages.end("test")
        self.trackers.test(self.test_entries["test_result"])
        self.trainer.tensorboard.close()
        self.ranks_name: str | None = None
        if self.writes:
            collector = self.trainer.eval_collector
            self.ranks_name = self.ranks.write(collector, self.test_entries, self.result_file)

        # Read before the test by user, whose searches would count too.
        self.report = self.model.report() if self.generative else {}
        self.by_user: dict[str, dict[str, float]] | None = None
        if self.config.settings.cold_users:
            self.by_user = self._test_by_user()
            self.logger.info("test result by kind of user\n" + side_by_side(self.by_user))
            self.stages.end("test_by_user")

    def _test_by_user(self) -> dict[str, dict[str, float]]:
        """Number and test metrics of the users in training and of those kept out of it."""
        metrics = {}
        for name, loader in seen_and_unseen(self.config, self.test_loader).items():
            n_users = len(dataset_of(loader))
            metrics[name] = {
                "users": n_users,
                **self.trainer.evaluate(loader, load_best_model=False),
            }
        return metrics

    def result(self) -> dict[str, Any]:
        """The content of the result file."""
        tested = tested_entries(
            self.config, self.test_loader, self.test_entries, self.report, self.ranks_name
        )
        cpu_seconds = self._cpu_seconds()
        cpu_of_stages = sum(cpu_seconds[stage] for stage in self.stages.seconds)
        return {
            **tested,
            "candidates": self.candidates,
            "unreachable_targets": self.unreachable,
            "best_valid_score": self._best_valid_score(),
            "valid_score_bigger": self.config.settings.valid_metric_bigger,
            "best_valid_result": self._best_valid_result(),
            "test_by_user": self.by_user,
            "parameters": n_parameters(self.model),
            "processes": processes.size(),
            "tokenizer_curves": self._tokenizer_curves(),
            "seconds": {**self.stages.seconds, **self.trainer.seconds, "cpu": cpu_of_stages},
            "cpu_seconds": cpu_seconds,
            "peak_memory_mb": self.stages.memory,
            "epochs": self.trainer.history,
            "checkpoint": self.trainer.saved_model_file if self.saved else None,
            "command": self.command,
            "commit": self.commit,
            "versions": versions(),
        }

    def _tokenizer_curves(self) -> dict[str, dict[str, list[float]]]:
        """Losses of the stages of the tokenizer's fit, by stage and loss."""
        return self.model.tokenizer_curves if self.generative else {}

    def _cpu_seconds(self) -> dict[str, float]:
        """CPU seconds of each stage, of all processes together."""
        seconds = {**self.stages.cpu_seconds, **self.trainer.cpu_seconds}
        sums = processes.summed(list(seconds.values()))
        return dict(zip(seconds, sums, strict=True))

    def _best_valid_score(self) -> float | None:
        score = float(self.trainer.best_valid_score)
        return score if math.isfinite(score) else None

    def _best_valid_result(self) -> dict[str, float] | None:
        if not self.best_valid:
            return self.best_valid
        return {name: float(value) for name, value in self.best_valid.items()}

    def write(self, result: dict[str, Any]) -> None:
        """Write the result file, log the metrics of the test, and remove the resume file."""
        if self.writes:
            write_json(self.result_file, result)
            if self.saved:
                self.trainer.resume_points.file.unlink(missing_ok=True)
        figures = self.test_entries["test_result"].items()
        shown = "    ".join(f"{name} : {value}" for name, value in figures)
        self.logger.info(f"test result: \n{shown}")
        self.logger.info(f"Result written to {self.result_file}")
