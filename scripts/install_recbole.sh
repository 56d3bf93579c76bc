#!/bin/sh
# RecBole on Python 3.12 and newer, where its pin of ray cannot be resolved: RecBole without its dependencies, then those that it imports.
#   sh scripts/install_recbole.sh [python]       the Python of the environment to install into, default: python
#   PIP_ARGS=--dry-run sh scripts/install_recbole.sh .venv/bin/python
# Left out on purpose: ray, thop, tabulate and plotly; nothing that this package uses of RecBole imports them.
set -eu
python=${1:-python}
constraints=$(dirname "$0")/../constraints.txt

"$python" -m pip install --quiet ${PIP_ARGS:-} --no-deps "recbole==1.2.1"
"$python" -m pip install --quiet ${PIP_ARGS:-} -c "$constraints" torch "numpy>=1.26,<2.5" "pandas>=2.2,<3" scipy scikit-learn tqdm pyyaml \
    "colorlog==4.7.2" "colorama==0.4.4" tensorboard texttable psutil
