"""Whole runs: real processes, real sockets, the command line as a user has it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from btard import Experiment, Result, run
from btard.launcher.run import plan
from btard.launcher.run.run_directory import read_record
from tests.launching import LAUNCH, PATIENCE_S, await_end, command, environment, launched, read_until, session, worker
from tests.unit.launcher.verify.test_verification import Forgery, noise, roll_back_files, strike
from tests.unit.launcher.verify.test_verification import summary as forge_summary
from tests.waiting import changes

pytestmark = pytest.mark.sockets

QUICK = ("--task", "quadratic", "--device", "cpu", "--timeout", "100s", "--run-dir", "run")
ENDLESS = (*QUICK, "--steps", "1000000", "--eval-every", "100000")
READY = "workers ready"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished run with two attackers."""
    where = tmp_path_factory.mktemp("attacked") / "run"
    return run(Experiment(task="quadratic", device="cpu", steps=40, eval_every=20, attack="noise", byzantine=2,
                          attack_start=3, protocol_seed=2, run_dir=str(where), timeout=100))  # fmt: skip


def test_both_attackers_are_banned_and_nobody_else(attacked: Result) -> None:
    made = attacked.summary
    assert (made.outcome, made.problem, made.failures) == ("finished", None, [])
    assert (made.steps, made.byzantine, made.undetected, made.honest_banned) == (38, [4, 5], 0, 0)
    assert len(made.undone) == 2, "each ban is followed by a step that undoes"
    assert (made.agreement, made.keys) == (True, "protocol-seed")
    assert len({made.parameter_digest[str(peer)] for peer in range(4)}) == 1
    assert [step for step, _ in made.accuracy] == [0, 20, 40]
    assert made.final_test_accuracy == made.accuracy[-1][1], "the slices add up to the launcher's own figure"
    for ban in made.bans:
        assert (attacked.run_dir / ban.evidence).stat().st_size > 0
    assert made.bytes_expected is not None
    assert made.bytes_sent.bulk >= made.bytes_expected
    assert all(steps >= 1 for steps in made.detection_steps.values())


def test_the_run_directory_is_complete(attacked: Result) -> None:
    import torch

    names = {path.name for path in attacked.run_dir.iterdir()}
    assert names == {
        "run.json",
        "genesis.json",
        "approvals.json",
        "ceremony",
        "summary.json",
        "events.jsonl",
        "metrics.jsonl",
        "logs",
        "nodes",
        "model.pt",
    }
    assert json.loads((attacked.run_dir / "summary.json").read_text())["outcome"] == "finished"
    assert sorted(read_record(attacked.run_dir).roles) == ["4", "5"]
    events = [json.loads(line) for line in (attacked.run_dir / "events.jsonl").read_text().splitlines()]
    assert {"started", "bound", "greeted", "banned", "finished", "exited", "ended"} <= {
        event["event"] for event in events
    }
    metrics = [json.loads(line) for line in (attacked.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {metric["event"] for metric in metrics} == {"committed", "evaluated"}
    model = torch.load(attacked.run_dir / "model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in model.values()) == 64


def test_verify_accepts_it_and_notices_one_changed_byte(attacked: Result) -> None:
    command = [*LAUNCH, "verify", str(attacked.run_dir)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ban of peer 5" in done.stdout
    assert "FAIL" not in done.stdout
    evidence = attacked.run_dir / attacked.summary.bans[0].evidence
    intact = evidence.read_bytes()
    evidence.write_bytes(intact[:100] + bytes([intact[100] ^ 1]) + intact[101:])
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    finally:
        evidence.write_bytes(intact)
    assert done.returncode == 1
    assert "FAIL" in done.stdout


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (roll_back_files, "FAIL  final parameters of node 0: damage: the certificate is of step 38"),
        (noise, "FAIL  model.pt: model: its values are not the certified parameters"),
        (forge_summary(final_test_accuracy=0.25), "FAIL  final test accuracy: summary: summary.json says 0.25"),
        (strike("banned", "finished"), "FAIL  nodes/0/certificate: struck"),
    ],
    ids=["rolled back two steps", "a model of noise", "another accuracy", "bans and ends struck"],
)
def test_verify_finds_what_was_forged(forge: Forgery, words: str, attacked: Result, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(attacked.run_dir, tmp_path / "run"))
    forge(run_dir)
    done = command(tmp_path, "verify", "run")
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.startswith(words) for line in done.stdout.splitlines()), done.stdout


def test_an_exported_run_is_verified_without_secrets(attacked: Result, tmp_path: Path) -> None:
    done = command(tmp_path, "export", "--public", str(attacked.run_dir), "shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert not [path for path in (tmp_path / "shared").rglob("*") if path.name in ("secrets.json", "config.json")]
    done = command(tmp_path, "verify", "shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 wrong" in done.stdout
    assert command(tmp_path, "export", str(attacked.run_dir), "elsewhere").returncode == 2


@pytest.mark.parametrize(("expectation", "code"), [("honest_banned==0", 0), ("steps==4", 4)], ids=["met", "not met"])
def test_json_on_stdout_and_expectations(expectation: str, code: int, tmp_path: Path) -> None:
    command = [*LAUNCH, *QUICK, "--steps", "3", "--json", "--expect", expectation]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == code
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert READY in done.stderr
    assert ("expectation not met: steps==4: it is 3" in done.stderr) is (code == 4)


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_a_signal_stops_everything_and_leaves_a_summary(signum: int, code: int, tmp_path: Path) -> None:
    with launched(tmp_path, *ENDLESS) as process:
        read_until(process, READY)
        # As a terminal does it: to the whole group, workers included. SIGTERM comes to the launcher alone.
        (os.kill if signum == signal.SIGTERM else os.killpg)(process.pid, signum)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, output
        assert "Traceback" not in output
        assert "check the evidence with" in output
        left = session(process.pid)
        await_end(left)
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (made["outcome"], made["honest_banned"], made["agreement"]) == ("interrupted", 0, True)
    assert logs(tmp_path / "run") == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda value: str(value))
def test_a_signal_before_the_start_leaves_nothing(signum: int, tmp_path: Path) -> None:
    """The signal comes while the data set is being fetched."""
    arguments = ("--data-dir", "data", "--device", "cpu", "--steps", "2", "--run-dir", "run")
    with launched(tmp_path, *arguments) as process:
        read_until(process, "MNIST from torchvision")
        os.killpg(process.pid, signum)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output.strip()) == (128 + signum, "interrupted: nothing was started")
        await_end(session(process.pid))
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_no_worker_survives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    with launched(tmp_path, *ENDLESS) as process:
        read_until(process, READY)
        left = [pid for pid in session(process.pid) if pid != process.pid]
        assert len(left) >= 7, "six workers and their server"
        process.kill()
        await_end(left)


def committed_by(run_dir: Path, nodes: Sequence[int]) -> None:
    """Wait until each of these nodes has committed a step, by their journals."""
    folders = [run_dir / "nodes" / str(node) for node in nodes]
    with changes(map(str, folders)) as changed:  # before the first look: nothing is missed
        while any('"committed"' not in (folder / "journal.jsonl").read_text() for folder in folders):
            assert select.select([changed], [], [], PATIENCE_S)[0], "no journal grows any more"
            os.read(changed, 1 << 16)


def test_a_worker_that_dies_is_gone_and_the_run_goes_on(tmp_path: Path) -> None:
    with launched(tmp_path, *ENDLESS, "--delivery-bound", "200ms", "--gradient-bound", "500ms") as process:
        read_until(process, READY)
        os.kill(worker(process.pid, 3), signal.SIGKILL)
        said = read_until(process, "HONEST peer 3 gone (silent")
        committed_by(tmp_path / "run", (0, 1, 2, 4, 5))
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=PATIENCE_S)[0]
        await_end(session(process.pid))
    assert process.returncode == 128 + signal.SIGTERM
    assert "node 3 was killed by SIGKILL at step" in said
    assert "Traceback" not in said
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert made["outcome"] == "interrupted"
    assert (made["bans"], made["honest_banned"], made["honest_gone_peers"]) == ([], 0, [3])
    assert (made["agreement"], made["undetected"]) == (True, 0)
    assert 3 in [failure["node"] for failure in made["failures"]]
    assert all(made["parameter_digest"][str(peer)] for peer in (0, 1, 2, 4, 5))


def test_time_runs_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [*LAUNCH, *ENDLESS, "--timeout", "1ms"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 5
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["outcome"] == "timeout"
    assert done.stderr == ""


def test_a_full_disk_ends_the_run_in_order(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writes fail in the same places."""
    limited = ["import resource", "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))", LAUNCH[2]]
    command = [sys.executable, "-c", "; ".join(limited), *ENDLESS]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert made["outcome"] == "failed"
    assert "cannot write" in made["problem"]
    for name in ("events.jsonl", "metrics.jsonl"):
        for line in (tmp_path / "run" / name).read_text().splitlines():
            json.loads(line)


def test_a_run_keeps_no_more_than_the_disk_is_asked_for(tmp_path: Path) -> None:
    asked = Experiment(task="quadratic:dimension=200000", device="cpu", peers=3, steps=20, undo=12, timeout=100,
                       run_dir=str(tmp_path / "run"))  # fmt: skip
    made = run(asked)
    assert made.summary.outcome == "finished"
    taken = sum(path.stat().st_size for path in made.run_dir.rglob("*") if path.is_file())
    estimate = plan.bytes_on_disk(plan.make(asked)) - plan.SPARE_BYTES
    assert 0.8 * estimate < taken < estimate


@pytest.mark.parametrize("quiet", [True, False])
def test_a_script_needs_no_main_guard(quiet: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from btard import Experiment, run\n"
        "asked = Experiment(task='quadratic', device='cpu', steps=2, run_dir='run', timeout=100)\n"
        f"result = run(asked, quiet={quiet})\n"
        "print(result.summary.outcome)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("once\nfinished\n", 0)
    shown = done.stderr.splitlines()
    assert not shown if quiet else shown[0].startswith("6 peers, quadratic, 2 steps") and "step 2/2" in shown[-1]


def test_the_same_seeds_give_the_same_parameters_with_the_protocols_own(tmp_path: Path) -> None:
    """Without it keys and coins come from the system: the mini-batches that the coins draw differ from run to run."""

    def ends(name: str, **seeds: int) -> set[str]:
        where = str(tmp_path / name)
        made = run(Experiment(task="quadratic", device="cpu", peers=3, steps=3, run_dir=where, timeout=100, **seeds))
        assert made.summary.keys == ("protocol-seed" if "protocol_seed" in seeds else "system")
        return set(made.summary.parameter_digest.values())

    assert ends("a", protocol_seed=7) == ends("b", protocol_seed=7) != ends("c", protocol_seed=7, seed=1)
    assert ends("d") != ends("e")


@pytest.mark.mnist
def test_real_mnist(mnist_directory: Path, tmp_path: Path) -> None:
    made = run(Experiment(steps=4, eval_every=2, batch_size=32, device="cpu", data_dir=str(mnist_directory),
                          run_dir=str(tmp_path / "run"), timeout=100)).summary  # fmt: skip
    assert (made.outcome, made.agreement, made.honest_banned) == ("finished", True, 0)
    assert made.final_test_accuracy == made.accuracy[-1][1]
    assert made.bytes_expected is not None
    assert made.bytes_expected <= made.bytes_sent.bulk <= 1.05 * made.bytes_expected


def logs(run_dir: Path) -> str:
    return "".join(path.read_text() for path in sorted((run_dir / "logs").iterdir()))
