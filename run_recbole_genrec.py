"""The command line: ``python run_recbole_genrec.py --model=STORE --dataset=ml-100k``."""

from recbole_genrec.cli import run

if __name__ == "__main__":
    raise SystemExit(run())
