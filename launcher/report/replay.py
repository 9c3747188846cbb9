"""A run, step by step, as the data that its page plays: what the journals hold, and nothing else."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import msgspec

from btard.launcher.report.run_data import RunData
from btard.launcher.verify.explanation import Explained, Line

_MOST_STEPS, _MOST_LINES, _MOST_CHARS = 600, 24, 400
"""A page stays below 300 kB: steps of a long run that nothing happened in, and the end of a long list, are left out."""
_AROUND = 1
_DIGITS = 8


def data(run: RunData, explained: Sequence[Explained]) -> str:
    """The replay of a run as JSON that can stand inside an HTML script element.

    Args:
        run: the run.
        explained: what its journals tell of attempts.
    """
    lines: dict[int, list[tuple[int, Line]]] = defaultdict(list)
    for each in explained:
        lines[each.step] += [(each.attempt, line) for line in each.lines]
    steps = sorted(run.commits.keys() | lines.keys())
    shown = _shown(steps, lines.keys())
    tables: dict[str, list[Any]] = {"rosters": [], "phases": []}
    accuracy = dict(run.summary.accuracy)
    attacked: dict[int, list[int]] = defaultdict(list)
    for event in run.events:
        if event["event"] == "attacked":
            for step in event["steps"]:
                attacked[step].append(event["node"])
    made = {
        "peers": run.run.peers,
        "nodes": run.nodes,
        "of": len(steps),
        **tables,
        "steps": [
            _step(run, step, tables) | _happened(lines.get(step, ()))
            | ({"accuracy": accuracy[step]} if step in accuracy else {})
            | ({"attacked": sorted(attacked[step])} if step in attacked else {})
            for step in shown
        ],
    }  # fmt: skip
    return msgspec.json.encode(made).decode().replace("<", "\\u003c")


def _shown(steps: Sequence[int], eventful: Iterable[int]) -> Sequence[int]:
    """The steps to play: all of them, or in a long run the first, the last and those around what happened."""
    if len(steps) <= _MOST_STEPS:
        return steps
    near = {step + offset for step in eventful for offset in range(-_AROUND, _AROUND + 1)}
    wanted = dict.fromkeys([steps[0], steps[-1], *(step for step in steps if step in near), *steps])
    return sorted(list(wanted)[:_MOST_STEPS])


def _step(run: RunData, step: int, tables: dict[str, list[Any]]) -> dict[str, Any]:
    """What the committed lines of a step say; only its number where there are none."""
    if step not in run.commits:
        return {"step": step}
    views, view = run.commits[step], run.view(step)
    digest, holders = Counter(each["state_digest"] for each in views.values()).most_common(1)[0]
    losses = [each["loss"] for each in views.values() if each["loss"] is not None]
    return {
        "step": step,
        "active": _place(tables["rosters"], view["active"]),
        "contributors": _place(tables["rosters"], view["contributors"]),
        "validators": [[int(validator), target] for validator, target in view["validators"].items()],
        "phases": _place(tables["phases"], list(view["phases"])),
        "loss": round(statistics.fmean(losses), 4) if losses else None,
        "digest": digest[:_DIGITS],
        "agree": [holders, len(views)],
    }


def _happened(lines: Sequence[tuple[int, Line]]) -> dict[str, Any]:
    if not lines:
        return {}
    made = [
        {
            "kind": line.kind,
            "text": f"attempt {attempt + 1}: {line.text}"[:_MOST_CHARS] if attempt else line.text[:_MOST_CHARS],
            "by": line.by,
            "of": line.of,
            "nodes": line.nodes,
            "verdict": line.verdict[:_MOST_CHARS],
        }
        for attempt, line in lines[:_MOST_LINES]
    ]
    return {"lines": made, "more": len(lines) - len(made)}


def _place(table: list[Any], value: Hashable | list[Any]) -> int:
    """Where a value stands in a table, which it is added to once."""
    if value not in table:
        table.append(value)
    return table.index(value)
