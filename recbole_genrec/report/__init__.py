"""Tables, tests and pages of results: per-user ranks, leaderboards, tests of significance.

Start with :mod:`~recbole_genrec.report.leaderboard`; the runs themselves come from
:mod:`~recbole_genrec.experiments.benchmark`.
"""
