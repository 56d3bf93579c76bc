"""``recbole-genrec doctor``: what is installed and what runs here."""

from __future__ import annotations

from recbole_genrec.cli.command import LOOK_UP, Command
from recbole_genrec.cli.tables import print_table


def doctor() -> int:
    """What is installed and what runs here; put its output into a report of a fault.

    The exit status is 1 when something would stop or slow down a run.
    """
    from recbole_genrec.experiments.doctor import examine

    findings = examine()
    print_table(["what", "here"], [[finding.what, finding.value] for finding in findings])
    problems = [finding for finding in findings if finding.problem]
    for finding in problems:
        print(f"\n{finding.what}: {finding.problem}")
    if not problems:
        print("\nEverything that a run needs is here.")
    return int(bool(problems))


COMMAND = Command("doctor", doctor, LOOK_UP, examples=("recbole-genrec doctor",))
