"""Checks a finished run from the outside: its bans from their evidence, its final state from its certificate.

Only genesis.json, the public data and what is signed are believed; the nodes' journals are compared with them. Any of
these files may have been written by a Byzantine node, or changed since: what breaks the rules of
`node/storage/records.py` is a finding, and the rest is checked all the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch
from blake3 import blake3
from torch import Tensor

from btard.node.build import environment_of, settings_of, task_of, tools_of
from btard.node.config import RunConfig
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError, DataError, WireError
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, genesis_roster, read_genesis
from btard.node.plugins import extensions
from btard.node.protocol.adjudication.offences import standing
from btard.node.protocol.evidence.format import tensor_of
from btard.node.protocol.evidence.verifier import Final, Ground, Proof, UnprovenError, Verifier
from btard.node.protocol.state.state import Ban, parameters_digest
from btard.node.protocol.wire.encoding import tensor_bytes
from btard.node.protocol.wire.messages import view_bytes
from btard.node.storage import records
from btard.node.storage.records import JournalReader, read_regular, shown
from btard.node.training.environment import Environment, difference, encoded, pin, usable
from btard.node.training.task import Task, state_dict

_PARAMETERS_BYTES = 1 << 34
"""Largest parameter file where the data, and with it the task's dimension, is missing."""
_MANY_LIVES = 8
"""How many environments of one node are looked at."""

Key = tuple[int, int, int]
"""Step, attempt and peer of a ban or a return."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, or could not be.

    Args:
        subject: what, in words (`ban of peer 5 at step 107`, `removal (gone) of peer 4 at step 3`).
        ok: nothing is wrong with it.
        kind: `recomputation`, `transcript`, `equivocation` or `majority` for a ban's or removal's proof; `certificate`,
            `quorum`, `journals`, `summary`, `model`; `damage` and `struck` for what is wrong; `error` for a fault of
            the check itself; `undecided` for a recomputation that cannot be done here.
        explanation: why, in one sentence.
        checked: false for what nothing here proves or refutes.
    """

    subject: str
    ok: bool
    kind: str
    explanation: str
    checked: bool = True


def unchecked(name: str, why: str) -> Finding:
    """What is not proven, and why."""
    return Finding(name, True, "not checked", why, checked=False)


@dataclass(frozen=True, slots=True)
class Audit:
    """What a check of a run directory came to.

    Args:
        genesis: of the run.
        findings: in the order of the run.
        task: None: the public data is not here, and `data_problem` says so.
        final: the certified end of the run; None: it has none.
        parameters_D: those that it covers.
        same_environment: the run computed in the environment of this machine.
        difference: what differs between that environment and the run's, in words; None: nothing, or not known.
    """

    genesis: Genesis
    findings: list[Finding]
    task: Task | None
    data_problem: str | None
    final: Final | None
    parameters_D: Tensor | None
    same_environment: bool
    difference: str | None = None


def check_run(run_dir: Path, data_directory: Path | None = None, imports: Sequence[Path] = ()) -> list[Finding]:
    """The findings of `audit`; arguments and errors as there."""
    return audit(run_dir, data_directory, imports).findings


def audit(run_dir: Path, data_directory: Path | None = None, imports: Sequence[Path] = ()) -> Audit:
    """Check every ban and return of every node, the certified final state, and that no journal lacks any of it.

    Where the run's device or the public data is missing, what only a recomputation could decide is found to be signed
    by the whole roster, and said so.

    Args:
        run_dir: the run directory.
        data_directory: the public data; None: where the run had it.
        imports: files that the run was made with, if the caller trusts them; they are loaded first.

    Raises:
        ConfigError: no run directory of this version, or one made with files that are not loaded.
    """
    genesis = read_genesis(run_dir)
    if genesis.run.topology != "butterfly":
        raise ConfigError(f"{run_dir} is a comparison run ({genesis.run.topology}): nothing in it is signed or banned")
    extensions.load(imports)
    here = _here(genesis.run)
    pin(here.device)
    task, data_problem, lacking = None, None, "the public data"
    try:
        task = task_of(here, data_directory or _data_of(run_dir))
    except DataError as error:
        data_problem = str(error)
    except BackendError as error:
        data_problem, lacking = str(error), "the run's arithmetic"
    told = [_read_journal(run_dir, node, genesis.run.capacity) for node in _nodes(run_dir, genesis.run)]
    mine = environment_of(here, task)
    check = _Check(run_dir, genesis, task, encoded(mine), told)
    findings = check.run()
    if data_problem is not None:
        findings.append(unchecked("gradients", f"no recomputation without {lacking} ({data_problem})"))
    ends = check.ends
    same = bool(ends) and check.verifier.same_environment(ends[0].final.summary)
    differs = check.difference(mine) if task is not None else None  # without it nobody knows what is computed here
    if differs is not None:
        findings.append(unchecked("gradients", f"no recomputation in another environment than the run's: {differs}"))
    final, parameters_D = (check.final.final, check.final.parameters_D) if check.final is not None else (None, None)
    return Audit(genesis, findings, task, data_problem, final, parameters_D, same, differs)


def _nodes(run_dir: Path, run: RunConfig) -> tuple[int, ...]:
    """The founders, and the newcomers of which something is here."""
    newcomers = (node for node in range(run.peers, run.capacity) if (run_dir / "nodes" / str(node)).is_dir())
    return (*range(run.peers), *newcomers)


def known_seed(genesis: Genesis, candidates: Iterable[int]) -> int | None:
    """The first of some seeds that the run's keys derive from: whoever knows it can sign for every peer."""
    public = {member.signing_key for member in genesis.members}
    for seed in dict.fromkeys(candidates):
        try:
            derived, _ = keys.generate(seed, len(genesis.members))
        except ConfigError:
            continue
        if any(member.signing_key in public for member in derived):
            return seed
    return None


def final(
    run: RunConfig, data_directory: Path, parameters_file: Path, imports: Sequence[Path] = (), digest: str | None = None
) -> tuple[Task, Tensor]:
    """The task of a run and its saved final parameters, float32 `[D]`.

    Args:
        run: its configuration; the device is this machine's where there is no such one here.
        data_directory: the public data.
        parameters_file: where they lie.
        imports: files that the run was made with.
        digest: of the parameters, whose file may have been changed since it was checked.

    Raises:
        ConfigError: the run was made with files that are not loaded.
        DataError: the parameters or the data cannot be read.
    """
    extensions.load(imports)
    task = task_of(_here(run), data_directory)
    return task, _parameters(parameters_file, task, digest)


def evaluate_final(
    run: RunConfig, data_directory: Path, parameters_file: Path, imports: Sequence[Path] = (), digest: str | None = None
) -> float | None:
    """Accuracy of saved parameters on all test items, between 0 and 1; arguments and errors as for `final`."""
    pin(_here(run).device)
    return accuracy(*final(run, data_directory, parameters_file, imports, digest))


def accuracy(task: Task, parameters_D: Tensor) -> float | None:
    """Share of all test items that parameters get right; None: the task has no test items."""
    return task.evaluate(parameters_D, 0, task.test_size) / task.test_size if task.test_size else None


def save_model(
    run: RunConfig, data_directory: Path, parameters_file: Path, target: Path, imports: Sequence[Path] = (),
    digest: str | None = None,
) -> None:  # fmt: skip
    """Save a state dictionary that `torch.load(weights_only=True)` reads: parameters, then the buffers of the task's
    module, if it has one; arguments as for `final`.

    Raises:
        DataError: the parameters cannot be read.
        BackendError: the file cannot be written.
    """
    task, parameters_D = final(run, data_directory, parameters_file, imports, digest)
    tensors = _tensors(task, parameters_D)
    temporary = target.with_suffix(".tmp")
    try:
        torch.save(tensors, temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        raise BackendError(f"cannot write the model {target}: {error}; free the disk and run again") from error


def _tensors(task: Task, parameters_D: Tensor) -> dict[str, Tensor]:
    """The state dictionary of a task's model: its parameters in their order, and then the buffers that it names."""
    tensors, buffers = state_dict(task.layout, parameters_D), getattr(task, "buffers", frozenset[str]())
    if buffers:
        found = task.module(parameters_D).state_dict()  # type: ignore[attr-defined]
        tensors |= {name: each.cpu() for name, each in found.items() if name in buffers}
    return tensors


def model_problem(data: bytes, parameters_D: Tensor, task: Task | None) -> str | None:
    """What is wrong with a saved model, None if it holds exactly these parameters, and buffers as they give them.

    Args:
        data: the file.
        parameters_D: float32 `[D]`.
        task: None: not known here; the order of the parameters alone counts, and buffers are not looked at.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch stores; what is packed may unpack to any size.
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                return "it is packed, which torch.save does not do"
        tensors = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a forged pickle makes of the reader
        return f"it cannot be read: {type(error).__name__}: {shown(error)}"
    if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
        return "it is no dictionary of tensors"
    if task is not None:
        wanted = _tensors(task, parameters_D)
        if _kinds(tensors) != _kinds(wanted):
            return "its tensors are not those of the task"
        buffers = wanted.keys() - {layer.name for layer in task.layout}
        # Computed here, perhaps with other kernels than where they were saved.
        if not all(torch.allclose(tensors[name].double(), wanted[name].double(), 1e-3, 1e-4) for name in buffers):
            return "its buffers are not those that its parameters give"
        tensors = {layer.name: tensors[layer.name] for layer in task.layout}
    left, flat = parameters_D.numel(), list[Tensor]()
    for each in tensors.values():
        if left > 0:
            flat.append(each.detach().flatten())
            left -= each.numel()
    same = left == 0 and all(each.dtype == torch.float32 for each in flat)
    if not same or bytes(tensor_bytes(torch.cat(flat))) != bytes(tensor_bytes(parameters_D)):
        return "its values are not the certified parameters"
    return None


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(each.shape), each.dtype) for name, each in tensors.items()}


def _here(run: RunConfig) -> RunConfig:
    """The run, computed with what this machine has."""
    return msgspec.structs.replace(run, device=usable(run.device))


def _parameters(path: Path, task: Task, digest: str | None = None) -> Tensor:
    try:
        parameters_D = tensor_of(read_regular(path.parent, path.name, 4 * task.dimension))
    except (OSError, DataError, WireError) as error:
        raise DataError(f"cannot read the parameters {path}: {error}; run again") from error
    if digest is not None and parameters_digest(parameters_D).hex() != digest:
        raise DataError(f"{path} is not what it was when its certificate was checked; run again")
    if parameters_D.numel() != task.dimension:
        raise DataError(f"{path} holds {parameters_D.numel()} parameters instead of {task.dimension}; run again")
    return parameters_D


def _data_of(run_dir: Path) -> Path:
    """Where the run had its data, as its own record says."""
    try:
        record = msgspec.json.decode(read_regular(run_dir, "run.json", GENESIS_BYTES))
        return Path(record["data_directory"])
    except (OSError, DataError, msgspec.MsgspecError, ValueError, RecursionError, KeyError, TypeError):
        return run_dir / "data"


# --- what the nodes journalled --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Told:
    """What one node's journal says, as far as signatures can prove it.

    Args:
        node: whose it is.
        findings: what is wrong with the journal itself.
        bans, returns: by step, attempt and peer.
        steps: (parameter digest, state digest) of each committed step.
        resumed: (step, attempt) at which the node went on after a restart.
        environments: in which it says it computed, the first few.
        lines: how many records it has.
    """

    node: int
    findings: list[Finding] = field(default_factory=list)
    bans: dict[Key, records.Banned] = field(default_factory=dict)
    returns: dict[Key, records.Returned] = field(default_factory=dict)
    finished: records.Finished | None = None
    steps: dict[int, tuple[str, str]] = field(default_factory=dict)
    resumed: list[tuple[int, int]] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    lines: int = 0

    @property
    def folder(self) -> str:
        """Of the node in the run directory."""
        return f"nodes/{self.node}"

    @property
    def journal(self) -> str:
        """Of the node in the run directory."""
        return f"{self.folder}/journal.jsonl"

    def missed(self, step: int, attempt: int) -> bool:
        """True if the node may have been down when an attempt's end was to be journalled: it went on right behind."""
        return any(at - 1 <= step and (step, attempt) < (at, number) for at, number in self.resumed)


def _read_journal(run_dir: Path, node: int, peers: int) -> _Told:
    told = _Told(node)
    reader = JournalReader(run_dir, told.journal, node, peers)
    for line in reader.look():
        told.lines += 1
        entry, twice = line.entry, False
        match entry:
            case records.Banned(step=step, attempt=attempt, peer=peer):
                twice = _differs(told.bans.setdefault((step, attempt, peer), entry), entry)
            case records.Returned(step=step, attempt=attempt, peer=peer):
                twice = _differs(told.returns.setdefault((step, attempt, peer), entry), entry)
            case records.Finished():
                told.finished = told.finished or entry
                twice = _differs(told.finished, entry)
            case records.Committed(step=step):
                digests = entry.parameter_digest, entry.state_digest
                twice = told.steps.setdefault(step, digests) != digests
            case records.Environment() if len(told.environments) < _MANY_LIVES:
                with contextlib.suppress(msgspec.ValidationError):  # whoever made it up: no certified state covers it
                    told.environments.append(msgspec.convert(entry.facts, Environment, strict=True))
            case records.Resumed():
                told.resumed.append((entry.step, entry.attempt))
        if twice:
            where = f"{told.journal}, record {line.number}"
            told.findings.append(Finding(where, False, "damage", f"it contradicts an earlier {line.event!r} record"))
    for problem in reader.problems:
        where, _, what = problem.partition(": ")
        told.findings.append(Finding(where, False, "damage", what))
    return told


def _differs(first: records.Entry, second: records.Entry) -> bool:
    """True if two records of one thing say different things of it; each life of a node may tell it once."""
    known = ("bulk_bytes", "control_bytes", "publication_bytes", "time")
    mine, other = ({name: getattr(each, name) for name in each.__struct_fields__ if name not in known}
                   for each in (first, second))  # fmt: skip
    return mine != other


# --- the check ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End:
    """A node's final state, proven."""

    node: int
    final: Final
    parameters_D: Tensor


class _Check:
    """One check of a run directory."""

    def __init__(
        self, run_dir: Path, genesis: Genesis, task: Task | None, environment: bytes, told: Sequence[_Told]
    ) -> None:
        self._run_dir, self._genesis, self._told, self._lacking = run_dir, genesis, told, task is None
        peers = genesis.run.capacity
        self._dimension = task.dimension if task is not None else self._likely_dimension()
        self._evidence_bytes = (1 << 20) + 2 * view_bytes(peers) + 32 * self._dimension
        settings = settings_of(genesis.run_id, genesis.run, genesis.members, self._dimension, environment)
        ground = Ground(
            settings=settings,
            tools=tools_of(genesis.run),
            keys=genesis_roster(genesis.members).keys,
            initial_D=task.initial(genesis.run.init_seed) if task is not None else None,
            recompute=(lambda parameters_D, seed: task.gradient(parameters_D, seed)[0]) if task is not None else None,
        )
        self.verifier = Verifier(ground)
        self.ends: list[_End] = []
        self.final: _End | None = None

    def run(self) -> list[Finding]:
        """Everything, in the order of the run."""
        found = [finding for told in self._told for finding in told.findings]
        found += self._roster()
        found += [finding for told in self._told for finding in self._orphans(told)]
        found += self._believed()
        found += [finding for told in self._told for finding in self._end_of(told)]
        found += self._quorum()
        found += [finding for told in self._told for finding in self._struck(told)]
        silent = [str(told.node) for told in self._told if not told.lines]
        if silent:
            found.append(unchecked(f"journals of nodes {', '.join(silent)}", "there is no record of them here"))
        return found

    def difference(self, here: Environment) -> str | None:
        """What differs between this machine's environment and the one that a certified state says the run had; None:
        nothing, or nothing that shows without the data, or the run had no common one."""
        state = self.verifier.elsewhere
        if state is None:
            return None
        told = (each for told in self._told for each in told.environments)
        # A node may say anything of itself: only facts that the certified digest covers are the run's.
        there = next((each for each in told if self.verifier.computed_in(state, encoded(each))), None)
        if there is None:
            return "no journal here says which"
        return difference(here, there) or (None if self._lacking else "other probes were taken: another release?")

    def _likely_dimension(self) -> int:
        """Without the task: what most nodes' final parameters have."""
        sizes: Counter[int] = Counter()
        for told in self._told:
            try:
                descriptor = records.open_regular(self._run_dir, f"{told.folder}/parameters.f32")
            except (OSError, DataError):
                continue
            sizes[min(os.fstat(descriptor).st_size, _PARAMETERS_BYTES) // 4] += 1
            os.close(descriptor)
        return max([*(size for size, _ in sizes.most_common(1)), self._genesis.run.peers])

    # --- bans and returns ---------------------------------------------------------------------------------------

    def _roster(self) -> Iterator[Finding]:
        """Every evidence file of every node; bans that took effect together are settled together, and before the
        returns of the same step."""
        for where in sorted({key[:2] for told in self._told for key in (*told.bans, *told.returns)}):
            peers = sorted({key[2] for told in self._told for key in told.bans if key[:2] == where})
            together = []
            for peer in peers:
                proven, findings = self._ban((*where, peer))
                together += proven
                yield from findings
            self.verifier.settle(together)
            for peer in sorted({key[2] for told in self._told for key in told.returns if key[:2] == where}):
                yield from self._return((*where, peer))

    def _ban(self, key: Key) -> tuple[list[Ban], list[Finding]]:
        """What the nodes' files prove of one ban."""
        step, _, peer = key
        written = [told.bans[key] for told in self._told if key in told.bans]
        subject, findings, proofs = _verdict(written[0].reason, peer, step), [], []
        for record in written:
            try:
                proofs.append(self._ban_file(record))
            except UnprovenError as problem:
                findings.append(Finding(f"{subject}, {shown(record.path)}", False, "damage", str(problem)))
            except Exception as error:
                findings.append(_fault(f"{subject}, {shown(record.path)}", error))
        if proofs:
            first = proofs[0]
            text = f"{first.explanation} ({_files(len(proofs))})"
            findings.append(Finding(subject, True, first.kind, text))
            if first.undecided:
                what = f"recomputation for the {subject}"
                findings.append(Finding(what, True, "undecided", "only its signatures were checked", checked=False))
        return [proof.ban for proof in proofs[:1]], findings

    def _ban_file(self, record: records.Banned) -> Proof:
        data = self._file_of(record.node, record.path, "evidence/", self._evidence_bytes)
        proof = self.verifier.check(data)
        ban = proof.ban
        claimed = (record.step, record.attempt, record.peer, record.reason, record.accuser, record.removed)
        if claimed != (ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed):
            raise UnprovenError(f"it proves another ban than the journal names: {ban}")
        if record.standing != standing(ban.reason):
            raise UnprovenError(f"the journal calls the peer {shown(record.standing)!r}, which does not follow from it")
        _check_digest(data, record.evidence)
        return proof

    def _return(self, key: Key) -> Iterator[Finding]:
        """A peer is back because the certified state says so: everybody found its gradients on probation correct."""
        step, _, peer = key
        subject, good = self._back(peer, step), 0
        for record in (told.returns[key] for told in self._told if key in told.returns):
            try:
                data = self._file_of(record.node, record.path, "evidence/", self._evidence_bytes)
                _check_digest(data, record.evidence)
                if record.node == peer:
                    yield from self._while_away(peer, step, data)
                self.verifier.readmit(data)
                if (peer, step + 1) not in self.verifier.returned:
                    raise UnprovenError("it certifies another return than the journal names")
                good += 1
            except UnprovenError as problem:
                yield Finding(f"{subject}, {shown(record.path)}", False, "damage", str(problem))
            except Exception as error:
                yield _fault(f"{subject}, {shown(record.path)}", error)
        if good:
            text = f"the certified state says that it served its probation ({_files(good)})"
            yield Finding(subject, True, "certificate", text)

    def _back(self, peer: int, step: int) -> str:
        what = "return" if peer < self._genesis.run.peers else "admission"
        return f"{what} of peer {peer} after step {step}"

    def _while_away(self, peer: int, step: int, data: bytes) -> Iterator[Finding]:
        """What happened before a peer was let in has left no evidence in its files. Where nobody's files here have any,
        the state that let it in is believed about it, as a light client believes it: see `Verifier.take_word`."""
        trial = self.verifier.copy()
        with contextlib.suppress(UnprovenError):
            trial.readmit(data)
            return
        bans, returned = trial.take_word(data)
        away = [*(ban.step for ban in bans), *(since - 1 for _, since in returned if since != step + 1)]
        if not away or any(at in told.steps for at in away for told in self._told):
            return  # who has committed a step has its evidence
        self.verifier = trial
        why = (
            f"it happened while node {peer} was away; the members' signatures on the state that let it in are believed"
        )
        for ban in bans:
            yield unchecked(_verdict(ban.reason, ban.peer, ban.step), why)
        for other, since in returned:
            if since != step + 1:
                yield unchecked(self._back(other, since - 1), why)

    def _file_of(self, node: int, path: str, below: str, limit: int) -> bytes:
        """A file that a record names; it has to lie in its node's own folder.

        Raises:
            UnprovenError: it cannot be read.
        """
        if not path.startswith(f"nodes/{node}/{below}"):
            raise UnprovenError(f"the record of node {node} names a file outside nodes/{node}/{below}")
        try:
            return read_regular(self._run_dir, path, limit)
        except FileNotFoundError as error:
            raise UnprovenError("the file is missing") from error
        except DataError as error:
            raise UnprovenError(str(error).partition(": ")[2]) from error

    def _orphans(self, told: _Told) -> Iterator[Finding]:
        """Evidence that no record names: the record was struck, and with it a ban or a return."""
        named = {ban.path for ban in told.bans.values()} | {back.path for back in told.returns.values()}
        folder = f"{told.folder}/evidence"
        for name in records.names(self._run_dir, folder):
            # A crash may leave the beginning of a file under its temporary name.
            if f"{folder}/{name}" not in named and not name.endswith(".tmp"):
                subject = shown(f"{folder}/{name}")
                yield Finding(subject, False, "struck", f"no record of {told.journal} names it")

    # --- the final state ----------------------------------------------------------------------------------------

    def _believed(self) -> Iterator[Finding]:
        """What happened while a node was away has left no evidence in its files. Where nobody's files have any, the
        state that the members signed is believed about it."""
        here = [told for told in self._told if told.lines]
        if not here or len(here) == len(self._told) or any(told.finished is None for told in here):
            return
        told = min(here, key=lambda each: len(each.steps))
        try:
            data = self._file_of(told.node, f"{told.folder}/certificate", "", self._evidence_bytes)
            trial = self.verifier.copy()
            bans, returned = trial.take_word(data)
        except UnprovenError:
            return  # it is looked at again, where it is said
        away = [*(ban.step for ban in bans), *(since - 1 for _, since in returned)]
        if any(step in each.steps for step in away for each in here):
            return  # who has committed a step has its evidence
        self.verifier = trial
        why = f"it happened while node {told.node} was away; the members' signatures on the final state are believed"
        for ban in bans:
            yield unchecked(_verdict(ban.reason, ban.peer, ban.step), why)
        for peer, since in returned:
            yield unchecked(self._back(peer, since - 1), why)

    def _end_of(self, told: _Told) -> Iterator[Finding]:
        """A node's final parameters: whatever it says, its files are looked at."""
        subject, place = f"final parameters of node {told.node}", f"{told.folder}/parameters.f32"
        files = {name: self._there(f"{told.folder}/{name}") for name in ("parameters.f32", "certificate")}
        if told.finished is None:
            for name in (name for name, there in files.items() if there):
                why = f"{told.journal} has no 'finished' record"
                yield Finding(f"{told.folder}/{name}", False, "struck", why)
            return
        try:
            if told.finished.path != place:
                raise UnprovenError(f"the journal names {shown(told.finished.path)!r} instead of {place}")
            limit = 4 * self._dimension
            parameters_D = tensor_of(self._file_of(told.node, place, "", limit))
            data = self._file_of(told.node, f"{told.folder}/certificate", "", self._evidence_bytes)
            final = self.verifier.check_final(data, parameters_D)
            self.verifier.check_last(final)
            _check_journal(told, final)
        except (UnprovenError, WireError) as problem:
            yield Finding(subject, False, "damage", str(problem))
        except Exception as error:
            yield _fault(subject, error)
        else:
            self.ends.append(_End(told.node, final, parameters_D))
            how = "a majority's OUTCOMEs cover" if final.by_outcome else "the CLOSEs of the whole roster cover"
            yield Finding(subject, True, "certificate", f"{how} them and the ban list")

    def _there(self, name: str) -> bool:
        try:
            os.close(records.open_regular(self._run_dir, name))
        except FileNotFoundError:
            return False
        except DataError:
            return True
        return True

    def _quorum(self) -> Iterator[Finding]:
        """A certificate of the last step is final once a majority of its roster has finished with it. An OUTCOME
        outranks a certificate: who ended by another one has been cut off."""
        if not self.ends:
            told = any(told.finished is not None for told in self._told)
            if not told:
                yield unchecked("final state", "no node has finished: nothing says how the run ended")
            return
        best = max(self.ends, key=lambda end: (end.final.by_outcome, end.final.attempt))
        equal = [end for end in self.ends if _same_end(end.final, best.final)]
        for end in self.ends:
            if end not in equal:
                text = f"it ends in another state than that of node {best.node}, which outranks it"
                yield Finding(f"final parameters of node {end.node}", False, "damage", text)
        roster = best.final.roster
        agreed = [end.node for end in equal if end.node in roster]
        again = f", attempt {best.final.attempt + 1}" if best.final.attempt else ""
        where = f"step {best.final.step}{again}"
        text = f"{len(agreed)} of the {len(roster)} nodes of the last roster finished with it ({where})"
        if 2 * len(agreed) > len(roster):
            self.final = best
            yield Finding("final state", True, "quorum", text)
        else:
            yield unchecked("final state", f"{text}: no majority, so another end may have been agreed on")

    # --- what is missing ----------------------------------------------------------------------------------------

    def _struck(self, told: _Told) -> Iterator[Finding]:
        """Bans and returns that a node must have journalled, and did not: it has committed their step. A peer that was
        removed itself has gaps."""
        out = {ban.peer for ban in self.verifier.proven if ban.removed}
        if told.node in out or not told.lines:
            return
        for ban in self.verifier.proven:
            key = (ban.step, ban.attempt, ban.peer)
            if ban.step in told.steps and key not in told.bans and not told.missed(ban.step, ban.attempt):
                what = f"ban of peer {ban.peer} at step {ban.step}"
                yield Finding(told.journal, False, "struck", f"it lacks the {what}, which others prove")
        for peer, since in self.verifier.returned:
            known = any(key[0] == since - 1 and key[2] == peer for key in told.returns)
            if since - 1 in told.steps and not known and not told.missed(since - 1, 0):
                what = f"return of peer {peer} after step {since - 1}"
                yield Finding(told.journal, False, "struck", f"it lacks the {what}, which others prove")
        if self.final is None:
            return
        last = self.final.final.step
        beyond = sorted(step for step in told.steps if step > last)
        if beyond:
            yield Finding(told.journal, False, "damage", f"it has step {beyond[0]}, and the run ends with step {last}")
        missing = [step for step in range(last + 1) if step not in told.steps]
        gaps = [step for step in missing if not any(step + 1 == at for at, _ in told.resumed)]
        if told.finished is not None and gaps:
            yield Finding(told.journal, False, "struck", f"it has finished, and has no record of step {gaps[0]}")


def _check_journal(told: _Told, final: Final) -> None:
    """A node's records of its end are those of its certificate.

    Raises:
        UnprovenError: they are not.
    """
    assert told.finished is not None
    parameters, state = final.summary.parameters.hex(), final.summary.digest.hex()
    if (told.finished.step, told.finished.parameter_digest) != (final.step, parameters):
        raise UnprovenError("the journal's 'finished' record names another step or other parameters")
    if told.steps.get(final.step) not in (None, (parameters, state)):
        raise UnprovenError(f"the journal names other digests of step {final.step} than the certificate")


def _verdict(reason: str, peer: int, step: int) -> str:
    """A ban or a removal, as findings name it."""
    after = standing(reason)
    return f"{'ban' if after == 'banned' else f'removal ({after})'} of peer {peer} at step {step}"


def _same_end(first: Final, second: Final) -> bool:
    return (first.summary, first.step, first.attempt, first.bans) == (
        second.summary,
        second.step,
        second.attempt,
        second.bans,
    )


def _check_digest(data: bytes, named: str) -> None:
    if blake3(data).hexdigest() != named:
        raise UnprovenError("its digest is not the one in the journal")


def _files(count: int) -> str:
    return "one file" if count == 1 else f"{count} nodes' files"


def _fault(subject: str, error: Exception) -> Finding:
    """A check that failed by itself: that says nothing of the run, and is never taken for its damage."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    text = f"the check itself failed{where}: {type(error).__name__}: {shown(error)}; report it with this file"
    return Finding(subject, False, "error", text)
