"""What people do with models: runs, trained checkpoints, tuning, benchmarks."""

from recbole_genrec.runtime.recbole_repairs import check_installation, quiet_pandas_warnings

check_installation()  # before any module of this room imports RecBole
quiet_pandas_warnings()
