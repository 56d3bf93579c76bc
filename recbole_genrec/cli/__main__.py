"""``python -m recbole_genrec.cli``: the command line."""

from recbole_genrec.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
