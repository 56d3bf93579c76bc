"""From settings to a result: the dataset, the model, training, evaluation, and the file that records it all."""

from __future__ import annotations

import logging
import math
import shlex
from functools import partial
from pathlib import Path

import torch
from recbole.utils import init_logger, init_seed

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.ids import raw_ids
from recbole_genrec.data.loaders import create_dataset, make_loaders, seen_and_unseen
from recbole_genrec.errors import ConfigError, explained_files
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.ranks import UserRanks, evaluated_cases, ranks_folder, ranks_from_hits
from recbole_genrec.report.tables import side_by_side
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.launcher import launch, launches
from recbole_genrec.runtime.recbole_repairs import forget_logger_handlers, make_folders
from recbole_genrec.settings.parsing import config_files, parse_arguments, read_yaml
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.training.accounting import Stages, commit, versions
from recbole_genrec.training.trainer import (
    GenRecTrainer,
    get_trainer_class,
)


@explained_files()
def run_recbole_genrec(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict | None = None,
    saved: bool = True,
    argv: list[str] | None = None,
) -> dict:
    """Train and test one model, or several (``model="STORE,SASRec"``) on the same split under the same protocol.

    Args:
        model: a name, comma-separated names, or a RecBole model class.
        dataset: name of the dataset's folder below ``data_path``.
        config_file_list, config_dict, argv: settings; later ones win, as in RecBole.
        saved: whether to write checkpoints (without them there is no resume and the last epoch is tested).

    Returns:
        The result of the run (the content of its JSON file); for several models ``{name: result}``. With ``nproc`` above 1 the calling
        script needs Python's ``if __name__ == "__main__":``, because the processes import it.

    Raises:
        GenRecError: a setting, a file or a number is wrong; the message says which and what to do.
    """
    arguments = parse_arguments(list(argv or []))
    config_file_list = config_files(config_file_list, arguments)
    for settings in (arguments, config_dict or {}, *map(read_yaml, reversed(config_file_list))):
        model = model if model is not None else settings.get("model")
    several = isinstance(model, str) and "," in model
    if several and (arguments.get("result_file") or (config_dict or {}).get("result_file")):
        raise ConfigError(
            "--result_file names one file; with several models each result is written beside its checkpoint."
        )
    names = (
        list(dict.fromkeys(name.strip() for name in model.split(",") if name.strip()))
        if several
        else [model]
    )
    rest = [argument for argument in argv or [] if not argument.startswith("--model=")]
    each = {name: [f"--model={name}", *rest] if several else argv for name in names}
    options = {"dataset": dataset, "config_file_list": config_file_list, "config_dict": config_dict}
    # every setting is checked before the first training starts
    configs = {name: GenRecConfig(name, argv=each[name], **options) for name in names}
    if several and any(config["world_size"] > config["nproc"] for config in configs.values()):
        raise ConfigError("Several machines train one model at a time: give --model a single name.")
    results = {}
    with processes.joined(configs[names[0]]["device"]):
        for name, config in configs.items():
            together = processes.size() > 1
            _check_processes(config, together or launches(config))
            run = (
                _run_one
                if together or not launches(config)
                else partial(launch, config, run_recbole_genrec)
            )
            results[name] = run({"model": name, "argv": each[name], "saved": saved, **options})
    return results if several else results[model]


def _check_processes(config, several: bool) -> None:
    trainer = get_trainer_class(config.model_class, config["model"])
    if several and trainer is not GenRecTrainer:
        raise ConfigError(
            f"{config['model']} does not learn in the common training loop ({trainer.__name__}), so several processes cannot share its "
            f"work. Leave out --nproc, or add --{config['model']}.nproc=1."
        )
    if config["fsdp"] and not several:
        raise ConfigError(
            "fsdp shares a model among several processes; add --nproc=2, or leave it out."
        )


def check_topk(config, dataset) -> None:
    """:class:`ConfigError` for lists longer than the catalogue."""
    if max(config["topk"]) >= dataset.item_num:
        raise ConfigError(
            f"topk {config['topk']} asks for more items than the {dataset.item_num - 1} of {config['dataset']}."
        )


def _run_one(arguments: dict) -> dict:
    stages = Stages()
    saved, argv = arguments["saved"], arguments["argv"]
    config = GenRecConfig(**{key: value for key, value in arguments.items() if key != "saved"})
    writes = processes.rank() == 0
    make_folders(config)
    forget_logger_handlers()
    if writes:
        init_logger(config)
    else:
        logging.basicConfig(level=logging.ERROR)
    logger = logging.getLogger()
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    generative = is_generative(config.model_class)
    train, valid, test = make_loaders(config, dataset, generative)
    logger.info(dataset)
    check_topk(config, dataset)
    cases = evaluated_cases(test) if config["save_ranks"] else None
    logger.info(start_summary(config))
    stages.end("data")
    init_seed(config["seed"], config["reproducibility"])
    with processes.first_process_first("fitting the tokenizer and building the model"):
        network = config.model_class(config, train._dataset).to(config["device"])
    stages.end("model_and_tokenizer")
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    logger.info(
        f"{config['model']}: {sum(p.numel() for p in network.parameters()):,} parameters, {trained:,} of them trained"
    )
    init_seed(config["seed"], config["reproducibility"])
    trainer = get_trainer_class(config.model_class, config["model"])(config, network)
    trainer.ids = raw_ids(
        dataset
    )  # before the loops of RecBole's special trainers, which need not call ours
    if cases and not trainer.eval_collector.register.need("rec.topk"):
        raise ConfigError(
            f"save_ranks needs a metric of ranked lists; metrics {config['metrics']} has none. Add Recall or NDCG."
        )
    path = config["result_file"] or f"{Path(trainer.saved_model_file).with_suffix('')}.json"
    check_writable(path)
    _, best = trainer.fit(train, valid, saved=saved, show_progress=config["show_progress"])
    stages.end("fit")
    tests = tested(trainer, test, load_best_model=saved)
    stages.end("test")
    trainer.tensorboard.close()
    if cases and writes:
        users, targets = cases
        UserRanks(
            ranks_from_hits(trainer.eval_collector.hits), users, max(config["topk"]), targets
        ).save(ranks_folder(path))
    report = network.report() if generative else {}
    by_user = None
    if config["cold_users"]:
        parts = seen_and_unseen(config, test)
        by_user = {
            name: {"users": len(part._dataset), **trainer.evaluate(part, load_best_model=False)}
            for name, part in parts.items()
        }
        logger.info("test result by kind of user\n" + side_by_side(by_user))
        stages.end("test_by_user")
    score = float(trainer.best_valid_score)
    cpu_seconds = {**stages.cpu_seconds, **trainer.cpu_seconds}  # of all processes
    cpu_seconds = dict(zip(cpu_seconds, processes.summed(cpu_seconds.values()), strict=True))
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "best_valid_score": score if math.isfinite(score) else None,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best and {name: float(value) for name, value in best.items()},
        **tests,
        "test_by_user": by_user,
        "seed": config["seed"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "processes": processes.size(),
        "report": report,
        "seconds": {
            **stages.seconds,
            **trainer.seconds,
            "cpu": sum(cpu_seconds[stage] for stage in stages.seconds),
        },
        "cpu_seconds": cpu_seconds,
        "peak_memory_mb": stages.memory,
        "epochs": trainer.history,
        "checkpoint": trainer.saved_model_file if saved else None,
        "ranks": ranks_folder(path).name if cases else None,
        "command": shlex.join(["recbole-genrec", "run", *argv]) if argv else None,
        "commit": commit(),
        "versions": versions(),
        "config": config.plain(),
    }
    if writes:
        write_json(path, result)
    logger.info(f"test result: {tests['test_result']}")
    logger.info(f"Result written to {path}")
    return result


def start_summary(config) -> str:
    """What is about to run, one setting a line."""
    rows = {
        "model": config["model"],
        "dataset": f"{config['dataset']}, histories of up to {config['MAX_ITEM_LIST_LENGTH']} items",
        "device / precision": f"{config['device']} / {config['precision']}, {torch.get_num_threads()} threads",
        "training": f"{config['epochs']} epochs, batch {config['train_batch_size']}, {config['learner']} {config['learning_rate']}",
    }
    if processes.size() > 1:
        rows["processes"] = f"{processes.size()}, which share each batch"
    if is_generative(config.model_class):
        rows |= config.model_class.describe(config)
    width = max(map(len, rows))
    return "Running\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


def tested(trainer, test, load_best_model: bool) -> dict:
    """Entries of a result: test metrics, the mean over the variants of the model (``test_variants``), and each of several variants."""
    variants = trainer.model.test_variants() if is_generative(type(trainer.model)) else ["all"]
    progress = trainer.config["show_progress"]
    tests = {
        name: trainer.evaluate(test, load_best_model=load_best_model, show_progress=progress)
        for name in variants
    }
    mean = {
        metric: sum(each[metric] for each in tests.values()) / len(tests)
        for metric in next(iter(tests.values()))
    }
    return {"test_result": mean, **({"test_variants": tests} if len(tests) > 1 else {})}
