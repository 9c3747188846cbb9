"""The benchmark: real processes, counts gated, timings only printed."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner

from btard.launcher.bench import command, measure, training
from btard.launcher.bench.kinds import KINDS, REST, THREADS
from btard.launcher.bench.measure import Figures
from btard.launcher.bench.worker import GLOO, MEAN, PROTOCOL, UPDATED, Found, Phases, Sample
from btard.launcher.cli.main import cli

PEERS, SIZE, PAIRS = 4, 40_000, 2


@pytest.fixture(scope="module")
def small() -> Figures:
    """One small benchmark with real sockets."""
    found = measure.measure(PEERS, SIZE, PAIRS)
    print("\n".join(command.figure_lines(found)))
    return found


@pytest.mark.sockets
def test_a_small_run_moves_what_the_formula_says_and_not_a_byte_more(small: Figures) -> None:
    formula = small.bulk_bytes + small.control_bytes
    # Headers are below a thousandth; messages do not grow with the vector.
    assert 1.0 <= small.bulk_bytes / (formula / small.bytes_ratio) < 1.01
    assert small.control_bytes < 32_000


@pytest.mark.sockets
def test_bf16_halves_the_bytes_of_every_tensor_exactly(small: Figures) -> None:
    """What is left of the tensors without their headers, of all that is sent, is half; headers are as long."""
    narrow = measure.measure(PEERS, SIZE, PAIRS, wire="bf16")
    assert (small.wire, narrow.wire) == ("float32", "bf16")
    formula = (small.bulk_bytes + small.control_bytes) / small.bytes_ratio
    assert (narrow.bulk_bytes + narrow.control_bytes) / narrow.bytes_ratio == pytest.approx(formula / 2)
    assert narrow.bulk_bytes - formula / 2 == pytest.approx(small.bulk_bytes - formula)
    assert "40000 floats as bf16" in next(iter(command.figure_lines(narrow)))


@pytest.mark.sockets
def test_each_peer_says_one_thing_to_each_other_in_each_phase(small: Figures) -> None:
    assert list(small.phases) == ["COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE"]
    assert small.messages == len(small.phases) * (PEERS - 1)


@pytest.mark.sockets
def test_what_a_worker_keeps_is_counted(small: Figures) -> None:
    """The aggregates of a step, and messages; one wait before what is said in each phase, one write more for what ends
    the attempt, for the next one, and for the journal."""
    assert 1.0 < small.written_floats < 1.5
    assert len(small.phases) - 1 < small.syncs <= len(small.phases), "phases that end in one turn share a wait"
    assert len(small.phases) < small.write_calls <= 10
    bare = measure.measure(PEERS, SIZE, 1, bare=True)
    assert bare.bare and bare.written_floats < 0.01 and bare.syncs == bare.write_calls == 0


@pytest.mark.sockets
def test_centered_clip_converges_in_few_iterations(small: Figures) -> None:
    assert 1 <= small.iterations <= 10


@pytest.mark.sockets
def test_all_kinds_of_work_are_seen(small: Figures) -> None:
    assert set(small.kinds) == {kind for kind, _, _ in KINDS} | {REST, THREADS}
    assert all(small.kinds[kind] > 0 for kind, _, _ in KINDS)


def test_ratios_are_taken_within_a_pair() -> None:
    def sample(cpu_s: float, began_s: float, ended_s: float) -> Sample:
        return Sample(cpu_s, began_s, ended_s)

    def found(scale: float) -> Found:
        samples = {
            PROTOCOL: [sample(4 * scale, 0, 8), sample(9 * scale, 10, 16)],
            GLOO: [sample(2 * scale, 0, 2), sample(3 * scale, 0, 3)],
            UPDATED: [sample(4 * scale, 0, 2), sample(3 * scale, 0, 3)],
            MEAN: [sample(1 * scale, 0, 1), sample(6 * scale, 0, 6)],
        }
        phases = Phases({"COMMIT": scale}, {"COMMIT": 2 * scale})
        sent = {"part": 400, "aggregate": 400, "control": 0}
        counted = {"faults": 6, "writes": (8, 1600), "syncs": 2}
        return Found(samples, phases, {REST: 6 * scale}, sent, {"control": 12}, [(0, 1), (0, 1)], [3, 5], **counted)

    made = measure.figures(2, 100, 2, False, [found(1.0), found(3.0)])
    assert (made.cpu_ratio, made.spread["cpu_ratio"].low, made.spread["cpu_ratio"].high) == (2.5, 2.0, 3.0)
    assert made.wall_ratio == pytest.approx(3.0)
    assert made.mean_cpu_ratio == pytest.approx(1.25)
    assert made.updated_cpu_ratio == pytest.approx(2.0)
    assert (made.page_faults, made.write_calls, made.written_floats, made.syncs) == (3.0, 4.0, 2.0, 1.0)
    assert made.cpu_ms[GLOO].median == pytest.approx(1000 * 2.5 * 4 / 2)
    # Two steps of 4 (100 - 50 + 100 - 50 + 100) bytes.
    assert made.bytes_ratio == pytest.approx(1600 / (2 * 4 * 200))
    assert (made.phases["COMMIT"].cpu_ms, made.phases["COMMIT"].wall_ms) == (1000.0, 2000.0)
    assert made.kinds == {REST: 6000.0}
    assert (made.messages, made.iterations) == (6.0, 4.0)


@pytest.mark.sockets
def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(cli, ["bench", "--peers", "2", "--size", "1e3", "--pairs", "1", "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.output)
    assert {"cpu_ratio", "wall_ratio", "updated_cpu_ratio", "mean_cpu_ratio", "bytes_ratio", "phases"} <= made.keys()
    assert made["size"] == 1000


@pytest.mark.sockets
def test_the_protocols_share_of_a_task_is_told_from_the_journals_of_a_run() -> None:
    result = CliRunner().invoke(cli, ["bench", "--task", "quadratic", "--peers", "2", "--steps", "3", "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.output)
    assert (made["task"], made["peers"], made["steps"]) == ("quadratic", 2, 3)
    assert made["protocol_share"] == pytest.approx(made["protocol_cpu_ms"] / made["gradient_cpu_ms"])
    assert min(made["protocol_cpu_ms"], made["step_ms"], made["ready_s"], made["torch_import_s"]) > 0
    told = list(command.share_lines(msgspec.convert(made, training.Share)))
    assert told[0] == "quadratic, 2 peers, 3 honest steps, all peers together:"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0.5"], "--size 0.5 must be a whole number of floats"),
        (["--size", "3"], "--size 3 cannot be split among --peers 6"),
        (["--task", "quadratic", "--scaling"], "measure different things"),
    ],
    ids=["fraction", "too-few", "both"],
)
def test_options_that_cannot_be_run(options: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["bench", *options])
    assert result.exit_code != 0
    assert words in str(result.exception)
