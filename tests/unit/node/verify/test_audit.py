"""A finished run checked from the outside: intact, and with one thing changed."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from blake3 import blake3
from torch import Tensor, nn

from btard.node.config import WIRE_VERSION, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.errors import ConfigError, DataError
from btard.node.genesis.genesis import read_genesis
from btard.node.protocol.adjudication.offences import standing
from btard.node.protocol.api import Banned, Committed, Finished
from btard.node.protocol.evidence.verifier import Proof, Verifier
from btard.node.protocol.state.state import Summary, parameters_digest
from btard.node.protocol.wire.encoding import decode_body, encode, encode_body, signing_bytes, tensor_bytes
from btard.node.protocol.wire.messages import Signed
from btard.node.storage.journal import Journal
from btard.node.training.task import Layer, lay_out
from btard.node.verify import audit
from btard.node.verify.audit import (
    Finding,
    accuracy,
    check_run,
    evaluate_final,
    model_problem,
    save_model,
)
from tests.simulation.stage import RUN_ID, play, set_up

RUN = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=12, batch_size=2)
SENT = {"bulk_bytes": 0, "control_bytes": 0, "publication_bytes": 0}
ROLES = {
    4: Role((Plugin("shift_aggregate"),), Schedule(start=3), (4, 5)),
    5: Role((Plugin("sign_flip"),), Schedule(start=1), (4, 5)),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as workers leave it, written from a simulated run."""
    where = tmp_path_factory.mktemp("audited") / "run"
    members, _ = generate(1, RUN.peers)
    stage = set_up(RUN, ROLES, protocol_seed=1)
    journals = {}
    for node in range(RUN.peers):
        (where / "nodes" / str(node) / "evidence").mkdir(parents=True)
        journals[node] = Journal(where / "nodes" / str(node) / "journal.jsonl", node)
    genesis = {"format": 1, "wire_version": WIRE_VERSION, "run_id": RUN_ID, "run": RUN, "members": members}
    (where / "genesis.json").write_bytes(msgspec.json.encode(genesis))
    certificate = b""
    for seen in play(stage, ()):
        folder, name = where / "nodes" / str(seen.node), f"nodes/{seen.node}"
        match seen.output:
            case Banned() as ban:
                path = f"{name}/evidence/ban-{ban.step}-{ban.attempt}-{ban.peer}.evidence"
                (where / path).write_bytes(ban.evidence)
                row = {"step": ban.step, "attempt": ban.attempt, "peer": ban.peer, "reason": ban.reason,
                       "accuser": ban.accuser, "removed": ban.removed, "standing": standing(ban.reason),
                       "path": path,
                       "evidence": blake3(ban.evidence).hexdigest()}  # fmt: skip
                journals[seen.node].append("banned", **row)
            case Committed() as done:
                certificate = done.certificate
                journals[seen.node].append(
                    "committed", step=done.step, attempt=done.attempt, contributors=done.contributors,
                    active=done.active, validators={}, seconds=0.1, phases={}, loss=None,
                    parameter_digest=done.parameter_digest.hex(), state_digest=done.state_digest.hex(), **SENT,
                )  # fmt: skip
            case Finished() as done:
                (folder / "parameters.f32").write_bytes(tensor_bytes(done.parameters_D))
                (folder / "certificate").write_bytes(certificate)
                digest = parameters_digest(done.parameters_D).hex()
                journals[seen.node].append("finished", step=done.step, parameter_digest=digest,
                                           path=f"{name}/parameters.f32", **SENT)  # fmt: skip
    for journal in journals.values():
        journal.close()
    return where


@pytest.fixture
def run_dir(intact: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(intact, tmp_path / "run"))


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.ok]


def test_an_intact_run_is_accepted(intact: Path) -> None:
    findings = check_run(intact)
    assert bad(findings) == []
    kinds = [finding.kind for finding in findings]
    assert (kinds.count("transcript"), kinds.count("recomputation"), kinds.count("certificate")) == (1, 1, 4)
    assert kinds.count("quorum") == 1


def flip(path: str, place: int) -> Callable[[Path], None]:
    def change(where: Path) -> None:
        target = next(iter(sorted(where.glob(path))))
        data = bytearray(target.read_bytes())
        data[place % len(data)] ^= 1
        target.write_bytes(data)

    return change


def edit(path: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(where: Path) -> None:
        target = next(iter(sorted(where.glob(path))))
        text = target.read_text()
        assert change(text) != text
        target.write_text(change(text))

    return apply


def overwrite(path: str, content: bytes) -> Callable[[Path], None]:
    def apply(where: Path) -> None:
        (where / path).write_bytes(content)

    return apply


def remove(path: str) -> Callable[[Path], None]:
    return lambda where: next(iter(sorted(where.glob(path)))).unlink()


def without(word: str) -> Callable[[str], str]:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if word not in line)


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


EVIDENCE = "nodes/2/evidence/*.evidence"
DAMAGE = [
    *((f"byte {place} of an evidence file", flip(EVIDENCE, place)) for place in (0, 1, 100, 2222, 9001, -1)),
    ("a byte of the final parameters", flip("nodes/1/parameters.f32", 7)),
    ("a byte of the final certificate", flip("nodes/1/certificate", 500)),
    ("an evidence file missing", remove(EVIDENCE)),
    ("the certificate missing", remove("nodes/3/certificate")),
    ("another reason in a journal", edit("nodes/2/journal.jsonl", swap('"reason":"gradient"', '"reason":"checksum"'))),
    ("another digest in a journal", edit("nodes/2/journal.jsonl", swap('"evidence":"', '"evidence":"0'))),
]  # fmt: skip


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_one_change_is_noticed(damage: Callable[[Path], None], run_dir: Path) -> None:
    damage(run_dir)
    found = bad(check_run(run_dir))
    assert found
    assert all(finding.explanation and finding.subject for finding in found)


def test_an_end_without_its_record_is_struck(run_dir: Path) -> None:
    edit("nodes/3/journal.jsonl", without('"finished"'))(run_dir)
    found = {each.subject: (each.kind, each.explanation) for each in bad(check_run(run_dir))}
    struck = ("struck", "nodes/3/journal.jsonl has no 'finished' record")
    assert found == {"nodes/3/parameters.f32": struck, "nodes/3/certificate": struck}


def again(event: str, **fields: object) -> Callable[[str], str]:
    """The last record of a kind once more, with other values."""

    def change(text: str) -> str:
        last = [line for line in map(msgspec.json.decode, text.splitlines()) if line["event"] == event][-1]
        return text + msgspec.json.encode({**last, **fields}).decode() + "\n"

    return change


def pipe(where: Path) -> None:
    target = next(iter(sorted(where.glob(EVIDENCE))))
    target.unlink()
    os.mkfifo(target)


JOURNAL = "nodes/2/journal.jsonl"
JOURNALS: list[tuple[str, Callable[[Path], None], str]] = [
    ("another end", edit(JOURNAL, again("finished", parameter_digest="0" * 64)), "contradicts an earlier 'finished'"),
    ("a line that is none", edit(JOURNAL, lambda text: text + "{nothing}\n"), "malformed"),
    ("evidence elsewhere", edit(JOURNAL, swap('"path":"nodes/2/', '"path":"nodes/1/')), "outside nodes/2/evidence/"),
    ("evidence that is no file", pipe, "it is no regular file"),
    ("a ban struck", edit(JOURNAL, without('"banned"')), "which others prove"),
    ("a step struck", edit(JOURNAL, without('"step":7,')), "it has finished, and has no record of step 7"),
    ("a step after the end", edit(JOURNAL, again("committed", step=13)), "it has step 13, and the run ends"),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in JOURNALS], ids=[row[0] for row in JOURNALS])
def test_a_journal_that_says_something_else(change: Callable[[Path], None], words: str, run_dir: Path) -> None:
    change(run_dir)
    found = bad(check_run(run_dir))
    assert any(words in each.explanation for each in found), found
    assert not any(f"nodes/{node}/" in each.subject for node in (0, 3) for each in found), "theirs is proven"


def test_a_journal_that_is_empty_is_named(run_dir: Path) -> None:
    overwrite(JOURNAL, b"")(run_dir)
    assert unproven(check_run(run_dir)) == [("journals of nodes 2", "there is no record of them here")]


def test_what_lies_there_without_its_record_is_struck_whatever_it_is(run_dir: Path) -> None:
    edit("nodes/3/journal.jsonl", without('"finished"'))(run_dir)
    certificate = run_dir / "nodes" / "3" / "certificate"
    certificate.unlink()
    os.mkfifo(certificate)
    assert ("nodes/3/certificate", "struck") in {(each.subject, each.kind) for each in bad(check_run(run_dir))}


def test_of_two_ends_of_the_last_step_the_later_attempt_outranks_the_other(run_dir: Path) -> None:
    """Its whole roster has signed both; half of it shows the second, and whether that is the end nothing says."""
    path = run_dir / "nodes" / "0" / "certificate"
    summary, closes = msgspec.msgpack.decode(path.read_bytes(), type=tuple[Summary, tuple[Signed, ...]])
    secrets, again = generate(1, RUN.peers)[1], []
    for close in closes:
        body = decode_body(close.body)
        body = msgspec.structs.replace(body, slot=msgspec.structs.replace(body.slot, attempt=1))
        signer, data = Signer(bytes.fromhex(secrets[body.slot.sender].signing_seed)), encode_body(body)
        again.append(Signed(data, signer.sign(signing_bytes(body, data))))
    for node in (0, 1):
        (run_dir / "nodes" / str(node) / "certificate").write_bytes(encode((summary, tuple(again))))
    findings = check_run(run_dir)
    assert {(each.subject, each.explanation) for each in bad(findings)} == {
        (f"final parameters of node {node}", "it ends in another state than that of node 0, which outranks it")
        for node in (2, 3)
    }
    (final,) = (each for each in findings if each.subject == "final state")
    assert not final.checked
    assert final.explanation.startswith("2 of the 4 nodes of the last roster finished with it (step 12, attempt 2)")


def test_a_fault_of_the_check_is_told_from_damage_of_the_run(intact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Verifier, data: bytes) -> Proof:
        raise IndexError("no such peer")

    monkeypatch.setattr(Verifier, "check", broken)
    found = [each for each in bad(check_run(intact)) if each.kind == "error"]
    assert len(found) == len(list(intact.glob("nodes/*/evidence/*"))), "of each file"
    for each in found:
        assert each.explanation.startswith("the check itself failed at test_audit.py:")
        assert each.explanation.endswith("IndexError: no such peer; report it with this file")


def unproven(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.subject, each.explanation) for each in findings if not each.checked]


def test_what_cannot_be_recomputed_here_is_named(intact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unproven(check_run(intact)) == []
    real = audit.environment_of
    monkeypatch.setattr(audit, "environment_of", lambda *given: msgspec.structs.replace(real(*given), torch="2.99.0"))
    why = "no recomputation in another environment than the run's: no journal here says which"
    ban = ("recomputation for the ban of peer 5 at step 9", "only its signatures were checked")
    assert unproven(check_run(intact)) == [ban, ("gradients", why)]
    monkeypatch.undo()

    def missing(*_: object) -> None:
        raise DataError("MNIST is not here")

    monkeypatch.setattr(audit, "task_of", missing)
    why = "no recomputation without the public data (MNIST is not here)"
    assert unproven(check_run(intact)) == [ban, ("gradients", why)]


def test_the_data_lie_where_the_caller_or_else_the_run_says(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = list[Path](), audit.task_of
    monkeypatch.setattr(audit, "task_of", lambda run, where: asked.append(where) or real(run, where))
    check_run(run_dir)
    overwrite("run.json", b'{"data_directory":"/told"}')(run_dir)
    check_run(run_dir)
    check_run(run_dir, Path("/given"))
    assert asked == [run_dir / "data", Path("/told"), Path("/given")]


def test_a_record_that_is_no_text_does_not_keep_a_run_from_being_verified(run_dir: Path) -> None:
    """It only says where the data were; evidence and certificates prove the rest."""
    overwrite("run.json", b'{"data_directory":"\xff"}')(run_dir)
    assert bad(check_run(run_dir)) == []


REFUSED = [
    ("no run directory", remove("genesis.json"), "genesis.json"),
    ("a damaged genesis", edit("genesis.json", lambda text: text[:-2]), "damaged"),
    ("a genesis that is no text", overwrite("genesis.json", b'{"run_id":"\xff"}'), "damaged"),
    ("another wire version",
     edit("genesis.json", lambda text: text.replace(f'"wire_version":{WIRE_VERSION}', '"wire_version":99')), "99"),
    ("a comparison run", edit("genesis.json", swap('"topology":"butterfly"', '"topology":"ring"')), "nothing in it"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_run_of_ours_is_refused(damage: Callable[[Path], None], words: str, run_dir: Path) -> None:
    damage(run_dir)
    with pytest.raises(ConfigError, match=words):
        check_run(run_dir)


def test_another_roster_proves_nothing(run_dir: Path) -> None:
    genesis = msgspec.json.decode((run_dir / "genesis.json").read_bytes())
    genesis["members"] = msgspec.to_builtins(generate(2, RUN.peers)[0])
    (run_dir / "genesis.json").write_bytes(msgspec.json.encode(genesis))
    assert not any(finding.ok for finding in check_run(run_dir) if finding.checked)


def test_the_final_figure_and_the_model(intact: Path, tmp_path: Path) -> None:
    genesis = read_genesis(intact)
    parameters = intact / "nodes" / "0" / "parameters.f32"
    assert 0.0 <= evaluate_final(genesis.run, tmp_path, parameters) <= 1.0
    save_model(genesis.run, tmp_path, parameters, tmp_path / "model.pt")
    tensors = torch.load(tmp_path / "model.pt", weights_only=True)
    raw = torch.frombuffer(bytearray(parameters.read_bytes()), dtype=torch.float32)
    assert torch.equal(torch.cat([tensor.flatten() for tensor in tensors.values()]), raw)


def test_the_final_figure_is_a_share_of_all_test_items() -> None:
    class Task:
        test_size = 4

        def evaluate(self, parameters_D: torch.Tensor, start: int, stop: int) -> int:
            return len(range(self.test_size)[start:stop])

    assert accuracy(Task(), torch.zeros(3)) == 1.0  # type: ignore[arg-type]
    Task.test_size = 0
    assert accuracy(Task(), torch.zeros(3)) is None  # type: ignore[arg-type]


def test_files_that_a_run_was_made_with_are_loaded_for_its_figure(intact: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    with pytest.raises(ConfigError, match=r"own\.py"):
        evaluate_final(read_genesis(intact).run, tmp_path, intact / "nodes" / "0" / "parameters.f32", [own])


def test_the_final_figure_of_a_run_on_a_gpu_needs_none(
    intact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = read_genesis(intact).run
    parameters = intact / "nodes" / "0" / "parameters.f32"
    on_gpu = msgspec.structs.replace(run, device="cuda")
    assert evaluate_final(on_gpu, tmp_path, parameters) == evaluate_final(run, tmp_path, parameters)
    save_model(on_gpu, tmp_path, parameters, tmp_path / "model.pt")


@pytest.mark.parametrize("content", [None, b"", b"abc", bytes(40)], ids=["missing", "empty", "odd", "short"])
def test_unreadable_parameters_are_a_data_error(content: bytes | None, intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "parameters.f32"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="run again"):
        evaluate_final(read_genesis(intact).run, tmp_path, path)


VALUES_D = torch.arange(5.0)
LAYOUT = lay_out([("weight", (2, 2)), ("bias", (1,))])
MODEL = {"weight": VALUES_D[:4].reshape(2, 2), "bias": VALUES_D[4:]}


def saved(content: object) -> bytes:
    """A file of torch."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def packed(data: bytes) -> bytes:
    """The same archive, one of its files packed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(file, "w") as after:
        for place, each in enumerate(before.infolist()):
            kind = zipfile.ZIP_STORED if place else zipfile.ZIP_DEFLATED
            after.writestr(each.filename, before.read(each), kind)
    return file.getvalue()


TASKS_TENSORS = "its tensors are not those of the task"
BUFFERS = "its buffers are not those that its parameters give"
CERTIFIED = "its values are not the certified parameters"


@pytest.mark.parametrize(
    ("content", "layout", "problem"),
    [
        (MODEL, LAYOUT, None),
        (MODEL, None, None),
        (dict(reversed(MODEL.items())), LAYOUT, None),
        (dict(reversed(MODEL.items())), None, CERTIFIED),
        ({"weights": MODEL["weight"], "bias": MODEL["bias"]}, LAYOUT, TASKS_TENSORS),
        ({"weights": MODEL["weight"], "bias": MODEL["bias"]}, None, None),
        ({**MODEL, "more": torch.zeros(0)}, LAYOUT, TASKS_TENSORS),
        ({"weight": MODEL["weight"]}, LAYOUT, TASKS_TENSORS),
        ({"weight": MODEL["weight"].flatten(), "bias": MODEL["bias"]}, LAYOUT, TASKS_TENSORS),
        ({"weight": MODEL["weight"].double(), "bias": MODEL["bias"]}, LAYOUT, TASKS_TENSORS),
        ({"weight": MODEL["weight"].double(), "bias": MODEL["bias"]}, None, CERTIFIED),
        ({**MODEL, "steps": torch.tensor(3)}, None, None),  # a buffer, or not: only the task knows
        ({**MODEL, "steps": torch.tensor(3)}, LAYOUT, TASKS_TENSORS),
        ({**MODEL, "bias": torch.tensor([4.0, 5.0])}, None, CERTIFIED),
        ({**MODEL, "bias": torch.tensor([5.0])}, LAYOUT, CERTIFIED),
        ({**MODEL, "weight": MODEL["weight"].T}, LAYOUT, CERTIFIED),
        ({}, None, CERTIFIED),
        ({**MODEL, "bias": 4.0}, LAYOUT, "it is no dictionary of tensors"),
        (VALUES_D, LAYOUT, "it is no dictionary of tensors"),
    ],
)
def test_a_saved_model_is_that_of_the_parameters(
    content: object, layout: Sequence[Layer] | None, problem: str | None
) -> None:
    task: Any = None if layout is None else SimpleNamespace(layout=layout)
    assert model_problem(saved(content), VALUES_D, task) == problem


def with_buffers(**changed: Tensor) -> dict[str, Tensor]:
    return {
        "0.weight": VALUES_D[:2],
        "0.bias": VALUES_D[2:4],
        "0.running_mean": torch.zeros(2),
        "0.running_var": torch.ones(2),
        "0.num_batches_tracked": torch.tensor(0),
        **{f"0.{name}": each for name, each in changed.items()},
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (with_buffers(), None),
        (with_buffers(running_mean=torch.full((2,), 1e-5)), None),  # computed with other kernels
        (with_buffers(running_mean=torch.tensor([0.0, 0.01])), BUFFERS),
        (with_buffers(running_var=torch.tensor([1.0, float("nan")])), BUFFERS),
        (with_buffers(num_batches_tracked=torch.tensor(1)), BUFFERS),
        (with_buffers(running_mean=torch.zeros(2).double()), TASKS_TENSORS),
        ({name: each for name, each in with_buffers().items() if name != "0.running_var"}, TASKS_TENSORS),
        (with_buffers(weight=torch.ones(2)), CERTIFIED),
    ],
)
def test_buffers_of_a_saved_model_are_those_that_its_parameters_give(
    content: dict[str, Tensor], problem: str | None
) -> None:
    def module(parameters_D: Tensor) -> nn.Module:
        made = nn.Sequential(nn.BatchNorm1d(2))
        made.load_state_dict({"0.weight": parameters_D[:2], "0.bias": parameters_D[2:]}, strict=False)
        return made

    layout = lay_out([("0.weight", (2,)), ("0.bias", (2,))])
    buffers = frozenset(("0.running_mean", "0.running_var", "0.num_batches_tracked"))
    task: Any = SimpleNamespace(layout=layout, buffers=buffers, module=module)
    assert model_problem(saved(content), VALUES_D[:4], task) == problem


def test_a_file_that_is_none_of_torchs_is_not_read() -> None:
    whole = saved(MODEL)
    assert model_problem(packed(whole), VALUES_D, LAYOUT) == "it is packed, which torch.save does not do"
    for data in (b"", whole[:100], whole[:-30]):
        assert str(model_problem(data, VALUES_D, LAYOUT)).startswith("it cannot be read: ")


# --- what a journal says of its end, and of what it missed ------------------------------------------------------------

Line = dict[str, Any]


def journal(change: Callable[[Line], Line | None], more: Sequence[Line] = ()) -> Callable[[Path], None]:
    """Change each record of node 2's journal, None strikes it, and add some with the time of the last."""

    def apply(where: Path) -> None:
        path = where / JOURNAL
        before = [msgspec.json.decode(line) for line in path.read_text().splitlines()]
        after = [record for record in map(change, before) if record is not None]
        after += [{"time": before[-1]["time"], "node": 2, **record} for record in more]
        assert after != before
        path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in after))

    return apply


def at_the_end(event: str, **fields: object) -> Callable[[Path], None]:
    """Other values in node 2's record of the last step."""
    return journal(lambda line: {**line, **fields} if (line["event"], line["step"]) == (event, 12) else line)


def went_on(step: int, attempt: int = 0) -> Callable[[Path], None]:
    """Node 2 has no record of step 7, and says where it went on after a restart."""
    again = {"event": "resumed", "step": step, "attempt": attempt, "heard": 0}
    return journal(lambda line: None if (line["event"], line["step"]) == ("committed", 7) else line, [again])


END, LAST = "the journal's 'finished' record names another step", "the journal names other digests of step 12"
GAP = "it has finished, and has no record of step "
SAID: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "another last step": (at_the_end("finished", step=11), [END]),
    "other last parameters": (at_the_end("finished", parameter_digest="0" * 64), [END]),
    "another digest of the last state": (at_the_end("committed", state_digest="0" * 64), [LAST]),
    "another digest of the last parameters": (at_the_end("committed", parameter_digest="0" * 64), [LAST]),
    "no record of the last step": (
        journal(lambda line: None if (line["event"], line["step"]) == ("committed", 12) else line),
        [f"{GAP}12"],
    ),
    "no record of a step, gone on at it": (went_on(7), [f"{GAP}7"]),
    "no record of a step, gone on right behind it": (went_on(8), []),
    "no record of a step, gone on two steps later": (went_on(9), [f"{GAP}7"]),
}


@pytest.mark.parametrize("name", SAID)
def test_a_journal_is_held_against_the_certificate_and_against_itself(name: str, run_dir: Path) -> None:
    change, words = SAID[name]
    change(run_dir)
    found = [each.explanation for each in bad(check_run(run_dir))]
    assert len(found) == len(words) and all(map(str.startswith, found, words)), found


@pytest.mark.parametrize(
    ("left", "told"),
    [((2,), "(one file)"), ((2, 3), "(2 nodes' files)"), ((0, 1, 2, 3), "(4 nodes' files)")],
    ids=["one", "two", "four"],
)
def test_how_many_files_prove_a_ban(left: tuple[int, ...], told: str, run_dir: Path) -> None:
    for node in set(range(6)) - set(left):
        shutil.rmtree(run_dir / "nodes" / str(node))
    proven = [each for each in check_run(run_dir) if each.kind in ("recomputation", "transcript")]
    assert len(proven) == 2 and all(each.explanation.endswith(told) for each in proven), proven
