"""`verify` against forgers: one real run, tampered with by somebody who knows its formats, one row for each forgery."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from blake3 import blake3
from rich.console import Console
from zmq.utils import z85

from btard import Experiment, run
from btard.launcher.verify import verification
from btard.node.build import optimiser_of, task_of
from btard.node.config import Endpoint, RunConfig, Secrets
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer
from btard.node.errors import DataError
from btard.node.genesis.approval import Approval, approve
from btard.node.genesis.genesis import Genesis, SignedAddress, genesis_digest, genesis_roster, read_genesis
from btard.node.genesis.proposal import propose
from btard.node.protocol.state.state import Summary
from btard.node.protocol.wire.encoding import decode_body, encode, encode_body, signing_bytes, tensor_bytes
from btard.node.protocol.wire.messages import Outcome, Phase, Removal, Signed
from btard.node.storage import records
from btard.node.storage.checkpoint import History
from btard.node.storage.wal import contents
from btard.node.verify import audit
from btard.node.verify.audit import Finding, unchecked
from tests.ledgers import files

STEPS, ATTACKER, GONE = 16, 5, 3
Record = dict[str, Any]
Change = Callable[[Record], Record | None]
Forgery = Callable[[Path], None]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six nodes: one attacks and is banned, one is killed, gone, started again and let back."""
    where = tmp_path_factory.mktemp("verified")
    scenario = where / "crash.scn"
    scenario.write_text(f"at step 3 kill {GONE}\nat step 6 restart {GONE}\n")
    made = run(Experiment(backend="simulated", task="quadratic:dimension=40", device="cpu", steps=STEPS, batch_size=2,
                          eval_every=5, attack="sign_flip", byzantine=1, attack_start=2, probation=2,
                          delivery_bound=0.4, gradient_bound=0.5, scenario=str(scenario), init_seed=3,
                          run_dir=str(where / "run")))  # fmt: skip
    summary = made.summary
    assert (summary.outcome, summary.agreement, summary.byzantine) == ("finished", True, [ATTACKER])
    assert [[row.peer for row in rows] for rows in (summary.bans, summary.gone)] == [[ATTACKER], [GONE]]
    assert [each.peer for each in summary.returned] == [GONE]
    return made.run_dir


@pytest.fixture
def run_dir(intact: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(intact, tmp_path / "run", symlinks=True))


@dataclass(frozen=True)
class Verdict:
    code: int
    lines: list[str]

    @property
    def failed(self) -> list[str]:
        return [line for line in self.lines if line.startswith("FAIL")]


def verify(where: Path, **options: Any) -> Verdict:
    console = Console(file=io.StringIO(), width=400)
    code = verification.show(console, where, **options)
    return Verdict(code, console.file.getvalue().splitlines())  # type: ignore[attr-defined]


# --- the forger's tools ---------------------------------------------------------------------------------------------


def lines(path: Path, change: Change) -> None:
    """Change each record of a file of JSON lines; None strikes it."""
    changed = (change(json.loads(line)) for line in path.read_text().splitlines())
    kept = [json.dumps(record) for record in changed if record is not None]
    path.write_text("".join(f"{line}\n" for line in kept))


def everywhere(where: Path, change: Change) -> None:
    """In every journal, and in what the launcher collected of them."""
    for path in (*sorted(where.glob("nodes/*/journal.jsonl")), where / "events.jsonl", where / "metrics.jsonl"):
        lines(path, change)


def summary(**fields: Any) -> Forgery:
    """Other values in summary.json."""

    def forge(where: Path) -> None:
        path = where / "summary.json"
        made = json.loads(path.read_text())
        for name, value in fields.items():
            new = value(made[name]) if callable(value) else value
            assert new != made[name], f"nothing is forged: {name} is {new} already"
            made[name] = new
        path.write_text(json.dumps(made))

    return forge


def row(**fields: Any) -> Callable[[list[Record]], list[Record]]:
    return lambda rows: [{**rows[0], **fields}, *rows[1:]]


def strike(*events: str, nodes: tuple[int, ...] | None = None) -> Forgery:
    """Records of some events, from some journals and what was collected of them."""

    def change(record: Record) -> Record | None:
        concerns = nodes is None or record["node"] in nodes
        return None if record["event"] in events and concerns and record["node"] != "launcher" else record

    return lambda where: everywhere(where, change)


def all_of(*forgeries: Forgery) -> Forgery:
    def forge(where: Path) -> None:
        for each in forgeries:
            each(where)

    return forge


def remove(pattern: str) -> Forgery:
    def forge(where: Path) -> None:
        found = sorted(where.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return forge


def overwrite(pattern: str, content: bytes) -> Forgery:
    def forge(where: Path) -> None:
        found = sorted(where.glob(pattern))
        assert found
        for path in found:
            path.write_bytes(content)

    return forge


NO_BANS = summary(bans=[], gone=[], undetected=1, undetected_peers=[ATTACKER], detection_steps={}, honest_gone=0,
                  honest_gone_peers=[])  # fmt: skip
EVIDENCE = remove("nodes/*/evidence/ban-*.evidence")
FINAL_FILES = all_of(remove("nodes/*/parameters.f32"), remove("nodes/*/certificate"))


def noise(where: Path) -> None:
    path = where / "model.pt"
    tensors = torch.load(path, weights_only=True)
    torch.save({name: torch.randn_like(each) for name, each in tensors.items()}, path)


def one_weight(where: Path) -> None:
    path = where / "model.pt"
    tensors = torch.load(path, weights_only=True)
    next(iter(tensors.values())).view(-1)[0] += 1e-6
    torch.save(tensors, path)


def renamed_weights(where: Path) -> None:
    path = where / "model.pt"
    torch.save({f"{name}x": each for name, each in torch.load(path, weights_only=True).items()}, path)


def endless(where: Path) -> None:
    """The launcher's last word struck."""
    lines(where / "events.jsonl", lambda record: None if record["event"] == "ended" else record)


def packed_model(where: Path) -> None:
    path = where / "model.pt"
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)


def earlier(where: Path, back: int) -> tuple[int, bytes, bytes, str, str]:
    """What node 0 had `back` steps before the end, all of it certified: step, parameters, certificate and digests."""
    genesis = read_genesis(where)
    run_digest = genesis_digest(genesis.run_id, genesis.run, genesis.members)
    step = genesis.run.steps + 1 - back
    found = [record for path in files(where / "nodes" / "0" / "state") for record in contents(path).records]
    task = task_of(genesis.run, Path("unused"))
    update = optimiser_of(genesis.run, task.dimension, task.layout)
    roster = genesis_roster(genesis.members)
    state = History(found, run_digest, 0, roster, update).load((step, 0)).at.state
    assert state.summary is not None
    parameters, certificate = bytes(tensor_bytes(state.parameters_D)), encode((state.summary, state.certificate))
    return step - 1, parameters, certificate, state.summary.parameters.hex(), state.summary.digest.hex()


def roll_back_files(where: Path) -> None:
    """Parameters and certificates of two steps before, at every node."""
    _, parameters, certificate, _, _ = earlier(where, 2)
    overwrite("nodes/*/parameters.f32", parameters)(where)
    overwrite("nodes/*/certificate", certificate)(where)


def roll_back(where: Path) -> None:
    """The same, with journals, collected files, model and summary to match."""
    step, parameters, _, digest, _ = earlier(where, 2)
    roll_back_files(where)

    def change(record: Record) -> Record | None:
        if record["event"] == "finished":
            return {**record, "step": step, "parameter_digest": digest}
        late = record["event"] in ("committed", "evaluated") and record["step"] > step
        return None if late else record

    everywhere(where, change)
    flat = torch.frombuffer(bytearray(parameters), dtype=torch.float32)
    tensors, start = torch.load(where / "model.pt", weights_only=True), 0
    for name, each in tensors.items():
        tensors[name] = flat[start : start + each.numel()].view(each.shape).clone()
        start += each.numel()
    torch.save(tensors, where / "model.pt")
    ends = [node for node in range(6) if node != ATTACKER]
    summary(steps=step + 1, parameter_digest=lambda known: {**known, **{str(node): digest for node in ends}})(where)


def forged_return(where: Path) -> None:
    """Node 0 says that the attacker is back, and shows the certificate of another peer's return."""
    (evidence,) = (where / "nodes" / "0" / "evidence").glob("return-*.certificate")
    step = int(evidence.name.split("-")[1])
    copied = evidence.with_name(f"return-{step}-{ATTACKER}.certificate")
    shutil.copyfile(evidence, copied)

    def change(record: Record) -> Record:
        return {**record, "peer": ATTACKER, "path": f"nodes/0/evidence/{copied.name}"}

    add_like(where, 0, "returned", change)


def earlier_return(where: Path) -> None:
    """Every node says that the peer was let back a step before the certificate says so."""
    everywhere(
        where, lambda record: {**record, "step": record["step"] - 1} if record["event"] == "returned" else record
    )
    summary(returned=lambda rows: [{**rows[0], "step": rows[0]["step"] - 1}])(where)


def return_by_a_later_state(where: Path) -> None:
    """A certificate that names the return too, but of a step long after it."""
    (evidence,) = (where / "nodes" / "0" / "evidence").glob("return-*.certificate")
    certificate = (where / "nodes" / "0" / "certificate").read_bytes()
    evidence.write_bytes(certificate)
    digest = blake3(certificate).hexdigest()
    lines(where / "nodes" / "0" / "journal.jsonl",
          lambda record: {**record, "evidence": digest} if record["event"] == "returned" else record)  # fmt: skip
    lines(where / "events.jsonl", lambda record: {**record, "evidence": digest}
          if record["event"] == "returned" and record["node"] == 0 else record)  # fmt: skip


def add_like(where: Path, node: int, event: str, change: Change) -> None:
    """Add a record made from one that a node has, to its journal and to the collected events."""
    path = where / "nodes" / str(node) / "journal.jsonl"
    last = [json.loads(line) for line in path.read_text().splitlines() if json.loads(line)["event"] == event][-1]
    for each in (path, where / "events.jsonl"):
        with each.open("a") as file:
            file.write(json.dumps(change(last)) + "\n")


def other_bans(**fields: Any) -> Forgery:
    """In every journal and in the summary alike, the attacker is banned for something else."""

    def forge(where: Path) -> None:
        def change(record: Record) -> Record:
            mine = record["event"] == "banned" and record["peer"] == ATTACKER
            return {**record, **fields} if mine else record

        everywhere(where, change)
        summary(bans=row(**fields))(where)

    return forge


def first_in(path: Path, record: Record) -> None:
    """A record before all others."""
    path.write_text(json.dumps(record) + "\n" + path.read_text())


def other_roles(where: Path) -> None:
    path = where / "run.json"
    record = json.loads(path.read_text())
    record["roles"] = {"0": record["roles"][str(ATTACKER)]}
    path.write_text(json.dumps(record))


def other_steps(where: Path) -> None:
    path = where / "genesis.json"
    genesis = json.loads(path.read_text())
    genesis["run"]["steps"] -= 2
    path.write_text(json.dumps(genesis))


def other_outcome_everywhere(where: Path) -> None:
    lines(where / "events.jsonl",
          lambda record: {**record, "outcome": "failed"} if record["event"] == "ended" else record)  # fmt: skip


def only_one_finished(where: Path) -> None:
    """The final states of all nodes but one are struck: nothing but its own word says how the run ended."""
    strike("finished", nodes=tuple(range(1, 6)))(where)
    for node in range(1, 6):
        for name in ("parameters.f32", "certificate"):
            (where / "nodes" / str(node) / name).unlink(missing_ok=True)


EARLIER = "the certificate is of step 14, and the run's last is step 16"
FORGERIES: list[tuple[str, Forgery, str]] = [
    ("final files of two steps before", roll_back_files, EARLIER),
    ("the whole end of two steps before", roll_back, EARLIER),
    ("fewer steps in the genesis", other_steps, "final parameters"),
    ("model of noise", noise, "model.pt: model: its values are not the certified parameters"),
    ("one weight a millionth off", one_weight, "model.pt: model: its values"),
    ("renamed weights", renamed_weights, "model.pt: model: its tensors are not those of the task"),
    ("packed model", packed_model, "model.pt: model: it is packed"),
    ("model that is none", overwrite("model.pt", b"rubbish"), "model.pt: model: it cannot be read"),
    ("no model", remove("model.pt"), "model.pt: model: it is missing"),
    ("no model, and none named", all_of(remove("model.pt"), summary(model=None)), "it names no model"),
    ("another file as the model", summary(model="nodes/0/parameters.f32"), "model.pt: model: summary.json names"),
    ("no word of the end", endless, "events.jsonl has no record of how the run ended"),
    ("another accuracy", summary(final_test_accuracy=0.001), "final test accuracy: summary: summary.json says 0.001"),
    ("no accuracy", summary(final_test_accuracy=None), "summary.json says None"),
    ("another curve", summary(accuracy=lambda curve: [[0, 0.9], *curve[1:]]), "accuracy is"),
    ("another loss", summary(final_train_loss=0.0), "final_train_loss is"),
    ("no agreement", summary(agreement=False), "agreement is false, the journals give true"),
    ("another attacker", summary(byzantine=[0]), "byzantine is [0], the journals give [5]"),
    ("another attack", summary(attacks={"5": "noise"}), "attacks is"),
    ("another attacker in run.json", other_roles, "its roles are not those that its own options give"),
    ("another outcome", summary(outcome="failed", problem="x"), "its outcome is failed, events.jsonl says finished"),
    ("another outcome in the events", other_outcome_everywhere, "its outcome is finished, events.jsonl says failed"),
    ("another problem", summary(problem="none"), "its outcome is finished"),
    ("another reason", summary(bans=row(reason="checksum")), "bans is"),
    ("another peer", summary(bans=row(peer=0)), "bans is"),
    ("another accuser", summary(bans=row(accuser=0)), "bans is"),
    ("an honest peer", summary(bans=row(byzantine=False)), "bans is"),
    ("another ban's step", summary(bans=row(step=1)), "bans is"),
    ("another evidence file", summary(bans=row(evidence="nodes/0/evidence/x")), "no honest node's journal has"),
    ("another evidence digest", summary(bans=row(evidence_digest="0" * 64)), "no honest node's journal has"),
    ("another reason of who is gone", summary(gone=row(reason="edges")), "gone is"),
    ("another accuser of who is gone", summary(gone=row(accuser=1)), "gone is"),
    ("another reason, everywhere", other_bans(reason="equivocation"), "it proves another ban than the journal names"),
    ("another accuser, everywhere", other_bans(accuser=4), "it proves another ban than the journal names"),
    ("not removed, everywhere", all_of(lambda where: everywhere(
        where, lambda record: {**record, "removed": False} if record["event"] == "banned" else record)),
     "it proves another ban than the journal names"),
    ("another standing, everywhere", all_of(lambda where: everywhere(
        where, lambda record: {**record, "standing": "gone"} if record.get("reason") == "gradient" else record)),
     "does not follow from it"),
    ("a detection step more", summary(detection_steps=lambda known: {"5": known["5"] + 1}), "detection_steps is"),
    ("a detection step less", summary(detection_steps=lambda known: {"5": known["5"] - 1}), "detection_steps is"),
    ("an honest peer banned", summary(honest_banned=1, honest_banned_peers=[2]), "honest_banned is 1"),
    ("another return", summary(returned=row(step=12)), "returned is"),
    ("no return", summary(returned=[]), "returned is []"),
    ("other parameters", summary(parameter_digest=lambda known: {**known, "0": "0" * 64}), "parameter_digest is"),
    ("other traffic", summary(bytes_sent=lambda sent: {**sent, "bulk": 1}), "bytes_sent is"),
    ("other expected traffic", summary(bytes_expected=1), "bytes_expected is"),
    ("fewer steps", summary(steps=3), "steps is 3"),
    ("another run", summary(run_id="other"), "run_id is"),
    ("a summary that is none", overwrite("summary.json", b"{"), "summary.json: damage"),
    ("a summary that is no text", overwrite("summary.json", b'{"bans":["\xff"]}'), "summary.json: damage"),
    ("no summary", remove("summary.json"), "summary.json: struck: it is missing"),
    ("run.json that is no text", overwrite("run.json", b'{"data_directory":"\xff"}'), "run.json: damage"),
    ("a ban struck from one journal", strike("banned", nodes=(2,)), "no record of nodes/2/journal.jsonl names it"),
    ("bans struck, evidence left", all_of(strike("banned"), NO_BANS), "names it"),
    ("bans struck, evidence too", all_of(strike("banned"), NO_BANS, EVIDENCE), "final parameters of node 0: damage"),
    ("bans and ends struck", all_of(strike("banned", "finished"), NO_BANS), "has no 'finished' record"),
    ("bans and ends struck, evidence too", all_of(strike("banned", "finished"), NO_BANS, EVIDENCE),
     "nodes/0/certificate: struck: nodes/0/journal.jsonl has no 'finished' record"),
    ("bans, ends and all their files", all_of(strike("banned", "finished"), NO_BANS, EVIDENCE, FINAL_FILES),
     "it says that the run finished, and no final state is proven"),
    ("all ends but one struck", only_one_finished, "no final state is proven"),
    ("a step struck", lambda where: everywhere(
        where, lambda record: None if record["event"] == "committed" and record["step"] == 7 else record),
     "has no record of step 7"),
    ("no events", overwrite("events.jsonl", b""), "events.jsonl: struck"),
    ("no metrics", overwrite("metrics.jsonl", b""), "metrics.jsonl: struck"),
    ("events removed", remove("events.jsonl"), "events.jsonl"),
    ("empty journals", overwrite("nodes/*/journal.jsonl", b""), "has no 'finished' record"),
    ("everything emptied", all_of(overwrite("nodes/*/journal.jsonl", b""), overwrite("events.jsonl", b""),
                                  overwrite("metrics.jsonl", b"")), "has no 'finished' record"),
    ("a forged return", forged_return, f"return of peer {ATTACKER} after step"),
    ("a return a step earlier", earlier_return, f"return of peer {GONE} after step"),
    ("a return by a later certificate", return_by_a_later_state, "a message is of another slot"),
    ("returns struck", all_of(strike("returned"), remove("nodes/*/evidence/return-*"), summary(returned=[])),
     "final parameters of node 0: damage"),
    ("one node's return struck", all_of(strike("returned", nodes=(1,)), remove("nodes/1/evidence/return-*")),
     f"nodes/1/journal.jsonl: struck: it lacks the return of peer {GONE}"),
    ("one node's ban struck", all_of(strike("banned", nodes=(1,)), remove("nodes/1/evidence/ban-*")),
     f"nodes/1/journal.jsonl: struck: it lacks the ban of peer {ATTACKER}"),
    ("one honest end struck", all_of(strike("finished", nodes=(1,)), remove("nodes/1/parameters.f32"),
                                     remove("nodes/1/certificate")),
     "it says that the run finished, and honest nodes have not"),
    ("a FIFO as the summary", lambda where: instead(os.mkfifo, "summary.json")(where),
     "summary.json: damage: summary.json: it is no regular"),
    ("a sparse summary", lambda where: sparse(where / "summary.json"),
     "bytes are more than the 268435456 that it may have"),
    ("a sparse model", lambda where: sparse(where / "model.pt"), "bytes are more than the 16777536 that it may have"),
    ("a record of no node", lambda where: first_in(where / "events.jsonl", {"node": "x", "event": "y"}),
     "events.jsonl, record 1: damage: it is of no node"),
    ("half an event", lambda where: first_in(where / "events.jsonl", {"node": "launcher", "event": "scenario"}),
     "events.jsonl, record 1: damage: "),
]  # fmt: skip


def test_the_run_itself_is_accepted(intact: Path) -> None:
    found = verify(intact)
    assert (found.code, found.failed) == (0, [])
    genesis = read_genesis(intact)
    assert f"genesis  {genesis_digest(genesis.run_id, genesis.run, genesis.members).hex()}" in found.lines
    assert not verification.verify(str(intact)).wrong, "a program may name the directory as `load_run` is told it"
    unproven = [line.split(": ")[1] for line in found.lines if line.startswith("not checked: ")]
    assert unproven == ["loss", "roles", "journals"]
    good = [tuple(line.removeprefix("ok    ").split(": ")[:2]) for line in found.lines if line.startswith("ok  ")]
    assert good == [
        (f"removal (gone) of peer {GONE} at step 3", "majority"),
        (f"ban of peer {ATTACKER} at step 8", "recomputation"),
        (f"return of peer {GONE} after step 8", "certificate"),
        *((f"final parameters of node {node}", "certificate") for node in range(5)),
        ("final state", "quorum"),
        ("events.jsonl", "journals"),
        ("metrics.jsonl", "journals"),
        ("outcome", "summary"),
        ("summary.json", "summary"),
        ("model.pt", "model"),
        ("final test accuracy", "model"),
    ]
    signed = sum(kind in ("majority", "certificate", "quorum") for _, kind in good)
    counts = f"{len(good) - signed} recomputed, {signed} believed on signatures, 0 wrong, 3 not checked"
    assert found.lines[-1] == f"{len(good)} findings: {counts}"


@pytest.mark.parametrize(("forge", "words"), [row[1:] for row in FORGERIES], ids=[row[0] for row in FORGERIES])
def test_a_forgery_is_found(forge: Forgery, words: str, run_dir: Path) -> None:
    forge(run_dir)
    found = verify(run_dir)
    assert found.code == 1
    assert any(words in line for line in found.failed), found.failed
    assert not any("the check itself failed" in line for line in found.lines)


# --- hostile journals -----------------------------------------------------------------------------------------------

HOSTILE = 4
JOURNAL = f"nodes/{HOSTILE}/journal.jsonl"


def append(content: bytes | Record) -> Forgery:
    """One more line in the hostile node's journal; a record takes what it lacks from a ban of its own."""

    def forge(where: Path) -> None:
        with (where / JOURNAL).open("ab") as file:
            if isinstance(content, bytes):
                file.write(content)
                return
            own = next(json.loads(line) for line in (where / JOURNAL).read_text().splitlines() if '"banned"' in line)
            made = {**own, "step": 9, "peer": 1, **content}
            file.write(
                json.dumps({name: value for name, value in made.items() if value != "left out"}).encode() + b"\n"
            )

    return forge


def evidence_as(make: Callable[[Path], None], path: str = f"nodes/{HOSTILE}/evidence/hostile") -> Forgery:
    """A ban whose evidence lies in something else than a file."""

    def forge(where: Path) -> None:
        make(where / path)
        append({"path": path})(where)

    return forge


def instead(make: Callable[[Path], None], name: str) -> Forgery:
    def forge(where: Path) -> None:
        (where / name).unlink()
        make(where / name)

    return forge


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def rubbish(path: Path) -> None:
    path.write_bytes(b"\xc1" * 99)


def linked(path: Path) -> None:
    path.symlink_to("/etc/hostname")


MALFORMED: list[tuple[str, Forgery, str]] = [
    ("a ban without its path", append({"path": "left out"}), "missing required field `path`"),
    ("a step that is text", append({"step": "9"}), "$.step"),
    ("a return without evidence", append({"event": "returned", "evidence": "left out"}), "`evidence`"),
    ("a peer that is a list", append({"peer": [1]}), "$.peer"),
    ("a peer that nobody knows", append({"peer": 77}), "not in the roster"),
    ("a record of another node", append({"node": 0}), f"of node 0, in the folder of node {HOSTILE}"),
    ("no JSON", append(b"{nothing}\n"), "malformed"),
    ("no text", append(b'{"event": "\xff"}\n'), "invalid"),
    ("deep brackets", append(b"[" * 200_000 + b"\n"), "record"),
    ("a huge line", append(b'"' + b"x" * (9 << 20) + b'"\n'), "longer than"),
    ("a FIFO as evidence", evidence_as(os.mkfifo), "no regular file"),
    ("a device as evidence", append({"path": "/dev/zero"}), "outside nodes/4/evidence/"),
    ("a link as evidence", evidence_as(linked), "no regular file"),
    ("evidence outside", append({"path": "../../etc/passwd"}), "outside nodes/4/evidence/"),
    ("evidence outside, by a detour", append({"path": "nodes/4/evidence/../../../../x"}), "does not stay inside"),
    ("another node's evidence", append({"path": "nodes/0/evidence/ban-3-0-3.evidence"}), "outside nodes/4/evidence/"),
    ("sparse evidence", evidence_as(sparse), "more than the"),
    ("rubbish as evidence", evidence_as(rubbish), "the evidence is damaged"),
    ("an end that contradicts its end", append({"event": "finished", "bulk_bytes": 0, "control_bytes": 0,
                                                "publication_bytes": 0, "parameter_digest": "0" * 64}), "contradicts"),
    ("an escape sequence", append({"path": "\x1b[2J\x1b[H"}), "\\x1b[2J"),
    ("a FIFO as journal", instead(os.mkfifo, JOURNAL), "no regular file"),
    ("a link as journal", instead(linked, JOURNAL), "no regular file"),
    ("a sparse journal", lambda where: os.truncate(where / JOURNAL, 1 << 40), "bytes are read"),
    ("a FIFO as certificate", instead(os.mkfifo, f"nodes/{HOSTILE}/certificate"), "no regular file"),
    ("sparse parameters", lambda where: sparse(where / f"nodes/{HOSTILE}/parameters.f32"), "more than the"),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "words"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_hostile_node_is_named_and_the_rest_is_checked(
    forge: Forgery, words: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "JOURNAL_BYTES", 3 * records.LINE_BYTES)
    forge(run_dir)
    found = verify(run_dir, explain=True)
    assert found.code == 1
    mine = [line for line in found.failed if f"nodes/{HOSTILE}/" in line or f"node {HOSTILE}" in line]
    assert any(words in line for line in mine), found.failed
    assert not any("the check itself failed" in line for line in found.lines)
    assert all(line.isprintable() for line in found.lines)
    proven = [line for line in found.lines if line.startswith("ok")]
    for node in (0, 1, 2):
        assert any(f"final parameters of node {node}" in line for line in proven)
    for what in (f"ban of peer {ATTACKER}", f"removal (gone) of peer {GONE}", f"return of peer {GONE}", "final state",
                 "model.pt", "final test accuracy"):  # fmt: skip
        assert any(what in line for line in proven), what


# --- what is not here -----------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_and_nothing_wrong(run_dir: Path) -> None:
    for name in ("run.json", "summary.json", "events.jsonl", "metrics.jsonl", "model.pt"):
        (run_dir / name).unlink()
    found = verify(run_dir)
    assert (found.code, found.failed) == (0, [])
    unproven = [line for line in found.lines if line.startswith("not checked: ")]
    assert any("run.json" in line for line in unproven) and any("summary.json" in line for line in unproven)


def test_half_of_a_cluster_is_no_final_state(run_dir: Path) -> None:
    """Each half of a fork verifies by itself; that the others' folders are missing is said, and nothing is final."""
    for node in (1, 2, 4):
        shutil.rmtree(run_dir / "nodes" / str(node))
    found = verify(run_dir)
    assert found.code == 1
    assert any(line.startswith("not checked: final state: 2 of the 5 nodes") for line in found.lines)
    assert any(line.startswith("not checked: journals of nodes 1, 2, 4") for line in found.lines)
    assert not any("ok    final state" in line for line in found.lines)


def derived(seed: int | None = None) -> Genesis:
    """Of six members, whose keys a seed gives; None: each has made its own."""
    made = keys.generate(seed, 6)[0] if seed is not None else [keys.public_identity(i, keys.fresh()) for i in range(6)]
    return Genesis(1, 1, "run", RunConfig(), tuple(made))


def test_keys_that_anybody_can_derive_are_warned_of(run_dir: Path) -> None:
    assert audit.known_seed(derived(seed=7), [1, 7]) == 7
    assert audit.known_seed(derived(seed=None), [0, 1, 7]) is None
    mixed = msgspec.structs.replace(derived(), members=(*derived().members[:5], derived(seed=7).members[5]))
    assert audit.known_seed(mixed, [7]) == 7, "one key is enough"
    warning = [line for line in verify(run_dir).lines if line.startswith("warning")]
    assert len(warning) == 1
    assert "anyone can forge this run" in warning[0]


# --- a run directory for others -------------------------------------------------------------------------------------


def forms(secret: Record) -> Iterator[bytes]:
    """Every way in which a secret may stand in a file."""
    for name, text in secret.items():
        raw = z85.decode(text.encode()) if name == "transport_secret" else bytes.fromhex(text)
        yield from (text.encode(), raw, raw.hex().encode(), raw.hex().upper().encode())


def test_an_exported_run_verifies_and_holds_no_secret(run_dir: Path, tmp_path: Path) -> None:
    from btard.launcher.export import public

    secrets = [json.loads(path.read_bytes()) for path in sorted(run_dir.glob("nodes/*/secrets.json"))]
    seed = json.loads((run_dir / "run.json").read_text())["seeds"]["protocol"]
    assert len(secrets) == 6
    target, left_out = public.write(run_dir, tmp_path / "shared")
    assert left_out == []
    files = [path for path in target.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"genesis.json", "run.json", "summary.json", "model.pt", "journal.jsonl", "certificate"} <= names
    assert not names & {"secrets.json", "config.json"} and not list(target.rglob("state"))
    for path in files:
        content = path.read_bytes()
        assert not any(form in content for secret in secrets for form in forms(secret)), path
    assert str(seed) not in (target / "run.json").read_text()
    mine, theirs = verify(run_dir), verify(target)
    assert theirs.code == 0
    assert [line for line in theirs.lines if line.startswith("ok")] == [
        line for line in mine.lines if line.startswith("ok")
    ]


def test_what_is_no_file_is_left_out_of_an_export(run_dir: Path, tmp_path: Path) -> None:
    from btard.launcher.export import public

    evidence = run_dir / "nodes" / "4" / "evidence"
    os.mkfifo(evidence / "pipe.evidence")
    (evidence / "link.evidence").symlink_to(run_dir / "nodes" / "4" / "secrets.json")
    (evidence / "secrets.json").write_bytes(b"{}")
    target, left_out = public.write(run_dir, tmp_path / "shared")
    assert sorted(line.partition(":")[0] for line in left_out) == [
        "nodes/4/evidence/link.evidence",
        "nodes/4/evidence/pipe.evidence",
    ]
    assert not {path.name for path in target.rglob("*")} & {"link.evidence", "pipe.evidence", "secrets.json"}


def test_an_export_goes_nowhere_that_is_taken_or_inside(run_dir: Path, tmp_path: Path) -> None:
    from btard.launcher.export import public
    from btard.node.errors import ConfigError

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for target in (tmp_path / "full", run_dir / "shared"):
        with pytest.raises(ConfigError, match="name another DEST"):
            public.write(run_dir, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "run"]


# --- outcomes, and data that is not here ----------------------------------------------------------------------------


def by_outcome(where: Path, removals: tuple[Removal, ...]) -> None:
    """Node 0 shows what a majority signed at the end of a dispute about the last step, in the place of the CLOSEs."""
    path = where / "nodes" / "0" / "certificate"
    final, closes = msgspec.msgpack.decode(path.read_bytes(), type=tuple[Summary, tuple[Signed, ...]])
    outcomes = []
    for node in (0, 1, 2, 4):
        seed = json.loads((where / "nodes" / str(node) / "secrets.json").read_text())["signing_seed"]
        slot = msgspec.structs.replace(decode_body(closes[0].body).slot, phase=Phase.OUTCOME, sender=node)
        body = Outcome(slot, (), final.digest, removals)
        data = encode_body(body)
        outcomes.append(Signed(data, Signer(bytes.fromhex(seed)).sign(signing_bytes(body, data))))
    path.write_bytes(encode((final, tuple(outcomes))))


def test_a_majoritys_outcome_is_an_end_as_well(run_dir: Path) -> None:
    by_outcome(run_dir, ())
    found = verify(run_dir)
    assert (found.code, found.failed) == (0, [])
    assert any("node 0: certificate: a majority's OUTCOMEs cover them" in line for line in found.lines)
    assert any("final state: quorum: 5 of the 5 nodes" in line for line in found.lines)


def test_an_outcome_that_removes_more_than_the_others_know_is_a_contradiction(run_dir: Path) -> None:
    by_outcome(run_dir, (Removal(2, "silent", None),))
    found = verify(run_dir)
    assert found.code == 1
    assert any("final parameters of node 0: damage: the certified ban list differs" in line for line in found.failed)


def test_without_the_data_signatures_are_checked_and_the_rest_is_named(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise DataError("MNIST is not here")

    monkeypatch.setattr(audit, "task_of", missing)
    found = verify(run_dir)
    assert (found.code, found.failed) == (0, [])
    unproven = [line.split(": ")[1] for line in found.lines if line.startswith("not checked: ")]
    ban = next(line.split(": ")[1] for line in unproven_bans(found))
    assert unproven == [ban, "gradients", "accuracy", "loss", "roles", "journals"]
    assert any(line.startswith("ok    model.pt") for line in found.lines)
    noise(run_dir)
    assert verify(run_dir).code == 1


@pytest.mark.slow
@pytest.mark.mnist
def test_data_that_has_moved_is_found_in_this_machines_folder(
    mnist_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run had it, then `$BTARD_DATA_DIR`, then the default folder: the first that holds it serves."""
    first = Path(shutil.copytree(mnist_directory, tmp_path / "first"))
    made = run(Experiment(backend="simulated", device="cpu", peers=3, steps=2, batch_size=2, data_dir=str(first),
                          run_dir=str(tmp_path / "run")))  # fmt: skip

    def recomputed() -> bool:
        found = verify(made.run_dir)
        assert (found.code, found.failed) == (0, [])
        accuracy = f"the certified parameters give {made.summary.final_test_accuracy:.6g}"
        return f"ok    final test accuracy: model: {accuracy}" in found.lines

    default = tmp_path / "cache" / "btard" / "data"
    monkeypatch.delenv("BTARD_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert recomputed()
    default.parent.mkdir(parents=True)
    first.rename(default)
    assert recomputed()
    moved = tmp_path / "moved"
    default.rename(moved)
    assert not recomputed()
    monkeypatch.setenv("BTARD_DATA_DIR", str(moved))
    assert recomputed()


def elsewhere(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """This machine, with another value of some fact of its environment."""
    real = audit.environment_of
    monkeypatch.setattr(audit, "environment_of", lambda *given: msgspec.structs.replace(real(*given), **facts))


def differences(found: Verdict) -> list[str]:
    start = "not checked: gradients: no recomputation in another environment than the run's: "
    return [line.removeprefix(start) for line in found.lines if line.startswith(start)]


def test_another_environment_is_named_by_what_differs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert differences(verify(run_dir)) == []
    elsewhere(monkeypatch, torch="2.99.0")
    found = verify(run_dir)
    assert (found.code, found.failed) == (0, [])
    assert differences(found) == [f"torch 2.99.0 here, {torch.__version__} there; all probes equal"]
    assert len(unproven_bans(found)) == 1
    assert " (1 of them for lack of a recomputation), 0 wrong" in found.lines[-1]
    assert "recompute where nothing differs" in found.lines[-2]


def test_a_processor_by_another_name_is_none(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, processor="an abacus")
    found = verify(run_dir)
    assert differences(found) == [] and unproven_bans(found) == []


def test_what_a_probe_gives_elsewhere_is_named(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, capability="none", probes=(("the update of sgd", "0"), ("the aggregate of krum", "1")))
    kernels = torch.backends.cpu.get_cpu_capability()
    assert differences(verify(run_dir)) == [f"kernels none here, {kernels} there; the update of sgd, differs"]


def test_only_an_environment_that_is_certified_is_the_runs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node says of itself may be made up, or be nothing at all."""
    elsewhere(monkeypatch, torch="2.99.0")

    def lies(record: Record) -> Record:
        facts = record.get("facts")
        return record if facts is None else {**record, "facts": {**facts, "torch": "2.0.0"}}

    def junk(record: Record) -> Record:
        return record if "facts" not in record else {**record, "facts": {"torch": 7}}

    everywhere(run_dir, lambda record: lies(record) if record["node"] in (0, 1) else record)
    everywhere(run_dir, lambda record: junk(record) if record["node"] == 2 else record)
    assert differences(verify(run_dir)) == [f"torch 2.99.0 here, {torch.__version__} there; all probes equal"]
    everywhere(run_dir, lambda record: lies(record) if "facts" in record else record)
    assert differences(verify(run_dir)) == ["no journal here says which"]


def test_a_run_in_containers_is_recomputed_in_its_image(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**record, "argv": ["docker", "compose", "up"]}))
    assert not any("image" in line for line in verify(run_dir).lines)
    elsewhere(monkeypatch, torch="2.99.0")
    place = f"/tmp/{run_dir.name}"
    start = f"docker run --rm --network none -v {run_dir}:{place}:ro btard:cpu"
    command = f"{start} btard-launch verify {place}"
    assert f"recompute in the run's own image: {command}" in verify(run_dir).lines


def unproven_bans(found: Verdict) -> list[str]:
    return [line for line in found.lines if line.startswith("not checked: recomputation for the ban of peer 5")]


# --- what is said of it ---------------------------------------------------------------------------------------------

GOOD = Finding("a", True, "transcript", "x")
SAID: dict[str, tuple[list[Finding], str]] = {
    "nothing": ([], "0 findings: 0 recomputed, 0 believed on signatures, 0 wrong, 0 not checked"),
    "one": ([GOOD], "1 finding: 1 recomputed, 0 believed on signatures, 0 wrong, 0 not checked"),
    "one on signatures": (
        [GOOD, Finding("b", True, "quorum", "x")],
        "2 findings: 1 recomputed, 1 believed on signatures, 0 wrong, 0 not checked",
    ),
    "one that is wrong, and so not believed": (
        [Finding("b", False, "certificate", "x"), GOOD, GOOD],
        "3 findings: 2 recomputed, 0 believed on signatures, 1 wrong, 0 not checked",
    ),
    "two that were not checked": (
        [GOOD, unchecked("c", "x"), Finding("d", True, "undecided", "x", checked=False)],
        "1 finding: 1 recomputed, 0 believed on signatures (1 of them for lack of a recomputation), 0 wrong, "
        "2 not checked",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_the_last_line_counts_all_findings(name: str) -> None:
    findings, line = SAID[name]
    assert verification.Report("", tuple(findings), ()).last_line == line


def test_a_terminal_shows_marks_in_colour_breaks_lines_between_words_and_leaves_commands_whole(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**record, "argv": ["docker", "compose", "up"]}))
    elsewhere(monkeypatch, torch="2.99.0")
    file = io.StringIO()
    verification.show(Console(file=file, width=60, force_terminal=True, color_system="standard"), run_dir)
    shown = file.getvalue().splitlines()
    starts = (
        "\x1b[32mok  \x1b[0m  ",
        "\x1b[33mwarning\x1b[0m: ",
        "not checked: ",
        "genesis",
        "recompute in ",
        "15 findings: ",
    )
    assert {start for line in shown for start in starts if line.startswith(start)} == set(starts)
    further = [line for line in shown if not line.startswith(starts)]
    assert {len(line) - len(line.lstrip(" ")) for line in further} == {6}, "what goes on is indented, and has no colour"
    (command,) = (line for line in shown if line.startswith("recompute in "))
    assert command.endswith(f"btard-launch verify /tmp/{run_dir.name}") and len(command) > 60


# --- a run of several owners ----------------------------------------------------------------------------------------


def owned(where: Path) -> tuple[Genesis, list[Secrets]]:
    """The run as if its members had proposed themselves: the digest of its genesis does not cover their addresses."""
    genesis = read_genesis(where)
    files = [where / "nodes" / str(node) / "secrets.json" for node in range(6)]
    secrets = [msgspec.json.decode(path.read_bytes(), type=Secrets) for path in files]
    proposals = [
        propose(secret, Endpoint(f"tcp://10.0.0.{node + 1}:7000", f"tcp://10.0.0.{node + 1}:7001"))
        for node, secret in enumerate(secrets)
    ]
    addresses = tuple(SignedAddress(each.control, each.bulk, signature=each.signature) for each in proposals)
    genesis = msgspec.structs.replace(genesis, addresses=addresses)
    (where / "genesis.json").write_bytes(msgspec.json.encode(genesis))
    return genesis, secrets


MISSING = "FAIL  approvals.json: struck: there is no approval of peers "
DAMAGED = "FAIL  approvals.json: damage: "
APPROVED: dict[str, tuple[Callable[[list[Approval]], list[Approval] | None], str]] = {
    "by all": (lambda given: given, "ok    approvals: certificate: all 6 members signed this genesis"),
    "by all but two": (lambda given: [*given[:2], *given[3:5]], f"{MISSING}2, 5"),
    "in no file": (lambda given: None, f"{MISSING}0, 1, 2, 3, 4, 5"),
    "by one with another's signature": (
        lambda given: [msgspec.structs.replace(given[0], signature=given[1].signature), *given[1:]],
        DAMAGED,
    ),
}


@pytest.mark.parametrize("name", APPROVED)
def test_members_that_proposed_themselves_must_all_have_approved(name: str, run_dir: Path) -> None:
    change, line = APPROVED[name]
    genesis, secrets = owned(run_dir)
    kept = change([approve(genesis, secret) for secret in secrets])
    if kept is not None:
        (run_dir / "approvals.json").write_bytes(msgspec.json.encode(kept))
    found = verify(run_dir)
    assert (found.code, len(found.failed)) == ((0, 0) if line.startswith("ok") else (1, 1))
    assert [each for each in found.lines if each.startswith(line)], found.lines


# --- what looks like a forgery, and one that looks like none --------------------------------------------------------


def test_expected_traffic_follows_from_the_certified_parameters_where_the_data_are_not_here(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise DataError("MNIST is not here")

    monkeypatch.setattr(audit, "task_of", missing)
    summary(bytes_expected=1)(run_dir)
    found = verify(run_dir)
    assert found.code == 1 and len(found.failed) == 1 and "bytes_expected is 1" in found.failed[0]


def test_before_a_run_is_scored_its_events_are_held_against_the_journals(run_dir: Path) -> None:
    """Some of them may not have been collected yet; those that are there have to be the nodes' own."""
    all_of(remove("summary.json"), endless)(run_dir)
    path = run_dir / "events.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-9]))
    found = verify(run_dir)
    assert (found.code, found.failed) == (0, [])
    assert "ok    events.jsonl: journals: its records are those of the journals" in found.lines
    assert "not checked: summary.json: there is none: the run has not been scored" in found.lines
    lines(path, lambda record: {**record, "time": 1.0} if record["node"] == 2 else record)
    assert ["events.jsonl: struck" in line for line in verify(run_dir).failed] == [True]


def test_keys_of_the_first_seed_that_anybody_would_try(run_dir: Path) -> None:
    """No file of the directory names it."""
    path = run_dir / "genesis.json"
    genesis = json.loads(path.read_text())
    assert 0 not in (genesis["run"]["init_seed"], genesis["run"]["data_seed"])
    genesis["members"] = msgspec.to_builtins(keys.generate(0, 6)[0])
    path.write_text(json.dumps(genesis))
    (run_dir / "run.json").unlink()
    assert "warning: keys derive from a known seed (0): anyone can forge this run" in verify(run_dir).lines


def test_a_task_without_test_items_has_no_accuracy_to_check(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = audit.task_of

    def untested(*given: Any) -> Any:
        task = real(*given)
        task.test_size = 0
        return task

    monkeypatch.setattr(audit, "task_of", untested)
    assert "not checked: accuracy: the task has no test items" in verify(run_dir).lines


# --- a node that was away -------------------------------------------------------------------------------------------


def went_on(node: int, step: int, attempt: int) -> Forgery:
    """A node says that it went on there after a restart."""

    def change(record: Record) -> Record:
        return {"time": record["time"], "node": node, "event": "resumed", "step": step, "attempt": attempt, "heard": 0}

    return lambda where: add_like(where, node, "committed", change)


@pytest.mark.parametrize(
    ("step", "attempt", "struck"),
    [(8, 0, True), (8, 1, False), (9, 0, False), (10, 0, True)],
    ids=["before the return", "in a later attempt of its step", "right after it", "two steps after it"],
)
def test_a_return_may_be_missed_by_who_went_on_right_behind_it(
    step: int, attempt: int, struck: bool, run_dir: Path
) -> None:
    """A return does not say which attempt ended its step, so the first is taken."""
    all_of(went_on(1, step, attempt), strike("returned", nodes=(1,)), remove("nodes/1/evidence/return-*"))(run_dir)
    mine = [line for line in verify(run_dir).failed if "nodes/1/" in line]
    lacks = f"FAIL  nodes/1/journal.jsonl: struck: it lacks the return of peer {GONE} after step 8, which others prove"
    assert mine == [lacks] * struck
