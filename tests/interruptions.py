"""Trainings that are interrupted on purpose."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from recbole_genrec.runtime.interrupts import Interrupted
from recbole_genrec.training.resume import ResumePoints


@contextmanager
def interrupted_in(epoch: int, monkeypatch):
    """A block whose training ends, with a resume file, when ``epoch`` (from 0) begins."""
    save = ResumePoints.save

    def save_and_stop(points, number, *position) -> None:
        save(points, number, *position)
        if number == epoch:
            raise Interrupted(2)

    with monkeypatch.context() as patch:
        patch.setattr(ResumePoints, "save", save_and_stop)
        with pytest.raises(Interrupted):
            yield
