"""A run as a trace for ui.perfetto.dev: each peer's steps and phases as slices, what happened as instants, and each
accusation as a flow from the accuser to whose journal holds it.

Source: Trace Event Format (Google, 2016): phases B, E, i, s, f and M; times are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from btard.launcher.monitor.state import Record
from btard.launcher.report.run_data import RunData
from btard.node.errors import ConfigError

Event = dict[str, Any]
_US = 1e6
_PROCESS = 1
_INSTANTS = ("suspected", "disputed", "resolved", "accused", "voided", "banned", "undone", "returned", "halted")
_COMMON = ("time", "node", "event")


@dataclass(slots=True)
class _Track:
    """One peer's slices: where each step's and phase's begin, and where the last one ended, microseconds."""

    end_us: int = 0
    began_us: dict[tuple[int, str], int] = field(default_factory=dict)
    """By step and phase; "" is the step itself, "last" its last phase."""


def trace(run: RunData) -> dict[str, Any]:
    """The trace of a run, ready to be written as JSON; events in order of time.

    Raises:
        ConfigError: no step was committed, so there is no slice.
    """
    if not run.commits:
        raise ConfigError(f"{run.path} has no committed step to trace; see `btard-launch status {run.path}`")
    tracks = {node: _Track() for node in run.nodes}
    events = list(_simulated(run, tracks) if run.simulated else _measured(run, tracks))
    events += _instants(run, tracks)
    clock = "virtual, of the modelled network: one step after the other, and what happened in its step's last phase"
    return {
        "displayTimeUnit": "ms",
        "otherData": {"run": run.run_id, "clock": clock if run.simulated else "each peer's own clock"},
        # Stable: what begins or ends at one time keeps its order.
        "traceEvents": [*_names(run), *sorted(events, key=lambda event: int(event["ts"]))],
    }


def _names(run: RunData) -> Iterator[Event]:
    yield _event("M", 0, 0, "process_name", args={"name": f"BTARD run {run.run_id}"})
    for node in run.nodes:
        role = " (attacks)" if node in run.roles else ""
        yield _event("M", 0, node, "thread_name", args={"name": f"peer {node}{role}"})


def _measured(run: RunData, tracks: Mapping[int, _Track]) -> Iterator[Event]:
    """Steps of real peers: each ended when its line was written."""
    lines = [line for views in run.commits.values() for line in views.values()]
    first_s = min(float(line["time"]) - line["seconds"] for line in lines)
    for line in lines:
        end_us = round((float(line["time"]) - first_s) * _US)
        yield from _step(line, end_us - round(line["seconds"] * _US), tracks[line["node"]])


def _simulated(run: RunData, tracks: Mapping[int, _Track]) -> Iterator[Event]:
    """Steps in virtual time, which knows durations only: each begins when the one before has ended everywhere."""
    for views in run.commits.values():
        start_us = max(track.end_us for track in tracks.values())
        for node, line in views.items():
            yield from _step(line, start_us, tracks[node])


def _step(line: Record, start_us: int, track: _Track) -> Iterator[Event]:
    """A step's slice with its phases' in it."""
    step, node = line["step"], line["node"]
    at_us = max(start_us, track.end_us)  # a clock that was set back
    end_us = max(at_us, start_us + round(line["seconds"] * _US))
    about = {key: line[key] for key in ("attempt", "contributors", "validators", "loss", "state_digest")}
    track.began_us[step, ""] = at_us
    yield _event("B", at_us, node, f"step {step}", args=about)
    for phase, seconds in line["phases"].items():
        track.began_us[step, phase] = track.began_us[step, "last"] = at_us
        yield _event("B", at_us, node, phase)
        at_us = min(end_us, at_us + round(seconds * _US))
        yield _event("E", at_us, node, phase)
    track.end_us = end_us
    yield _event("E", end_us, node, f"step {step}")


def _instants(run: RunData, tracks: Mapping[int, _Track]) -> Iterator[Event]:
    """What happened, and accusations as flows."""
    first_s = min(float(line["time"]) - line["seconds"] for views in run.commits.values() for line in views.values())
    flows = 0
    for line in run.events:
        node = line["node"]
        if line["event"] not in _INSTANTS or node not in tracks:
            continue
        began_us = tracks[node].began_us
        in_step_us = began_us.get((line["step"], "last"), began_us.get((line["step"], ""), tracks[node].end_us))
        at_us = in_step_us if run.simulated else max(0, round((float(line["time"]) - first_s) * _US))
        about = {key: value for key, value in line.items() if key not in _COMMON}
        yield _event("i", at_us, node, _title(line), s="t", args=about)
        accuser = line.get("accuser")
        if line["event"] != "accused" or accuser is None or accuser not in tracks or accuser == node:
            continue
        spoke = tracks[accuser].began_us
        sent_us = spoke.get((line["step"], "REPORT"), spoke.get((line["step"], "")))
        if sent_us is not None and sent_us <= at_us:
            flows += 1
            yield _event("s", sent_us, accuser, "accusation", id=flows, cat="message")
            yield _event("f", at_us, node, "accusation", id=flows, cat="message", bp="e")


def _title(line: Record) -> str:
    about = next((f" peer {line[key]}" for key in ("accused", "peer") if line.get(key) is not None), "")
    return f"{line['event']}{about}"


def _event(kind: str, at_us: int, node: int, name: str, **more: object) -> Event:
    return {"ph": kind, "ts": at_us, "pid": _PROCESS, "tid": node + 1, "name": name, **more}
