"""Traces keep the rules of the trace event format, and hold what the journals hold."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from btard import Experiment, run
from btard.launcher.cli.main import cli
from btard.launcher.export.perfetto import trace
from btard.launcher.report import run_data
from btard.node.errors import ConfigError


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which a peer is accused and banned, and a peer's accusation is false."""
    where = tmp_path_factory.mktemp("trace") / "run"
    roles = ("4=noise:start=2", "5=false_accuse:start=2")
    run(Experiment(backend="simulated", task="quadratic", device="cpu", steps=40, batch_size=4, role=roles,
                   run_dir=str(where)))  # fmt: skip
    return where


@pytest.fixture(scope="module")
def collected(attacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of an accuser and of two that its accusations reached, without the launcher's: their own clocks count,
    which are set to a second a step here, since those of a simulation are one thread's."""
    where = tmp_path_factory.mktemp("collected")
    shutil.copy(attacked / "genesis.json", where)
    accuser = next(line["accuser"] for line in _journals(attacked) if line.get("accuser") is not None)
    for node in {0, 1, 2, accuser}:
        shutil.copytree(attacked / f"nodes/{node}", where / f"nodes/{node}")
        path = where / f"nodes/{node}/journal.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["time"] = 100.0 + line.get("step", -1) - (line["event"] in ("accused", "banned")) / 1000
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return where


def _journals(run_dir: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in run_dir.glob("nodes/*/journal.jsonl") for line in path.read_text().splitlines()
    ]


def _traced(run_dir: Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, ["export", "--perfetto", str(run_dir)])
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads((run_dir / "trace.json").read_text())["traceEvents"]
    return found


@pytest.mark.parametrize("which", ["attacked", "collected"])
def test_a_trace_keeps_the_rules_of_its_format(which: str, request: pytest.FixtureRequest) -> None:
    events = _traced(request.getfixturevalue(which))
    stacks: dict[tuple[int, int], list[str]] = defaultdict(list)
    flows: dict[int, list[tuple[str, int]]] = defaultdict(list)
    named, before = set(), 0
    for event in events:
        track = (event["pid"], event["tid"])
        assert isinstance(event["ts"], int) and event["ts"] >= 0 and event["name"]
        if event["ph"] == "M":
            named.add(track)
            continue
        assert event["ts"] >= before and track in named, "in order of time, on a track with a name"
        before = event["ts"]
        match event["ph"]:
            case "B":
                stacks[track].append(event["name"])
            case "E":
                assert stacks[track].pop() == event["name"], "what began last ends first"
            case "i":
                assert event["s"] in ("t", "p", "g")
            case "s" | "f":
                assert event["cat"] and (event["ph"] == "s" or event["bp"] == "e")
                assert stacks[track], "a flow begins and ends in a slice"
                flows[event["id"]].append((event["ph"], event["tid"]))
            case other:
                pytest.fail(f"phase {other}")
    assert not any(stacks.values()), "what begins ends"
    assert flows and all([kind for kind, _ in ends] == ["s", "f"] for ends in flows.values())
    assert all(start != stop for (_, start), (_, stop) in flows.values())


@pytest.mark.parametrize("which", ["attacked", "collected"])
def test_a_trace_holds_what_the_journals_hold(which: str, request: pytest.FixtureRequest) -> None:
    where = request.getfixturevalue(which)
    journals, events = _journals(where), _traced(where)
    nodes = {line["node"] for line in journals}
    for kind in ("banned", "accused", "undone"):
        ours = sum(event["ph"] == "i" and event["name"].split()[0] == kind for event in events)
        assert ours == sum(line["event"] == kind for line in journals) > 0
    steps = [line for line in journals if line["event"] == "committed"]
    began = [event for event in events if event["ph"] == "B"]
    assert sum(event["name"].startswith("step ") for event in began) == len(steps)
    assert len(began) == len(steps) + sum(len(line["phases"]) for line in steps)
    told = {(line["accuser"], line["node"]) for line in journals if line["event"] == "accused"}
    flows = {event["id"]: [] for event in events if event["ph"] == "s"}
    for event in events:
        if event["ph"] in "sf":
            flows[event["id"]].append(event["tid"] - 1)
    assert {(a, b) for a, b in flows.values()} == {(a, b) for a, b in told if a is not None and a != b and a in nodes}


def test_slices_last_as_long_as_the_journal_says(attacked: Path) -> None:
    line = next(each for each in _journals(attacked) if each["event"] == "committed" and each["step"] == 3)
    mine = [event for event in _traced(attacked) if event["tid"] == line["node"] + 1]
    names = [event["name"] for event in mine]
    start = names.index("step 3")
    stop = names.index("step 3", start + 1)
    assert mine[stop]["ts"] - mine[start]["ts"] == round(1e6 * line["seconds"])
    for phase, seconds in line["phases"].items():
        begin, end = (event["ts"] for event in mine[start:stop] if event["name"] == phase)
        assert end - begin == round(1e6 * seconds)


def test_what_cannot_be_traced_is_one_line(attacked: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no committed step to trace; see `btard-launch status"):
        trace(replace(run_data.load(attacked), commits={}))
    for words in (["--perfetto", str(tmp_path)], ["--perfetto", "--public", str(attacked)]):
        failed = CliRunner().invoke(cli, ["export", *words])
        assert failed.exit_code != 0 and isinstance(failed.exception, (ConfigError, SystemExit))
        assert len(str(failed.exception).splitlines()) == 1
