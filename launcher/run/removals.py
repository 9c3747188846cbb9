"""Honest peers that a run removed without anybody's asking for it: what probably led to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from btard.launcher.run.summary import BanRow, Summary

_CHECK = "`btard-launch check FILE.py` tries out own tasks and rules"
_CAUSES = {
    "gradient": f"its gradient was not the one that others compute from its seed: {_CHECK}",
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


@dataclass(frozen=True, slots=True)
class Removal:
    """An honest peer's removal that needs an explanation.

    Args:
        peer: its id.
        text: what happened, and the likely cause.
    """

    peer: int
    text: str


def unexplained(summary: Summary) -> tuple[Removal, ...]:
    """Honest peers that were banned, or are gone without an event of the scenario or a signal that explains it."""
    excused = _hit(summary) | {row.peer for row in summary.returned}
    banned = (row for row in summary.bans if not row.byzantine)
    gone = (row for row in summary.gone if not row.byzantine and row.peer not in excused)
    return tuple(_once([
        *(Removal(row.peer, f"peer {row.peer} banned at step {row.step} for {row.reason}: {_cause(row)}")
          for row in banned),
        *(Removal(row.peer, f"peer {row.peer} gone at step {row.step} ({row.reason}): {_SILENT}") for row in gone),
    ]))  # fmt: skip


def eliminated(summary: Summary) -> tuple[Removal, ...]:
    """Honest peers that left together with one they disagreed with: one of the two is faulty."""
    return tuple(
        Removal(row.peer, f"peer {row.peer} at step {row.step} ({row.reason}): it and another accused each other, and "
                          "of such a pair one is faulty; nobody can tell which")
        for row in summary.eliminated
        if not row.byzantine
    )  # fmt: skip


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


def _once(removals: list[Removal]) -> Iterator[Removal]:
    seen: set[int] = set()
    for each in removals:
        if each.peer not in seen:
            seen.add(each.peer)
            yield each
