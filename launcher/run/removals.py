"""Honest peers that a run removed without anybody's asking for it: what probably led to it."""

from __future__ import annotations

from btard.launcher.run.summary import BanRow, Summary

_CHECK = "`btard-launch check FILE.py` tries out own tasks and rules"
_CAUSES = {
    "gradient": "its gradient was not the one that was computed from its seed later on: own code or data change in use "
    f"(a cache, a counter, the time), or machines differ: {_CHECK}, as far as their first calls tell",
    "aggregate": f"its aggregate was not the one that others compute: {_CHECK}",
    "checksum": f"its aggregate and its checksums do not fit together: {_CHECK}",
    "false_report": f"others could not find what it reported: {_CHECK}",
    "false_accusation": f"it accused a peer that others cleared, so they compute different bits: {_CHECK}",
    "probation": f"its gradient on probation was not the one that others compute: {_CHECK}",
    "bounds": "what it sent lies outside all bounds: the training may have blown up; lower --lr",
    "unusable": "what it sent cannot be computed with: the training may have blown up; lower --lr",
}
_SILENT = (
    "it was not heard in time: this machine may be too slow or busy for the bounds; raise --delivery-bound and "
    "--gradient-bound, or run fewer --peers"
)


def unexplained(summary: Summary) -> dict[int, str]:
    """Honest peers that were banned, or are gone without an event of the scenario or a signal that explains it: what
    happened to each, and the likely cause."""
    excused = _hit(summary) | {row.peer for row in summary.returned}
    found: dict[int, str] = {}
    for row in summary.bans:
        if not row.byzantine:
            text = f"peer {row.peer} banned at step {row.step} for {row.reason}: {_cause(row)}"
            found.setdefault(row.peer, text)
    for row in summary.gone:
        if not row.byzantine and row.peer not in excused:
            found.setdefault(row.peer, f"peer {row.peer} gone at step {row.step} ({row.reason}): {_SILENT}")
    return found


def eliminated(summary: Summary) -> list[str]:
    """What to say of honest peers that left together with one they disagreed with: one of the two is faulty."""
    why = "it and another accused each other, and of such a pair one is faulty; nobody can tell which"
    rows = (row for row in summary.eliminated if not row.byzantine)
    return [f"peer {row.peer} at step {row.step} ({row.reason}): {why}" for row in rows]


def _cause(row: BanRow) -> str:
    return _CAUSES.get(row.reason, "an honest peer does not do that: please report it with the run directory")


def _hit(summary: Summary) -> set[int]:
    """Peers that something from outside happened to: an event of the scenario, or a signal."""
    everybody = {row.peer for row in summary.gone}  # an event of the links names no peers
    events = {peer for event in summary.scenario for peer in event.peers or everybody}
    signalled = {row.node for row in summary.failures if row.exit_code is not None and _signal(row.exit_code)}
    return events | signalled


def _signal(exit_code: int) -> bool:
    return exit_code < 0 or exit_code > 128
