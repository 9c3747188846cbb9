"""`btard-node`: the ceremony's commands, what they print, and one line for each mistake."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from btard.launcher.cli import node
from btard.node import __main__ as worker
from btard.node.config import NodeConfig, Plugin, Role, Schedule
from btard.node.genesis import identity
from btard.node.genesis.genesis import decode_genesis
from tests.ceremony import PEERS, address, path_of
from tests.launching import environment

TOML = 'peers = 4\ntask = "quadratic"\nsteps = 3\nbatch-size = 4\ndevice = "cpu"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    return None


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    with pytest.raises(SystemExit) as ending:
        node.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(ending.value.code, int)
    return ending.value.code, captured.out, captured.err


def done(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints to stdout."""
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    return out


def proposed(capsys: pytest.CaptureFixture[str], peers: int = PEERS) -> list[str]:
    """Owners with proposals; the names of their files."""
    for number in range(peers):
        done(capsys, "init", f"owner{number}")
        at = address(number)
        text = done(capsys, "propose", f"owner{number}", "--address", f"{at.control},{at.bulk}")
        Path(f"{number}.proposal").write_text(text)
    Path("run.toml").write_text(TOML)
    return [f"{number}.proposal" for number in range(peers)]


def assembled(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The genesis of four owners, in genesis.json."""
    Path("genesis.json").write_text(done(capsys, "assemble", "run.toml", *proposed(capsys)))
    genesis: dict[str, Any] = json.loads(Path("genesis.json").read_text())
    return genesis


def test_the_whole_ceremony(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    genesis = assembled(capsys)
    assert (genesis["run"]["steps"], genesis["run"]["task"]["name"]) == (3, "quadratic")
    for number in range(PEERS):
        code, out, err = call(capsys, "approve", f"owner{number}", "genesis.json", "--yes")
        assert code == 0
        digest = decode_genesis(Path("genesis.json").read_bytes(), "g").digest
        assert json.loads(out)["genesis"] == digest and digest in err
        assert len(out.encode()) <= 1000 and len(Path(f"{number}.proposal").read_bytes()) <= 1000
        assert "peers, up to 1 of them faulty" in err
        assert "steps 3" in err and "yours   as proposed" in err
        assert err.count("(this one)") == 1


def test_nothing_secret_is_printed_or_in_another_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assembled(capsys)
    printed = ""
    for number in range(PEERS):
        printed += "".join(map(str, call(capsys, "approve", f"owner{number}", "genesis.json", "--yes")))
    secret = [
        value
        for number in range(PEERS)
        for value in json.loads((path_of(tmp_path, number) / identity.SECRETS).read_text()).values()
    ]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        if path.name == identity.SECRETS:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        else:
            printed += path.read_text()
    assert len(secret) == 3 * PEERS and len(files) > 4 * PEERS
    assert not [value for value in secret if value in printed]


def test_an_identity_is_made_once(capsys: pytest.CaptureFixture[str]) -> None:
    public = json.loads(done(capsys, "init", "owner"))
    assert set(public) == {"signing_key", "transport_key"}
    code, out, err = call(capsys, "init", "owner")
    assert (code, out) == (2, "")
    assert err.startswith("error: owner holds an identity; use another directory")


def test_a_signature_is_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assembled(capsys)
    asked: list[str] = []
    monkeypatch.setattr(click, "confirm", lambda text, **_: asked.append(text) or len(asked) > 1)
    code, out, err = call(capsys, "approve", "owner0", "genesis.json")
    assert (code, out) == (1, "") and "nothing was signed" in err
    assert not Path("owner0/approval.json").exists() and not Path("owner0/genesis.json").exists()
    assert json.loads(done(capsys, "approve", "owner0", "genesis.json"))["signature"]
    assert asked == ["sign it?"] * 2


def test_a_moved_owner_sees_what_it_signs(capsys: pytest.CaptureFixture[str]) -> None:
    assembled(capsys)
    done(capsys, "propose", "owner0", "--address", "tcp://moved:1,tcp://moved:2")
    _, _, err = call(capsys, "approve", "owner0", "genesis.json", "--yes")
    assert "yours   an earlier proposal: the last one was tcp://moved:1 tcp://moved:2" in err


def test_a_configuration_differs_by_its_file_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = assembled(capsys)
    monkeypatch.setenv("BTARD_STEPS", "7")
    files = [f"{number}.proposal" for number in reversed(range(PEERS))]
    assert json.loads(done(capsys, "assemble", "run.toml", *files)) == before
    assert json.loads(done(capsys, "assemble", "run.toml", *files, "--name", "four"))["run_id"] == "four"


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "an attacker": (
        'attack = "noise"\nbyzantine = 1\n',
        [],
        "run.toml: attack is no option of a run of several owners",
    ),
    "a backend": ('backend = "simulated"\n', [], "run.toml: backend is no option of a run of several owners"),
    "a number out of range": ("tau = -1\n", [], "--tau -1.0 must be a positive"),
    "no option": ("stepz = 3\n", [], "--config run.toml: unknown key 'stepz'; did you mean 'steps'?"),
    "too few proposals": ("", ["3.proposal"], "3 proposals for a run of 4 peers; name every peer's, or set peers = 3"),
}


@pytest.mark.parametrize(("more", "without", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_assembled(
    more: str, without: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [name for name in proposed(capsys) if name not in without]
    Path("run.toml").write_text(TOML + more)
    code, out, err = call(capsys, "assemble", "run.toml", *files)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {problem}") and err.count("\n") == 1


def test_a_changed_proposal_is_named_by_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    files = proposed(capsys)
    Path("2.proposal").write_text(Path("2.proposal").read_text().replace("host2", "evil2"))
    code, out, err = call(capsys, "assemble", "run.toml", *files)
    assert (code, out) == (2, "")
    assert err == "error: 2.proposal: its signature is not valid for what it says; ask its owner to propose again\n"
    Path("2.proposal").write_text(Path("1.proposal").read_text())
    code, out, err = call(capsys, "assemble", "run.toml", *files)
    assert (code, out) == (2, "")
    assert err.startswith("error: 1.proposal and 2.proposal propose one key;")


def test_two_runs_files_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assembled(capsys)
    files = [f"{number}.proposal" for number in range(PEERS)]
    Path("other.json").write_text(done(capsys, "assemble", "run.toml", *files, "--name", "other"))
    for number, file in enumerate(("genesis.json", "other.json", "genesis.json", "genesis.json")):
        Path(f"{number}.approval").write_text(done(capsys, "approve", f"owner{number}", file, "--yes"))
    for arguments, problem in (
        (["approve", "owner0", "other.json", "--yes"], "the identity in owner0 has approved run"),
        (["run", "owner0", "--genesis", "other.json"], "the identity in owner0 has approved run"),
        (["run", "owner0", "1.approval"], "1.approval approves genesis"),
        (["run", "owner0", "--genesis", "2.proposal"], "2.proposal is damaged"),
        (["run", "owner0", "2.proposal"], "2.proposal is no approval"),
        (["run", "owner4"], "owner4 holds no identity; `btard-node init owner4` makes one"),
        (["run", "owner0", "--listen", "h:1"], "--listen 'h:1' is not one address, nor two; write tcp://HOST:7400"),
        (["run", "owner0", "--listen", "tcp://h:1"], "listen is tcp://h:1, and the others know peer"),
        (["run", "owner0", "--wait", "soon"], "'soon' is not a duration"),
        (["run", "owner0", "--gpu-share", "1.5"], "Invalid value for '--gpu-share': 1.5 is not in the range 0<x<=1"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "")
        assert f"error: {problem}" in err


def test_one_port_at_two_hosts_is_bound_where_its_owner_says(capsys: pytest.CaptureFixture[str]) -> None:
    assembled(capsys)
    done(capsys, "approve", "owner0", "genesis.json", "--yes")
    there = "tcp://a.example:7400,tcp://b.example:7400"
    Path("0.proposal").write_text(done(capsys, "propose", "owner0", "--address", there))
    Path("moved.json").write_text(done(capsys, "assemble", "run.toml", *[f"{each}.proposal" for each in range(PEERS)]))
    code, out, err = call(capsys, "run", "owner0", "--genesis", "moved.json")
    assert (code, out) == (2, "")
    line = "tcp://a.example:7400 and tcp://b.example:7400 have one port; say by --listen what to bind for each"
    assert f"error: {line}\n" in err


def test_a_peer_keeps_to_its_share_of_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the flag, or by the variable that an engine sets."""
    assembled(capsys)
    done(capsys, "approve", "owner0", "genesis.json", "--yes")
    begun: list[NodeConfig] = []
    monkeypatch.setattr(worker, "run", lambda config: begun.append(config) or 0)
    done(capsys, "run", "owner0")
    done(capsys, "run", "owner0", "--gpu-share", "0.25")
    monkeypatch.setenv("BTARD_GPU_SHARE", "0.15")
    done(capsys, "run", "owner0")
    assert [config.cuda_memory_fraction for config in begun] == [None, 0.25, 0.15]


def test_an_owner_may_attack_to_see_a_ban(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assembled(capsys)
    done(capsys, "approve", "owner0", "genesis.json", "--yes")
    begun: list[NodeConfig] = []
    monkeypatch.setattr(worker, "run", lambda config: begun.append(config) or 0)
    done(capsys, "run", "owner0", "--attack", "noise:variant=small,start=20")
    (config,) = begun
    assert config.role == Role((Plugin("noise", {"variant": "small"}),), Schedule(start=20), (config.node,))
    code, _, err = call(capsys, "run", "owner0", "--attack", "noize")
    assert code == 2 and err.splitlines()[-1].startswith("error: unknown attack 'noize'")
    assert len(begun) == 1


def test_a_run_needs_ones_own_approval(capsys: pytest.CaptureFixture[str]) -> None:
    assembled(capsys)
    code, out, err = call(capsys, "run", "owner0", "--genesis", "genesis.json")
    assert (code, out) == (2, "")
    assert err == "error: owner0 has not approved the genesis; `btard-node approve owner0 GENESIS` does\n"
    code, _, err = call(capsys, "run", "owner0")
    assert code == 2 and err == "error: owner0/genesis.json does not exist; name a file\n"


@pytest.mark.parametrize("command", ["init", "propose", "approve"])
def test_the_ceremony_loads_no_torch(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assembled(capsys)
    arguments = {
        "init": ["init", "new"],
        "propose": ["propose", "owner0", "--address", "tcp://h:1,tcp://h:2"],
        "approve": ["approve", "owner0", "genesis.json", "--only-if", "run.toml"],
    }[command]
    code = (
        "import sys\nfrom btard.launcher.cli import node\n"
        f"try:\n    node.main({arguments!r})\nfinally:\n    assert 'torch' not in sys.modules, 'torch'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_an_owner_may_sign_by_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """As engines do: a genesis with the options of one's own file, and with oneself as last proposed."""
    assembled(capsys)
    code, out, err = call(capsys, "approve", "owner0", "genesis.json", "--only-if", "run.toml")
    assert code == 0 and json.loads(out)["signature"] and "yours   as proposed" in err
    assert call(capsys, "approve", "owner0", "genesis.json", "--only-if", "run.toml")[1] == out, "again"

    for line, problem in (
        ("steps = 4\n", "nothing was signed: steps is 3 in the genesis, 4 in mine.toml"),
        ("undo = 5\n", "nothing was signed: undo is"),
        ("tau = 1.5\n", "nothing was signed: tau is 5.0 in the genesis, 1.5 in mine.toml"),
        ('attack = "noise"\n', "mine.toml: attack is no option of a run of several owners"),
        ("stepz = 4\n", "--config mine.toml: unknown key 'stepz'"),
    ):
        kept = "" if line.startswith("steps") else "steps = 3\n"
        Path("mine.toml").write_text(TOML.replace("steps = 3\n", kept) + line)
        code, out, err = call(capsys, "approve", "owner1", "genesis.json", "--only-if", "mine.toml")
        assert (code, out) == (2, "") and f"error: {problem}" in err
    done(capsys, "propose", "owner1", "--address", "tcp://moved:1,tcp://moved:2")
    code, out, err = call(capsys, "approve", "owner1", "genesis.json", "--only-if", "run.toml")
    assert (code, out) == (2, "")
    assert "error: nothing was signed: the genesis has this peer as it proposed itself earlier" in err
    assert not Path("owner1/approval.json").exists() and not Path("owner1/genesis.json").exists()


def test_a_run_on_gpus_is_assembled_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    files = proposed(capsys)
    Path("run.toml").write_text(TOML.replace('"cpu"', '"cuda"'))
    Path("genesis.json").write_text(done(capsys, "assemble", "run.toml", *files))
    assert json.loads(Path("genesis.json").read_text())["run"]["device"] == "cuda"
    done(capsys, "approve", "owner0", "genesis.json", "--only-if", "run.toml")


# --- newcomers ----------------------------------------------------------------------------------------------------

SPONSORED = TOML + 'roster = "sponsored"\nmembers = 6\n'
WHERE = "tcp://new.example:7400,tcp://new.example:7401"


def going_on(capsys: pytest.CaptureFixture[str], toml: str = SPONSORED) -> None:
    """A genesis that four owners have approved, and a fifth identity."""
    proposals = proposed(capsys)
    Path("run.toml").write_text(toml)
    Path("genesis.json").write_text(done(capsys, "assemble", "run.toml", *proposals))
    for number in range(PEERS):
        done(capsys, "approve", f"owner{number}", "genesis.json", "--yes")
    done(capsys, "init", "new")


def applied(capsys: pytest.CaptureFixture[str], *more: str) -> None:
    Path("new.application").write_text(done(capsys, "apply", "new", "genesis.json", "--address", WHERE, *more))


def test_a_founder_vouches_and_every_member_may_introduce(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    going_on(capsys)
    applied(capsys)
    plain = json.loads(Path("new.application").read_text())
    assert plain["sponsor"] is None and plain["peer"] in (4, 5) and plain["number"] == 0
    Path("new.sponsored").write_text(done(capsys, "sponsor", "owner1", "new.application"))
    made = json.loads(Path("new.sponsored").read_text())
    members = json.loads(Path("genesis.json").read_text())["members"]
    mine = json.loads(Path("owner1/proposal.json").read_text())["signing_key"]
    assert members[made["sponsor"]]["signing_key"] == mine
    assert done(capsys, "sponsor", "owner2", "new.sponsored") == Path("new.sponsored").read_text()
    waiting = {path.parent.parent.name for path in tmp_path.glob("owner*/applications/*.application")}
    assert waiting == {"owner1", "owner2"}


def test_a_newcomers_worker_is_told_who_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on(capsys)
    applied(capsys, "--id", "5")
    told: list[NodeConfig] = []
    monkeypatch.setattr(worker, "run", lambda config: told.append(config) or 0)
    assert call(capsys, "run", "new")[0] == 0
    assert call(capsys, "run", "owner0")[0] == 0
    newcomer, founder = told
    assert newcomer.node == 5 and newcomer.members == founder.members and newcomer.listen.control.endswith(":7400")
    assert founder.applications == str(Path("owner0/applications").absolute())


def test_an_application_counts_only_when_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    going_on(capsys)
    numbers = []
    for more in ((), ("--id", "5"), ("--again",), ("--again",)):
        applied(capsys, *more)
        made = json.loads(Path("new.application").read_text())
        numbers.append((made["number"], made["peer"]))
    assert [number for number, _ in numbers] == [0, 0, 1, 2] and {peer for _, peer in numbers[1:]} == {5}
    code, out, err = call(capsys, "apply", "new", "genesis.json", "--address", WHERE, "--again")
    assert (code, out) == (2, "") and "this is not a new one of 3 applications" in err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a mistake gets."""
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    return " ".join(err.split())


def test_what_lets_nobody_in_is_said_with_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    going_on(capsys)
    applied(capsys)
    assert "`btard-node apply` makes one" in refused(capsys, "sponsor", "owner0", "0.proposal")
    assert "its id is another's; ask for a free one by `btard-node apply --id`" in refused(
        capsys, "apply", "new", "genesis.json", "--address", WHERE, "--id", "3"
    )
    assert "is a member's or a newcomer's; `btard-node init`" in refused(
        capsys, "apply", "owner3", "genesis.json", "--address", WHERE
    )
    done(capsys, "sponsor", "owner0", "new.application")
    done(capsys, "init", "second")
    Path("second.application").write_text(done(capsys, "apply", "second", "genesis.json", "--address", WHERE))
    assert "ask another founder" in refused(capsys, "sponsor", "owner0", "second.application")
    assert "is no founder's" in refused(capsys, "sponsor", "second", "second.application")
    changed = json.loads(Path("new.application").read_text()) | {"control": "tcp://elsewhere.example:1"}
    Path("changed.application").write_text(json.dumps(changed))
    assert "a signature is not valid in this run" in refused(capsys, "sponsor", "owner1", "changed.application")
    assert "nowhere holds no identity" in refused(capsys, "sponsor", "nowhere", "new.application")


def test_a_closed_roster_and_another_run_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    going_on(capsys)
    applied(capsys)
    Path("other.toml").write_text(SPONSORED + "lr = 0.07\n")
    proposals = [f"{number}.proposal" for number in range(PEERS)]
    Path("other.json").write_text(done(capsys, "assemble", "other.toml", *proposals))
    assert "an identity is for one run" in refused(capsys, "apply", "new", "other.json", "--address", WHERE)
    Path("closed.toml").write_text(TOML)
    Path("closed.json").write_text(done(capsys, "assemble", "closed.toml", *proposals))
    done(capsys, "init", "third")
    assert "the roster is closed; a genesis with roster = sponsored or open" in refused(
        capsys, "apply", "third", "closed.json", "--address", WHERE
    )
