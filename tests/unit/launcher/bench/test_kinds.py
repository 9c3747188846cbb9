"""Time by kind of work adds up, whatever calls what."""

from __future__ import annotations

import time

import pytest

from btard.launcher.bench import kinds
from btard.launcher.bench.kinds import REST, THREADS, Kinds


class Work:
    """Work whose clock is moved by hand."""

    clock_s = 0.0

    @staticmethod
    def spend(seconds: float) -> None:
        Work.clock_s += seconds

    def update(self) -> None:
        self.spend(2.0)
        self.summarise()
        self.spend(1.0)

    def summarise(self) -> None:
        self.spend(4.0)


def test_what_one_kind_of_work_calls_of_another_counts_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (("update", Work, Work.update), ("digests", Work, Work.summarise))
    for name in ("update", "summarise"):
        monkeypatch.setattr(Work, name, getattr(Work, name))  # what `Kinds` puts there is taken away again
    monkeypatch.setattr(kinds, "KINDS", table)
    monkeypatch.setattr(time, "thread_time", lambda: Work.clock_s)
    monkeypatch.setattr(time, "process_time", lambda: Work.clock_s + 3.0)
    counted = Kinds()
    Work().update()
    counted.resume()
    Work().update()
    Work().summarise()
    Work.spend(0.5)
    counted.pause()
    Work().update()
    assert counted.seconds() == {"update": 3.0, "digests": 8.0, REST: 0.5, THREADS: 0.0}
