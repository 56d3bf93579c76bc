"""What is made of results: per-user ranks, benchmarks over models and seeds, leaderboards with significance tests.

Start with :mod:`~recbole_genrec.experiments.benchmark` (the runs) and :mod:`~recbole_genrec.report.leaderboard` (the tables).
"""
