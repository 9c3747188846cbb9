"""Checks a finished run from the outside: its bans from their evidence, its final state from its certificate.

Only genesis.json, the public data and the evidence files are believed; journals and summary are compared with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from blake3 import blake3
from torch import Tensor

from node import extensions
from node.build import genesis_roster, settings_of, task_of, tools_of
from node.config import WIRE_VERSION, Member, RunConfig
from node.errors import BackendError, ConfigError, DataError, WireError
from node.journal import read
from node.protocol.evidence import tensor_of
from node.protocol.proof import Ground, Proof, UnprovenError, Verifier
from node.protocol.state import Ban, parameters_digest
from node.protocol.tribunal import standing
from node.records import read_regular
from node.training.environment import fingerprint, pin, usable
from node.training.task import Task

Records = dict[tuple[int, int, int], list[dict[str, Any]]]
"""What the nodes journalled of one ban or return, by step, attempt and peer."""


class Genesis(msgspec.Struct, frozen=True):
    """genesis.json: the public half of a run."""

    format: int
    wire_version: int
    run_id: str
    run: RunConfig
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Args:
        subject: what, in words (`ban of peer 5 at step 107`, `removal (gone) of peer 4 at step 3`).
        ok: it holds.
        kind: `recomputation`, `transcript`, `equivocation` or `majority` for a ban's or removal's proof; `certificate`;
            `summary`; `damage`.
        explanation: why, in one sentence.
    """

    subject: str
    ok: bool
    kind: str
    explanation: str


def check_run(run_dir: Path, data_directory: Path | None = None, imports: Sequence[Path] = ()) -> list[Finding]:
    """Check every ban of every node and the certified final state.

    Where the run's device is missing, gradients have other bits: what only their recomputation could decide is then
    found to be signed by the whole roster, and said so.

    Args:
        run_dir: the run directory.
        data_directory: the public data; None: where the run had it.
        imports: files that the run was made with, if the caller trusts them; they are loaded first.

    Raises:
        ConfigError: no run directory of this version, or one made with files that are not loaded.
        DataError: the public data is missing.
    """
    genesis = read_genesis(run_dir)
    if genesis.run.topology != "butterfly":
        raise ConfigError(f"{run_dir} is a comparison run ({genesis.run.topology}): nothing in it is signed or banned")
    extensions.load(imports)
    here = _here(genesis.run)
    pin(here.device)
    task = task_of(here, data_directory or _data_of(run_dir))
    ground = _ground(genesis, task, fingerprint(here.device))
    bans: Records = {}
    returns: Records = {}
    finished: list[dict[str, Any]] = []
    for member in genesis.members:
        for record in read(run_dir / "nodes" / str(member.id) / "journal.jsonl")[0]:
            if record["event"] == "banned":
                bans.setdefault((record["step"], record["attempt"], record["peer"]), []).append(record)
            elif record["event"] == "returned":
                returns.setdefault((record["step"], record["attempt"], record["peer"]), []).append(record)
            elif record["event"] == "finished":
                finished.append(record)
    verifier = Verifier(ground)
    findings = list(_check_roster(verifier, run_dir, bans, returns))
    findings += list(_check_summary(run_dir, bans))
    findings += [_check_final(verifier, run_dir, record) for record in finished]
    return findings


def read_genesis(run_dir: Path) -> Genesis:
    """The public half of a run.

    Raises:
        ConfigError: it is missing, damaged or of another version.
    """
    path = run_dir / "genesis.json"
    try:
        genesis = msgspec.json.decode(path.read_bytes(), type=Genesis)
    except OSError as error:
        raise ConfigError(f"{run_dir} is not a run directory: {path.name} cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if genesis.wire_version != WIRE_VERSION:
        raise ConfigError(
            f"{run_dir} was written by wire version {genesis.wire_version}, this program speaks {WIRE_VERSION}; "
            "verify it with the release that made it"
        )
    return genesis


def evaluate_final(
    run: RunConfig, data_directory: Path, parameters_file: Path, imports: Sequence[Path] = (), digest: str | None = None
) -> float:
    """Accuracy of saved parameters on all test items, between 0 and 1; `imports` are the run's own files, `digest` is
    that of the parameters, whose file may have been changed since.

    Raises:
        DataError: the parameters or the data cannot be read.
    """
    here = _here(run)
    pin(here.device)
    extensions.load(imports)
    task = task_of(here, data_directory)
    return task.evaluate(_parameters(parameters_file, task, digest), 0, task.test_size) / task.test_size


def save_model(
    run: RunConfig, data_directory: Path, parameters_file: Path, target: Path, imports: Sequence[Path] = (),
    digest: str | None = None,
) -> None:  # fmt: skip
    """Save parameters as a state dictionary that `torch.load(weights_only=True)` reads; `digest` as above.

    Raises:
        DataError: the parameters cannot be read.
        BackendError: the file cannot be written.
    """
    extensions.load(imports)
    task = task_of(_here(run), data_directory)
    parameters_D = _parameters(parameters_file, task, digest)
    tensors = {layer.name: parameters_D[layer.start : layer.stop].reshape(layer.shape).clone() for layer in task.layout}
    temporary = target.with_suffix(".tmp")
    try:
        torch.save(tensors, temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        raise BackendError(f"cannot write the model {target}: {error}; free the disk and run again") from error


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
        record = msgspec.json.decode((run_dir / "run.json").read_bytes())
        return Path(record["data_directory"])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return run_dir / "data"


def _ground(genesis: Genesis, task: Task, environment: bytes) -> Ground:
    run = genesis.run
    settings = settings_of(genesis.run_id, run, genesis.members, task.dimension, environment)
    return Ground(
        settings=settings,
        tools=tools_of(run),
        keys=genesis_roster(genesis.members).keys,
        initial_D=task.initial(run.init_seed),
        recompute=lambda parameters_D, seed: task.gradient(parameters_D, seed)[0],
    )


def _check_roster(verifier: Verifier, run_dir: Path, bans: Records, returns: Records) -> Iterator[Finding]:
    """Every evidence file of every node; bans that took effect together are settled together, and before the returns
    of the same step."""
    for where in sorted({key[:2] for key in (*bans, *returns)}):
        of_attempt = {key: records for key, records in bans.items() if key[:2] == where}
        yield from _check_bans(verifier, run_dir, of_attempt)
        for key in sorted(key for key in returns if key[:2] == where):
            yield from _check_return(verifier, run_dir, key[2], returns[key])


def _check_return(verifier: Verifier, run_dir: Path, peer: int, records: list[dict[str, Any]]) -> Iterator[Finding]:
    """A peer is back because the certified state says so: everybody found its gradients on probation correct."""
    subject, good = f"return of peer {peer} after step {records[0]['step']}", 0
    for record in records:
        try:
            data = (run_dir / record["path"]).read_bytes()
            verifier.readmit(data)
            if (peer, record["step"] + 1) not in verifier.returned or blake3(data).hexdigest() != record["evidence"]:
                raise UnprovenError("it certifies another return than the journal names")
            good += 1
        except (OSError, UnprovenError) as problem:
            yield Finding(f"{subject}, {record['path']}", False, "damage", str(problem))
    if good:
        text = f"the certified state says that it served its probation ({_files(good)})"
        yield Finding(subject, True, "certificate", text)


def _check_bans(verifier: Verifier, run_dir: Path, bans: Records) -> Iterator[Finding]:
    """The evidence of all bans of one attempt."""
    together: list[Ban] = []
    for step, attempt, peer in sorted(bans):
        after = standing(bans[(step, attempt, peer)][0]["reason"])
        what = "ban" if after == "banned" else f"removal ({after})"
        subject = f"{what} of peer {peer} at step {step}"
        proofs: list[Proof] = []
        for record in bans[(step, attempt, peer)]:
            try:
                proofs.append(_check_file(verifier, run_dir / record["path"], record))
            except UnprovenError as problem:
                yield Finding(f"{subject}, {record['path']}", False, "damage", str(problem))
        if proofs:
            together.append(proofs[0].ban)
            yield Finding(subject, True, proofs[0].kind, f"{proofs[0].explanation} ({_files(len(proofs))})")
    verifier.settle(together)


def _files(count: int) -> str:
    return "one file" if count == 1 else f"{count} nodes' files"


def _check_file(verifier: Verifier, path: Path, record: dict[str, Any]) -> Proof:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnprovenError(f"the file cannot be read: {error.strerror}") from error
    proof = verifier.check(data)
    ban = proof.ban
    claimed = (record["step"], record["attempt"], record["peer"], record["reason"], record["accuser"])
    if claimed != (ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser):
        raise UnprovenError(f"it proves another ban than the journal names: {ban}")
    if blake3(data).hexdigest() != record["evidence"]:
        raise UnprovenError("its digest is not the one in the journal")
    return proof


def _check_summary(run_dir: Path, bans: Records) -> Iterator[Finding]:
    """summary.json lists exactly the removals that the nodes recorded."""
    path = run_dir / "summary.json"
    if not path.exists():
        return
    try:
        summary = msgspec.json.decode(path.read_bytes())
        listed = [row for standing_ in ("bans", "gone", "eliminated") for row in summary.get(standing_, ())]
        rows = sorted((row["step"], row["peer"], row["reason"], row["accuser"]) for row in listed)
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        yield Finding("summary.json", False, "damage", f"it cannot be read: {error}")
        return
    recorded = sorted((r[0]["step"], r[0]["peer"], r[0]["reason"], r[0]["accuser"]) for r in bans.values())
    same = rows == recorded
    text = f"it lists the {len(rows)} removals of the journals" if same else "its removals differ from the journals'"
    yield Finding("summary.json", same, "summary" if same else "damage", text)


def _check_final(verifier: Verifier, run_dir: Path, record: dict[str, Any]) -> Finding:
    subject = f"final parameters of node {record['node']}"
    path = run_dir / record["path"]
    try:
        verifier.check_final((path.parent / "certificate").read_bytes(), tensor_of(path.read_bytes()))
    except (OSError, WireError, UnprovenError) as problem:
        return Finding(subject, False, "damage", str(problem))
    return Finding(subject, True, "certificate", "the CLOSEs of the whole roster cover them and the ban list")
