"""What of a run is compared: by peer and step, an allow-list; nothing else of it can make a difference.

Names of Python's modules and classes are no part of it: only names that stand in messages and in files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from blake3 import blake3

from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    Disputed,
    Expelled,
    Finished,
    Halted,
    Output,
    PhaseEntered,
    Probed,
    Resolved,
    Returned,
    Suspected,
    Undone,
    Voided,
)
from btard.node.protocol.state.state import parameters_digest
from btard.node.storage.journal import Record, read
from tests.simulation.stage import Stage

KINDS = ("course", "parameters", "state", "evidence", "sent")
"""What is digested of each peer's step.

- course: what happened, in order. No bit of a gradient is in it, so it is the same on every processor.
- parameters: the committed model. Equal where gradients have equal bits.
- state: the digest that CLOSE signs; it covers the environment's name as well.
- evidence: the bytes of evidence and of certificates.
- sent: every frame with its receivers and the virtual time, in order (simulated runs that are played in this process).
"""

COURSE: Mapping[str, tuple[str, ...]] = {
    "phase": ("step", "attempt", "phase"),
    "committed": ("step", "attempt", "contributors", "active", "validators"),
    "banned": ("step", "attempt", "peer", "reason", "accuser", "removed", "standing"),
    "voided": ("step", "attempt", "removals"),
    "suspected": ("step", "attempt", "phase", "peer"),
    "disputed": ("step", "attempt"),
    "resolved": ("step", "attempt", "outcome", "removals"),
    "accused": ("step", "attempt", "kind", "accused", "part", "accuser"),
    "undone": ("step", "attempt", "suspects", "lies", "to_step", "lost", "older"),
    "probation": ("step", "attempt", "peer", "correct", "needed"),
    "returned": ("step", "attempt", "peer"),
    "rejoining": ("step",),
    "resumed": ("step", "attempt", "heard"),
    "evaluated": ("step", "count"),
    "expelled": ("step", "reason"),
    "halted": ("step", "phase", "peer"),
    "finished": ("step",),
    "attacked": ("steps",),
}
"""By event of a journal: the fields that are compared as `course`. Without times, durations, byte totals, losses, paths
and sentences for people; other events (traffic, links, waits, what was dropped, what was listened on) not at all."""

BITS: Mapping[str, Mapping[str, str]] = {
    "committed": {"parameter_digest": "parameters", "state_digest": "state"},
    "finished": {"parameter_digest": "parameters"},
    "evaluated": {"correct": "parameters"},
    "banned": {"evidence": "evidence"},
    "returned": {"evidence": "evidence"},
}
"""By event: fields whose value hangs on bits, and as what they are compared."""

TIMED = frozenset({"suspected", "resumed"})
"""Events of real processes that hang on how busy the machine is."""

_EVENTS: Mapping[type[Output], str] = {
    PhaseEntered: "phase", Committed: "committed", Banned: "banned", Voided: "voided", Suspected: "suspected",
    Disputed: "disputed", Resolved: "resolved", Accused: "accused", Undone: "undone", Probed: "probation",
    Returned: "returned", Expelled: "expelled", Halted: "halted", Finished: "finished",
}  # fmt: skip
_FILES = re.compile(r"(?:ban|return)-(?P<step>\d+)-.*|certificate|parameters\.f32")

Cells = dict[str, dict[str, dict[str, str]]]
"""Digests by peer, step and kind."""


class Telling:
    """Gathers what is told of a run, and digests it."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, str], blake3] = {}
        self._newest: dict[int, int] = {}

    def add(self, peer: int, step: int, kind: str, data: bytes) -> None:
        """One more thing that a peer did in a step."""
        assert kind in KINDS
        self._newest[peer] = max(step, self._newest.get(peer, 0))
        entry = self._open.setdefault((peer, step, kind), blake3())
        entry.update(len(data).to_bytes(8, "little") + data)

    def record(self, record: Record) -> None:
        """A line of a journal: what the allow-lists have of it."""
        event, peer = record["event"], record["node"]
        if event not in COURSE or (event == "returned" and record["peer"] == peer):  # what the others' records say
            return
        step = record.get("step", self._newest.get(peer, 0))
        course = [event, *(record.get(name) for name in COURSE[event])]
        self.add(peer, step, "course", msgspec.json.encode(course, order="deterministic"))
        for name, kind in BITS.get(event, {}).items():
            self.add(peer, step, kind, msgspec.json.encode([event, record.get(name)]))

    def output(self, peer: int, output: Output) -> None:
        """A notice of a simulated node, as its journal would have it."""
        event = _EVENTS.get(type(output))
        if event is None:
            return
        record = {name: getattr(output, name, None) for name in COURSE[event]}
        match output:
            case Committed():
                record |= {
                    "parameter_digest": output.parameter_digest.hex(), "state_digest": output.state_digest.hex(),
                    "validators": {str(validator): target for validator, target in output.validators.items()},
                }  # fmt: skip
                self.add(peer, output.step, "evidence", output.certificate)
            case Banned() | Returned():
                record["evidence"] = blake3(output.evidence).hexdigest()
            case Finished():
                record["parameter_digest"] = parameters_digest(output.parameters_D).hex()
            case _:
                pass
        self.record({"event": event, "node": peer, **record})

    def directory(self, run_dir: Path, peers: Iterable[int], timed: bool) -> None:
        """The journals of a run directory, and the files that prove what they say.

        Args:
            run_dir: of a run that has ended.
            peers: whose.
            timed: the clock was a real one.
        """
        for peer in peers:
            own = run_dir / "nodes" / str(peer)
            for record in read(own / "journal.jsonl")[0]:
                if not (timed and record["event"] in TIMED):
                    self.record(record)
            for file in sorted(own.rglob("*")):
                if (found := _FILES.fullmatch(file.name)) is not None and file.is_file():
                    step = int(found["step"]) if found["step"] else self._newest.get(peer, 0)
                    kind = "parameters" if file.suffix == ".f32" else "evidence"
                    self.add(peer, step, kind, file.name.encode() + b"\0" + file.read_bytes())

    def cells(self) -> Cells:
        """The digests so far."""
        found: Cells = {}
        for (peer, step, kind), entry in sorted(self._open.items()):
            found.setdefault(str(peer), {}).setdefault(str(step), {})[kind] = entry.hexdigest(6)
        return found


def played(stage: Stage) -> Cells:
    """Play a simulated cluster to its end and digest what its nodes told and sent."""
    telling, simulation = Telling(), stage.simulation
    send = simulation._control

    def overheard(node: int, to: tuple[int, ...], event: object, frame: bytes) -> None:
        head = f"{simulation.now_s!r} {to!r} ".encode()
        telling.add(node, simulation.step(node), "sent", head + frame)
        send(node, to, event, frame)  # type: ignore[arg-type]

    simulation._control = overheard  # type: ignore[method-assign, assignment]
    for seen in simulation.run():
        telling.output(seen.node, seen.output)
    return telling.cells()
