"""CPU time of lists for all users, beside that of an evaluation of the same users.

OMP_NUM_THREADS=1 python benchmarks/lists.py --checkpoint=saved/TimelineRec-....pth
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from recbole_genrec.experiments.stages import metrics_of_test
from recbole_genrec.experiments.trained import load_data_and_model, load_recommender
from recbole_genrec.serving.lists import recommend_to_file
from recbole_genrec.training.trainer_class import get_trainer_class


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--top", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)

    trained = load_data_and_model(args.checkpoint, data_path=args.data_path)
    trainer = get_trainer_class(trained.config.model_class, trained.config["model"])(
        trained.config, trained.model
    )
    trainer.eval_collector.data_collect(trained.train)
    start = time.process_time()
    metrics_of_test(trainer, trained.test, load_best_model=False)
    seconds = {"evaluation": time.process_time() - start}

    served = load_recommender(args.checkpoint, data_path=args.data_path)
    for name, exclude_seen in (("lists", False), ("lists_exclude_seen", True)):
        start = time.process_time()
        for _ in served.model.recommend_batches(k=args.top, exclude_seen=exclude_seen):
            pass
        seconds[name] = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        recommend_to_file(
            args.checkpoint, Path(folder, "recs.parquet"), k=args.top, data_path=args.data_path
        )
        seconds["file_with_loading"] = time.process_time() - start
    print(json.dumps(seconds, indent=2))


if __name__ == "__main__":
    main()
