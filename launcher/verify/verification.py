"""`btard-launch verify RUN`: what a run directory proves, what it contradicts, and what it leaves open.

The evidence, the certificates and the nodes' journals are checked by `node/verify/audit.py`; here everything that a
launcher made of them is made again: the summary, the collected events, the model.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from btard.launcher import exits
from btard.launcher.export import public
from btard.launcher.monitor import live_view
from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import LAUNCHER, METRICS
from btard.launcher.run import data, exit_report, run_directory
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.scoring import MODEL
from btard.launcher.run.summary import FINISHED, BanRow, Ending, Summary, summarise
from btard.launcher.verify import explanation
from btard.node.config import Role, RunConfig
from btard.node.errors import ConfigError, DataError
from btard.node.genesis.approval import APPROVALS, approvals_of
from btard.node.genesis.genesis import Genesis, read_genesis
from btard.node.storage import records
from btard.node.storage.journal import Record
from btard.node.storage.records import JournalReader, printable, read_regular, shown
from btard.node.verify import audit
from btard.node.verify.audit import Audit, Finding, unchecked

SUMMARY, EVENTS, COLLECTED = "summary.json", "events.jsonl", "metrics.jsonl"
_SUMMARY_BYTES = 256 << 20
_ELSEWHERE = 0.01
"""How far a test accuracy may be off that was computed in another environment."""
_SIGNED = frozenset({"majority", "certificate", "quorum"})
"""Kinds of findings that rest on signatures alone."""
_UNPROVEN = frozenset({"wall_seconds", "failures", "outcome", "problem", "model", "final_test_accuracy", "format",
                       "durability", "keys", "refused_records"})  # fmt: skip
"""Fields of the summary that do not follow from the journals."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    Args:
        genesis: digest of the run's public half, which every signature covers.
        findings: in the order of the run.
        warnings: what makes all of it worth less.
        advice: commands by which more of it can be checked.
    """

    genesis: str
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    advice: tuple[str, ...] = ()

    @property
    def wrong(self) -> int:
        """How many findings are bad."""
        return sum(not finding.ok for finding in self.findings)

    @property
    def checked(self) -> int:
        """How many findings there are, without what could not be checked."""
        return sum(finding.checked for finding in self.findings)

    @property
    def believed(self) -> int:
        """How many good findings rest on signatures: a majority's or the whole roster's word, without its reasons."""
        return sum(finding.ok and finding.checked and finding.kind in _SIGNED for finding in self.findings)

    @property
    def recomputed(self) -> int:
        """How many good findings were made or judged again here."""
        return self.checked - self.wrong - self.believed

    @property
    def undecided(self) -> int:
        """How many of those believed a recomputation would decide that cannot be done here."""
        return sum(finding.kind == "undecided" for finding in self.findings)

    @property
    def last_line(self) -> str:
        """All of it in one line."""
        lacking = f" ({self.undecided} of them for lack of a recomputation)" if self.undecided else ""
        return (
            f"{self.checked} finding{'' if self.checked == 1 else 's'}: {self.recomputed} recomputed, "
            f"{self.believed} believed on signatures{lacking}, {self.wrong} wrong, "
            f"{len(self.findings) - self.checked} not checked"
        )


def verify(run_dir: Path | str, data_directory: Path | None = None, imports: Sequence[Path] = ()) -> Report:
    """Check everything in a run directory that can be checked.

    Args:
        run_dir: the run directory, or one node's own in it.
        data_directory: the public data; None: where the run had it, or where it lies here.
        imports: files that the run was made with, if the caller trusts them.

    Raises:
        ConfigError: no run directory of this version, or one made with files that are not loaded.
    """
    with public.whole(Path(run_dir)) as found:
        return _verified(found, data_directory, imports)


def _verified(run_dir: Path, data_directory: Path | None, imports: Sequence[Path]) -> Report:
    genesis = read_genesis(run_dir)
    record, problem = _record(run_dir)
    done = audit.audit(run_dir, data_directory or data_directory_of(genesis.run, record), imports)
    findings = list(done.findings)
    if problem is not None:
        findings.append(problem)
    if record is not None:
        findings += _run_record(done, record)
    findings += _approvals(run_dir, genesis)
    told = _Told(run_dir, done)
    findings += told.compared(scored=(run_dir / SUMMARY).exists())
    stated = _stated(run_dir, told, findings)
    if stated is not None:
        findings += _outcome(stated, done, told)
        findings += _recounted(stated, done, record, told)
        findings += _model(run_dir, stated, done)
        findings += _accuracy(stated, done, record)
        findings.append(unchecked("loss", "it was measured at parameters of a step before the end, which are not kept"))
    findings.append(unchecked("roles", "nothing that is signed says who attacked; run.json alone does"))
    findings.append(
        unchecked(
            "journals",
            "durations, traffic, losses and earlier accuracies are the nodes' own word, and "
            "durability, keys and refused records the launcher's",
        )
    )
    seed = audit.known_seed(genesis, _seeds(done, record))
    warnings = () if seed is None else (f"keys derive from a known seed ({seed}): anyone can forge this run",)
    return Report(genesis.digest, tuple(findings), warnings, tuple(_advice(run_dir, done, record)))


def show(
    console: Console, run_dir: Path, data_directory: Path | None = None, explain: bool = False,
    imports: Sequence[Path] = (),
) -> int:  # fmt: skip
    """Check a run directory and print one line per finding; returns the exit code, 1 if anything is wrong.

    Raises:
        ConfigError: it is no run directory.
    """
    if not (run_dir / "genesis.json").is_file():
        why = "it has no genesis.json" if run_dir.exists() else "it does not exist"
        raise ConfigError(f"{run_dir} is not a run directory: {why}; name one below runs/")
    if explain:
        with public.whole(run_dir) as found:
            for line in explanation.tell(found, [member.id for member in read_genesis(found).members]):
                _print(console, line)
    report = verify(run_dir, data_directory, imports)
    _print(console, f"genesis  {report.genesis}")
    for finding in report.findings:
        _print(console, *_line(finding))
    for warning in report.warnings:
        _print(console, f"warning: {warning}", "yellow", len("warning"))
    for line in report.advice:
        console.print(Text(line), soft_wrap=True)  # to be pasted, so in one piece
    _print(console, report.last_line)
    return exits.FAILED if report.wrong else exits.OK


def _print(console: Console, line: str, style: str = "", marked: int = 0) -> None:
    """One line, its first `marked` characters in a style; on a terminal it is broken between words."""
    for part in live_view.hanging(console, printable(line), 6):
        text = Text(part)
        text.stylize(style, 0, marked)
        console.print(text, soft_wrap=True)
        marked = 0


def _line(finding: Finding) -> tuple[str, str, int]:
    """A finding in one line, and the style of so many characters at its beginning."""
    if not finding.checked:
        return f"not checked: {finding.subject}: {finding.explanation}", "", 0
    mark, style = ("ok  ", "green") if finding.ok else ("FAIL", "bold red")
    return f"{mark}  {finding.subject}: {finding.kind}: {finding.explanation}", style, len(mark)


# --- run.json -------------------------------------------------------------------------------------------------------


def _record(run_dir: Path) -> tuple[RunRecord | None, Finding | None]:
    """run.json, and what is wrong with it; a directory without one says nothing of roles."""
    if not (run_dir / "run.json").is_symlink() and not (run_dir / "run.json").exists():
        return None, unchecked("run.json", "there is none: nothing says who attacked, or where the data is")
    try:
        return run_directory.read_record(run_dir), None
    except ConfigError as error:
        return None, Finding("run.json", False, "damage", f"it cannot be read: {shown(error)}")


def data_directory_of(run: RunConfig, record: RunRecord | None) -> Path:
    """Where the run had its data, if it lies there on this machine; else where this machine has it."""
    there = Path(record.data_directory) if record is not None and record.data_directory else None
    return there if there is not None and data.lies_in(run, there) else data.directory(os.environ.get("BTARD_DATA_DIR"))


def _advice(run_dir: Path, done: Audit, record: RunRecord | None) -> Iterator[str]:
    """Where more could be recomputed."""
    if done.difference is not None and record is not None and contained(record):
        yield f"recompute in the run's own image: {command_in_image(run_dir, done.genesis.run.device)}"
    elif done.difference is not None:
        yield "recompute where nothing differs: there `btard-launch verify` decides by bits"


def contained(record: RunRecord) -> bool:
    """True if a run's nodes were containers."""
    return record.experiment.backend == "compose" or record.argv[:2] == ("docker", "compose")


def command_in_image(run_dir: Path, device: str = "cpu") -> str:
    """The command that verifies a run directory of this machine in the image of runs on `device`."""
    path, place = run_dir.resolve(), f"/tmp/{run_dir.resolve().name}"
    mount = ["-v", f"{path}:{place}:ro", *(["--gpus", "all"] if device == "cuda" else [])]
    words = ["docker", "run", "--rm", "--network", "none", *mount, f"btard:{device}", "btard-launch", "verify", place]
    return shlex.join(words)


def _run_record(done: Audit, record: RunRecord) -> Iterator[Finding]:
    """It has to be of this genesis, and its roles those that its own options give."""
    genesis = done.genesis
    mine, theirs = (record.run_id, record.run, record.wire_version), (genesis.run_id, genesis.run, genesis.wire_version)
    if mine != theirs:
        yield Finding("run.json", False, "damage", "it describes another run than genesis.json")
    try:
        roles = {str(peer): role for peer, role in record.experiment.roles().items()}
    except ConfigError:
        return  # an attack from a file that is not loaded here
    if roles != record.roles:
        yield Finding("run.json", False, "damage", "its roles are not those that its own options give")


def _approvals(run_dir: Path, genesis: Genesis) -> Iterator[Finding]:
    """Members that proposed themselves have to have signed the genesis, all of them, before the first step."""
    if not genesis.addresses:
        return
    try:
        known = approvals_of(genesis, run_dir)
    except ConfigError as error:
        yield Finding(APPROVALS, False, "damage", shown(error))
        return
    if known.missing:
        named = ", ".join(map(str, sorted(known.missing)))
        yield Finding(APPROVALS, False, "struck", f"there is no approval of peers {named}")
    else:
        yield Finding("approvals", True, "certificate", f"all {len(genesis.members)} members signed this genesis")


def _seeds(done: Audit, record: RunRecord | None) -> list[int]:
    """Seeds that anybody would try: those that the run directory names, and the defaults."""
    run = done.genesis.run
    seeds: list[int | None] = [0, run.init_seed, run.data_seed, Experiment().seeds.protocol]
    if record is not None:
        own = record.experiment
        seeds = [record.seeds.protocol, own.protocol_seed, own.seed, own.seeds.protocol, *seeds]
    return [seed for seed in seeds if seed is not None]


# --- what the launcher collected ------------------------------------------------------------------------------------


class _Told:
    """The nodes' journals, folded as the launcher does, and its own two files, which hold the same records.

    Args:
        run_dir: the run directory.
        done: its audit.
    """

    def __init__(self, run_dir: Path, done: Audit) -> None:
        self._run_dir, self._peers, self._founders = run_dir, done.genesis.run.capacity, done.genesis.run.peers
        self.lines: list[Record] = []
        self.notes: list[Record] = []
        self._journalled: dict[tuple[str, int], list[int]] = {}
        self._collected: dict[tuple[str, int], list[int]] = {}
        self._findings: list[Finding] = []
        for node in range(self._peers):
            for line in JournalReader(run_dir, f"nodes/{node}/journal.jsonl", node, self._peers).look():
                place = COLLECTED if line.event in METRICS else EVENTS
                self._journalled.setdefault((place, node), []).append(_mark(line.record))
                if line.event in records.TYPES:
                    self.lines.append(line.record)
        self._there = {name: self._collect(name) for name in (EVENTS, COLLECTED)}

    @property
    def ended(self) -> Record | None:
        """The launcher's own last word."""
        return next((note for note in reversed(self.notes) if note["event"] == "ended"), None)

    def state(self, byzantine: frozenset[int]) -> RunState:
        """What the launcher must have known at the end."""
        state = RunState(self._founders, byzantine, self._peers)
        for record in sorted(self.lines, key=lambda record: float(record["time"])):
            state.apply(record)
        return state

    def compared(self, scored: bool) -> Iterator[Finding]:
        """Each record of a node is in the collected files, and nothing else is; before a run is scored, some may not
        have been collected yet."""
        yield from self._findings
        whole = scored or self.ended is not None
        if not whole and not any(self._there.values()):
            yield unchecked(f"{EVENTS}, {COLLECTED}", "there are none")
            return
        for name in (EVENTS, COLLECTED):
            wrong = [node for node in range(self._peers) if not self._same(name, node, whole)]
            nodes = ", ".join(map(str, wrong))
            if wrong:
                yield Finding(name, False, "struck", f"its records differ from the journals of nodes {nodes}")
            else:
                yield Finding(name, True, "journals", "its records are those of the journals")

    def _same(self, name: str, node: int, whole: bool) -> bool:
        mine, theirs = self._journalled.get((name, node), []), self._collected.get((name, node), [])
        return theirs == (mine if whole else mine[: len(theirs)])

    def _collect(self, name: str) -> bool:
        try:
            for number, record in enumerate(_lines(self._run_dir, name), 1):
                node, event = record.get("node"), record.get("event")
                if node == LAUNCHER and isinstance(event, str):
                    self._note(name, number, record)
                elif isinstance(node, int) and isinstance(event, str):
                    self._collected.setdefault((name, node), []).append(_mark(record))
                else:
                    what = "it is of no node"
                    self._findings.append(Finding(f"{name}, record {number}", False, "damage", what))
        except FileNotFoundError:
            return False
        except DataError as error:
            self._findings.append(Finding(name, False, "damage", str(error)))
        return True

    def _note(self, name: str, number: int, record: Record) -> None:
        """An event of the launcher's own; those of a scenario are part of the run's state."""
        try:
            if record["event"] == "scenario":
                msgspec.convert({**record, "node": 0}, type=records.Scenario)
                if any(peer >= self._peers for peer in record["peers"]):
                    raise DataError("it names a peer that is not in the roster")
                self.lines.append(record)
        except (msgspec.MsgspecError, DataError) as error:
            self._findings.append(Finding(f"{name}, record {number}", False, "damage", shown(error)))
        else:
            self.notes.append(record)


def _lines(run_dir: Path, name: str) -> Iterator[Record]:
    """The records of a file of the launcher's."""
    for line in read_regular(run_dir, name, records.JOURNAL_BYTES).splitlines():
        try:
            record = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DataError(f"it is damaged: {shown(error)}") from error
        yield record


def _mark(record: Record) -> int:
    """A record in eight bytes."""
    return hash(msgspec.json.encode(record))


# --- summary.json ---------------------------------------------------------------------------------------------------


def _stated(run_dir: Path, told: _Told, findings: list[Finding]) -> Summary | None:
    """summary.json; what is wrong with it is added to the findings."""
    try:
        return msgspec.json.decode(read_regular(run_dir, SUMMARY, _SUMMARY_BYTES), type=Summary)
    except FileNotFoundError:
        if told.ended is not None:
            findings.append(
                Finding(SUMMARY, False, "struck", "it is missing, and events.jsonl says that the run ended")
            )
        else:
            findings.append(unchecked(SUMMARY, "there is none: the run has not been scored"))
    except DataError as error:
        findings.append(Finding(SUMMARY, False, "damage", str(error)))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        findings.append(Finding(SUMMARY, False, "damage", f"it cannot be read: {shown(error)}"))
    return None


def _outcome(stated: Summary, done: Audit, told: _Told) -> Iterator[Finding]:
    """A run has finished if a majority's final state proves it; how else it ended, the launcher's last word says."""
    last = told.ended
    if stated.outcome == FINISHED and done.final is None:
        yield Finding(SUMMARY, False, "summary", "it says that the run finished, and no final state is proven")
    elif last is None:
        yield Finding(SUMMARY, False, "struck", f"{EVENTS} has no record of how the run ended")
    elif (stated.outcome, stated.problem) != (last.get("outcome"), last.get("problem")):
        said = shown(last.get("outcome"))
        yield Finding(SUMMARY, False, "summary", f"its outcome is {shown(stated.outcome)}, {EVENTS} says {said}")
    else:
        yield Finding("outcome", True, "summary", f"{stated.outcome}, as {EVENTS} says")


def _recounted(stated: Summary, done: Audit, record: RunRecord | None, told: _Told) -> Iterator[Finding]:
    """The summary is made again from journals and roles; each field that differs is a finding."""
    if record is None:
        yield unchecked(SUMMARY, "without run.json nothing says whose journals count")
        return
    roles = {int(peer): role for peer, role in record.roles.items() if peer.isdecimal()}
    state = told.state(frozenset(roles))
    made = _made_again(stated, done, roles, state)
    wrong = False
    for name in Summary.__struct_fields__:
        if name in _UNPROVEN or (name == "bytes_expected" and made.bytes_expected is None):
            continue
        mine, theirs = _comparable(getattr(made, name), name), _comparable(getattr(stated, name), name)
        if mine != theirs:
            wrong = True
            text = f"{name} is {_short(getattr(stated, name))}, the journals give {_short(getattr(made, name))}"
            yield Finding(SUMMARY, False, "summary", text)
    for row in (row for standing in ("bans", "gone", "eliminated") for row in getattr(stated, standing)):
        if not _recorded(row, told.lines, roles):
            wrong = True
            text = f"it names evidence of peer {row.peer} at step {row.step} that no honest node's journal has"
            yield Finding(SUMMARY, False, "summary", text)
    if stated.outcome == FINISHED and not exit_report.all_finished(state):
        wrong = True
        yield Finding(SUMMARY, False, "summary", "it says that the run finished, and honest nodes have not")
    if not wrong:
        yield Finding(SUMMARY, True, "summary", "made again from journals and roles, it is the same")


def _made_again(stated: Summary, done: Audit, roles: dict[int, Role], state: RunState) -> Summary:
    dimension = done.task.dimension if done.task is not None else None
    if dimension is None and done.parameters_D is not None:
        dimension = done.parameters_D.numel()
    how = Ending(stated.outcome, stated.wall_seconds, stated.problem, stated.final_test_accuracy, dimension,
                 tuple(stated.failures), stated.model, entry_bytes=done.genesis.run.entry_bytes)  # fmt: skip
    return summarise(done.genesis.run_id, state, roles, how)


def _comparable(value: object, name: str) -> object:
    """A field's value without what depends on which node was heard first, or on how times fell together."""
    plain: Any = msgspec.to_builtins(value)
    if name in ("bans", "gone", "eliminated", "returned"):
        return [{key: row[key] for key in row if not key.startswith("evidence")} for row in plain]
    if name == "scenario":
        return sorted(plain, key=repr)
    return plain


def _recorded(row: BanRow, lines: Iterable[Record], roles: dict[int, Role]) -> bool:
    wanted = row.evidence, row.evidence_digest, row.step, row.peer
    return any(
        record["event"] == "banned" and record["node"] not in roles
        and (record["path"], record["evidence"], record["step"], record["peer"]) == wanted
        for record in lines
    )  # fmt: skip


def _short(value: object) -> str:
    return shown(msgspec.json.encode(value).decode())


# --- model and accuracy ---------------------------------------------------------------------------------------------


def _model(run_dir: Path, stated: Summary, done: Audit) -> Iterator[Finding]:
    """The saved model holds the certified parameters."""
    if stated.model is None:
        if stated.outcome == FINISHED:
            yield Finding(SUMMARY, False, "struck", "the run finished, and it names no model")
        return
    if done.parameters_D is None:
        yield unchecked("model", "no final state is proven that it could be held against")
        return
    try:
        if stated.model != MODEL:
            raise DataError(f"{SUMMARY} names it {shown(stated.model)!r}")
        saved = read_regular(run_dir, MODEL, 8 * done.parameters_D.numel() + (16 << 20))
        problem = audit.model_problem(saved, done.parameters_D, done.task)
    except FileNotFoundError:
        problem = "it is missing"
    except DataError as error:
        problem = str(error)
    if problem is not None:
        yield Finding(MODEL, False, "model", problem)
    else:
        yield Finding(MODEL, True, "model", "it holds the certified parameters")


def _accuracy(stated: Summary, done: Audit, record: RunRecord | None) -> Iterator[Finding]:
    """The final test accuracy, computed again from the certified parameters."""
    said = stated.final_test_accuracy
    if stated.outcome != FINISHED and said is None:
        return
    if done.parameters_D is None:
        yield unchecked("accuracy", "no final state is proven that it could be computed from")
        return
    if done.task is None:
        yield unchecked("accuracy", f"the public data is not here ({done.data_problem})")
        return
    found = audit.accuracy(done.task, done.parameters_D)
    if found is None:
        yield unchecked("accuracy", "the task has no test items")
        return
    # Where a launcher had its nodes in containers, it computed the accuracy itself, outside.
    outside = record is not None and record.experiment.backend == "compose"
    allowed = 0.0 if done.same_environment and not outside else _ELSEWHERE
    if said is None or not math.isfinite(said) or abs(found - said) > allowed:
        text = f"{SUMMARY} says {shown(said)}, the certified parameters give {found:.6g}"
        yield Finding("final test accuracy", False, "summary", text)
        return
    where = "" if allowed == 0.0 else f", in another environment than the summary's (within {_ELSEWHERE:g})"
    yield Finding("final test accuracy", True, "model", f"the certified parameters give {found:.6g}{where}")
