"""``python -m recbole_genrec.install``: adds RecBole where pip cannot resolve its dependencies.

RecBole 1.2.1 pins a version of ray that has no wheel for Python 3.12 and newer. Nothing that this
package uses of RecBole imports ray, thop, tabulate or plotly. RecBole is therefore installed
without its dependencies; the libraries that it does import are dependencies of this package.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

REQUIREMENT = "recbole==1.2.1"
COMMAND = "python -m recbole_genrec.install"


def main(options: list[str] | None = None) -> int:
    """Install RecBole into the environment of this Python.

    Args:
        options: further options for pip, for example ``["--dry-run"]``; those of the command
            line when left out.

    Returns:
        The exit status: 0 when RecBole is installed, pip's status when it failed.
    """
    if options is None:
        options = sys.argv[1:]

    if importlib.util.find_spec("recbole") is not None:
        print("RecBole is installed already.")
        return 0
    if importlib.util.find_spec("pip") is None:
        print(
            "This environment has no pip. Install RecBole with the tool that made the "
            "environment, without its dependencies; for example: "
            f"uv pip install --no-deps {REQUIREMENT}",
            file=sys.stderr,
        )
        return 2

    pip = [sys.executable, "-m", "pip", "install", "--no-deps", *options, REQUIREMENT]
    return subprocess.run(pip, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
