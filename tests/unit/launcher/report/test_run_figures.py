"""launcher/report/run_figures.py: what a figure of many peers joins."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from btard.launcher.report import run_figures


def told(peers: int) -> dict[tuple[str, str], int]:
    """(from, to) and bytes of each cell of the traffic of a run in which peer a sent 1 + a mod 3 to each other one."""
    events = [
        {"event": "traffic", "node": a, "sent": {str(b): {"bulk": a % 3, "control": 1} for b in range(peers) if b != a}}
        for a in range(peers)
    ]
    run: Any = SimpleNamespace(events=events, run=SimpleNamespace(peers=peers))
    figure = run_figures.traffic(run)
    assert figure is not None and len(figure.html) < 140_000
    tips = re.findall(r'title="(\S+) to (\S+): (.*?)"', figure.html)
    return {(a, b): sum(int(size) for size in re.findall(r"(\d+) B", kinds)) for a, b, kinds in tips}


def test_the_traffic_of_a_few_is_told_one_by_one() -> None:
    assert told(3) == {(str(a), str(b)): a % 3 + 1 for a in range(3) for b in range(3) if a != b}


@pytest.mark.parametrize(("peers", "size"), [(20, 1), (60, 3), (256, 13)])
def test_the_traffic_of_many_is_that_of_groups(peers: int, size: int) -> None:
    found = told(peers)
    wanted: dict[tuple[str, str], int] = {}
    for a in range(peers):
        for b in range(peers):
            key = (name(a // size, size, peers), name(b // size, size, peers))
            wanted[key] = wanted.get(key, 0) + (a % 3 + 1 if a != b else 0)
    assert found == {key: total for key, total in wanted.items() if total}


def name(group: int, size: int, peers: int) -> str:
    first, last = group * size, min(peers, (group + 1) * size) - 1
    return str(first) if first == last else f"{first}\u2013{last}"
