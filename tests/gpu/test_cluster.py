"""Six real processes on one card: what the CPU's tests show, with gradients from the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard import Experiment, run
from btard.launcher.backends.local import call_aside
from btard.node.storage.journal import read
from btard.node.verify.audit import check_run
from tests.integration.test_same_bits import TIMEOUT_S, assert_same_bits, told_by_sockets
from tests.launching import command, launched, read_until, session
from tests.scraping import scrape

pytestmark = pytest.mark.gpu
LIE = ("--attack", "sign_flip", "--byzantine", "2", "--attack-start", "0", "--seed", "1",
       "--protocol-seed", "2")  # fmt: skip


@pytest.mark.parametrize(
    "attack", ["noise", "label_shuffle", "sign_flip", "label_flip", "constant_direction", "backdoor"]
)
def test_processes_and_simulator_end_every_step_in_the_same_bits(
    attack: str, mnist_directory: Path, tmp_path: Path
) -> None:
    result = run(Experiment(
        task="mnist_cnn", batch_size=64, steps=8, eval_every=8, device="cuda", data_dir=str(mnist_directory),
        attack=attack, byzantine=2, attack_start=0, seed=1, protocol_seed=2, timeout=TIMEOUT_S,
        run_dir=str(tmp_path / "run"),
    ))  # fmt: skip
    assert_same_bits(result, mnist_directory, {"gradient"})


def test_a_transformer(tmp_path: Path) -> None:
    result = run(Experiment(
        task="transformer_lm", batch_size=16, steps=8, eval_every=8, device="cuda", attack="sign_flip", byzantine=2,
        attack_start=0, seed=1, protocol_seed=2, timeout=TIMEOUT_S,
        run_dir=str(tmp_path / "run"),
    ))  # fmt: skip
    assert_same_bits(result, tmp_path, {"gradient"})


def test_where_there_is_no_gpu_a_run_on_one_is_verified_as_far_as_signatures_go(
    mnist_directory: Path, tmp_path: Path
) -> None:
    made = command(tmp_path, "--device", "cuda", "--steps", "8", *LIE, "--run-dir", "run")
    assert made.returncode == 0, made.stdout + made.stderr
    assert {finding.kind for finding in call_aside(check_run, tmp_path / "run")} >= {"recomputation", "certificate"}
    done = command(tmp_path, "verify", "run", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recomputation cannot decide here: this machine's environment differs from the run's" in done.stdout
    assert ", 0 wrong" in done.stdout


def test_a_full_card_is_one_clear_line(tmp_path: Path) -> None:
    """32 MB of scores for each window and block, times a batch of 4,096."""
    options = ("--device", "cuda", "--task", "transformer_lm:context_length=1400", "--batch-size", "4096")
    done = command(tmp_path, *options, "--steps", "3", "--run-dir", "run")
    assert done.returncode == 1
    logs = (tmp_path / "run" / "logs" / "node-0.log").read_text()
    assert "error: --device cuda: CUDA out of memory. Tried to allocate" in logs
    assert "use a smaller --batch-size, fewer --peers or --device cpu" in logs
    assert "Traceback" not in logs


def test_a_killed_run_goes_on_with_the_bits_it_would_have_had(mnist_directory: Path, tmp_path: Path) -> None:
    options = ("--device", "cuda", "--steps", "40", "--eval-every", "10", *LIE)
    whole = command(tmp_path, *options, "--run-dir", "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    with launched(tmp_path, *options, "--run-dir", "cut") as process:
        read_until(process, "step 10/40")
        process.kill()
    done = command(tmp_path, "resume", "cut")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert len(digests(tmp_path / "cut")) == 41


def digests(run_dir: Path) -> dict[int, set[str]]:
    """Digests of the parameters after each step, of all honest nodes; a state's own digest names the run."""
    found: dict[int, set[str]] = {}
    for story in told_by_sockets(run_dir, 4):
        for record in story.committed:
            found.setdefault(record["step"], set()).add(record["parameter_digest"])
    return found


def test_workers_say_what_they_hold_of_the_card(mnist_directory: Path, tmp_path: Path) -> None:
    with launched(tmp_path, "--device", "cuda", "--steps", "100000", "--eval-every", "5", "--run-dir", "run",
                  "--monitor") as process:  # fmt: skip
        read_until(process, "step 5/100000")
        records = read(tmp_path / "run" / "nodes" / "0" / "journal.jsonl")[0]
        address = next(record["address"] for record in records if record["event"] == "metrics")
        values = scrape(address)["btard_gpu_memory_bytes"]
        assert session(process.pid)
    by_type = {dict(labels)["type"]: value for labels, value in values.items()}
    assert by_type["reserved"] >= by_type["allocated"] > 0
