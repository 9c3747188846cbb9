"""`btard-launch verify --explain`: the story of every ban and dispute of a run, in words, from the nodes' journals.

The journals tell who saw what; whether a ban is proven is decided by the evidence alone (node/verify/audit.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from btard.launcher.monitor.state import Undoing, undo_line
from btard.node.protocol.adjudication.offences import sentence
from btard.node.storage.records import JournalReader

_EVENTS = ("suspected", "disputed", "accused", "voided", "resolved", "banned", "undone", "halted", "rejoining",
           "probation", "returned")  # fmt: skip

_CHARGES: Mapping[str, str] = {
    "bounds": "peer {peer} claims a checksum that no honest peer can have (V0)",
    "averaging:V0": "an impossible claim may hide a wrong aggregate of peer {peer} (V0)",
    "averaging:V2": "the checksums under the aggregate of peer {peer} do not add up to zero (V2)",
    "averaging:V3": "more than half of the contributors are too far from the aggregate of peer {peer} (V3)",
    "averaging:audit": "the aggregate of peer {peer} was drawn for an audit",
    "averaging:accusation": "the aggregate of peer {peer} is wrong",
    "checksum": "the checksum that peer {peer} claims is false (V1)",
    "gradient": "the gradient of peer {peer} is not the one of its public seed",
    "history": "what peer {peer}, removed before, contributed to an earlier step is false (undo)",
    "withheld:part": "too few hold the part that peer {peer} owes",
    "withheld:aggregate": "too few hold the aggregate of peer {peer}",
    "withheld:publication": "too few hold what peer {peer} had to publish",
    "unusable": "peer {peer} committed to entries that nobody can compute with",
}


@dataclass(slots=True)
class _Out:
    """Who had its verdict before an attempt.

    Args:
        banned: (step, attempt) of each peer's first verdict.
        back: first step of which a peer is in the roster again.
    """

    banned: dict[int, tuple[int, int]] = field(default_factory=dict)
    back: dict[int, int] = field(default_factory=dict)

    def before(self, peer: int, where: tuple[int, int]) -> bool:
        """True if a peer had its verdict before an attempt, and was not let back since."""
        when = self.banned.get(peer)
        return when is not None and when < where and not when[0] < self.back.get(peer, 0) <= where[0]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that there is to tell of an attempt.

    Args:
        kind: complaint, suspicion, dispute, charge, resolution, ban, conviction (who is convicted stays), undo, void,
            return or halt.
        text: in words, of a charge without what became of it.
        by, of: who accuses whom; whom a ban removes; None: nobody in particular.
        nodes: whose journals have it.
        verdict: of a charge.
    """

    kind: str
    text: str
    by: int | None = None
    of: int | None = None
    nodes: tuple[int, ...] = ()
    verdict: str = ""

    @property
    def words(self) -> str:
        """All of it."""
        return f"{self.text}; {self.verdict}" if self.verdict else self.text


class Explained(NamedTuple):
    """What there is to tell of one attempt."""

    step: int
    attempt: int
    lines: tuple[Line, ...]


def tell(run_dir: Path, nodes: Sequence[int]) -> Iterator[str]:
    """Lines of prose, in the order of steps; records that break the journals' rules are left out, as `verify` says.

    Args:
        run_dir: the run directory.
        nodes: whose journals to read.
    """
    return in_words(attempts(run_dir, nodes))


def in_words(explained: Iterable[Explained]) -> Iterator[str]:
    """Attempts as prose; steps of which the same is to be told share a line."""
    told = ((each.step, each.attempt, tuple(line.words for line in each.lines)) for each in explained)
    nothing = True
    for (attempt, texts), alike in groupby(told, key=itemgetter(1, 2)):
        nothing = False
        where = _where([step for step, _, _ in alike], attempt)
        yield from (f"{where}: {text}" for text in texts)
    if nothing:
        yield "nothing was disputed and nobody was accused"


def attempts(run_dir: Path, nodes: Sequence[int]) -> Iterator[Explained]:
    """What there is to tell of each attempt, in the order of steps; arguments as those of `tell`."""
    events: dict[tuple[int, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    out = _Out()
    for node in nodes:
        for line in JournalReader(run_dir, f"nodes/{node}/journal.jsonl", node).look():
            record = line.record
            # A retried step's phases are those of all its attempts: no telling which of them had the complaint.
            complained = line.event == "committed" and record["attempt"] == 0 and "HELD" in record["phases"]
            if record["event"] in _EVENTS or complained:
                events[(record["step"], record.get("attempt", 0))][record["event"]].append(record)
            if record["event"] == "banned":
                out.banned.setdefault(record["peer"], (record["step"], record["attempt"]))
            elif record["event"] == "returned":
                out.back[record["peer"]] = record["step"] + 1
    for where, found in sorted(events.items()):
        yield Explained(*where, tuple(_attempt(found, out, where)))


def _where(steps: Sequence[int], attempt: int) -> str:
    """The steps of which the same is told, one after the other."""
    again = f", attempt {attempt + 1}" if attempt else ""
    if len(steps) == 1:
        return f"step {steps[0]}{again}"
    all_of_them = steps[-1] - steps[0] == len(steps) - 1
    return f"steps {steps[0]} to {steps[-1]}{'' if all_of_them else f' ({len(steps)} of them)'}{again}"


def _attempt(found: Mapping[str, list[dict[str, Any]]], out: _Out, where: tuple[int, int]) -> Iterator[Line]:
    if found["committed"]:
        text = "an aggregator complained of a part; its sender published it to all, and the step went on"
        yield Line("complaint", text, nodes=_nodes(found["committed"]))
    yield from _suspicions(found["suspected"])
    yield from _disputes(found["disputed"])
    yield from _accusations(found, out, where)
    yield from _resolutions(found["resolved"])
    yield from _bans(found["banned"])
    for text in dict.fromkeys(undo_line(msgspec.convert(record, Undoing)) for record in found["undone"]):
        yield Line("undo", text, nodes=_nodes(found["undone"]))
    if found["voided"]:
        text = "the attempt had no effect but the removals; the step started again with whoever was left"
        yield Line("void", text, nodes=_nodes(found["voided"]))
    yield from _returns(found)
    for record in found["halted"]:
        yield Line("halt", f"node {record['node']} stopped: {record['problem']}", nodes=(record["node"],))


def _nodes(records: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(sorted({record["node"] for record in records}))


def _suspicions(records: list[dict[str, Any]]) -> Iterator[Line]:
    by: dict[tuple[str, int], set[int]] = defaultdict(set)
    for record in records:
        by[(record["phase"], record["peer"])].add(record["node"])
    for (phase, peer), nodes in sorted(by.items()):
        text = f"{_peers(nodes)} missed the {phase} of peer {peer} at the deadline and asked the others for it"
        yield Line("suspicion", text, of=peer, nodes=tuple(sorted(nodes)))


def _disputes(records: list[dict[str, Any]]) -> Iterator[Line]:
    if not records:
        return
    causes = dict.fromkeys(record["cause"] for record in sorted(records, key=lambda record: float(record["time"])))
    nodes = _nodes(records)
    yield Line("dispute", f"a dispute began at {_peers(set(nodes))}: {next(iter(causes))}", nodes=nodes)
    text = "they froze the attempt and agreed, in f + 1 rounds, on all messages that anyone had seen"
    yield Line("dispute", text, nodes=nodes)


def _accusations(
    found: Mapping[str, list[dict[str, Any]]], out: _Out, where: tuple[int, int]
) -> Iterator[Line]:  # fmt: skip
    reasons = {record["peer"]: record["reason"] for record in found["banned"]}
    retried = any(record["outcome"] == "retry" for record in found["resolved"])
    seen: dict[tuple[str, int, int | None, int | None], set[int]] = defaultdict(set)
    for record in found["accused"]:
        seen[record["kind"], record["accused"], record["part"], record["accuser"]].add(record["node"])
    for (kind, accused, part, accuser), nodes in seen.items():
        about = f" for part {part}" if part is not None else ""
        who = f"peer {accuser} said that" if accuser is not None else "everyone saw that"
        if kind == "history":
            text, verdict = f"somebody said that {_CHARGES[kind].format(peer=accused)}", "everyone recomputed it"
        else:
            moot = _moot(accused, accuser, reasons, out.before(accused, where), retried)
            verdict = f"everyone judged it: {_verdict(accused, accuser, reasons)}" if moot is None else f"moot: {moot}"
            text = f"{who} {_CHARGES.get(kind, kind).format(peer=accused)}{about}"
        yield Line("charge", text, accuser, accused, tuple(sorted(nodes)), verdict)


def _verdict(accused: int, accuser: int | None, reasons: Mapping[int, str]) -> str:
    if accused in reasons:
        return "guilty"
    falls = accuser is not None and reasons.get(accuser) == "false_accusation"
    return f"not guilty, and peer {accuser} falls for saying so" if falls else "not guilty"


def _moot(
    accused: int, accuser: int | None, reasons: Mapping[int, str], before: bool, retried: bool
) -> str | None:  # fmt: skip
    """Why a charge came to nothing without an acquittal; None if it was decided.

    An accuser answers for its word: where neither side falls, nothing was decided against either.
    """
    if retried:
        return "a dispute ended the attempt before the verdict"
    if accused in reasons or (accuser is not None and reasons.get(accuser) == "false_accusation"):
        return None
    if before:
        return f"peer {accused} had its verdict already"
    if "withheld" in reasons.values():
        return "what would have decided it was withheld"
    if accuser is None or accuser in reasons:
        return None
    return f"it stayed undecided, and peer {accuser} answers for nothing"


def _resolutions(records: list[dict[str, Any]]) -> Iterator[Line]:
    for outcome, removals in dict.fromkeys((record["outcome"], tuple(record["removals"])) for record in records):
        signers = {record["node"] for record in records if record["outcome"] == outcome}
        result = "the step stands as it was" if outcome == "commit" else "the attempt is void"
        removed = f"; removed: {_peers(set(removals))}" if removals else "; nobody is removed"
        text = f"a majority signed the outcome, and {_peers(signers)} acted on it: {result}{removed}"
        yield Line("resolution", text, nodes=tuple(sorted(signers)))


def _bans(records: list[dict[str, Any]]) -> Iterator[Line]:
    seen: dict[tuple[int, str, bool], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        seen[record["peer"], record["reason"], record["removed"]].append(record)
    for (peer, reason, removed), (record, *others) in sorted(seen.items()):
        verb = "was removed" if removed else "was banned but stays, honest from now on"
        more = f": {record['standing']}, not banned" if record["standing"] != "banned" else ""
        text = f"peer {peer} {verb} ({reason}): {sentence(reason)}{more}; evidence {record['path']}"
        yield Line("ban" if removed else "conviction", text, record["accuser"], peer, _nodes((record, *others)))


def _returns(found: Mapping[str, list[dict[str, Any]]]) -> Iterator[Line]:
    """Peers that were gone, on their way back."""
    for record in found["rejoining"]:
        text = f"peer {record['node']}, which was gone, has the state that a quorum told it, and follows on probation"
        yield Line("return", text, of=record["node"], nodes=(record["node"],))
    nodes = _nodes(found["probation"])
    for peer, correct, needed in dict.fromkeys((r["peer"], r["correct"], r["needed"]) for r in found["probation"]):
        text = f"everyone computed the gradient of peer {peer}, on probation, again: correct, {correct} of {needed}"
        yield Line("return", text, of=peer, nodes=nodes)
    for peer in dict.fromkeys(record["peer"] for record in found["returned"]):
        text = f"peer {peer} has served its probation and is in the roster from the next step on"
        yield Line("return", text, of=peer, nodes=_nodes(found["returned"]))


def _peers(ids: set[int]) -> str:
    names = ", ".join(str(peer) for peer in sorted(ids))
    return f"peer {names}" if len(ids) == 1 else f"peers {names}"
