"""`--monitor`: a real Prometheus beside a real run, and what happens where there is none."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from btard import Experiment
from btard.launcher.monitor.prometheus_session import Prometheus
from btard.launcher.monitor.state import Record
from btard.launcher.run.cluster import run
from btard.node.errors import BackendError, ConfigError
from tests.launching import PATIENCE_S, launched, read_until, session
from tests.monitored import Monitored, Notes, program
from tests.scraping import scrape
from tests.unit.launcher.run.test_cluster import await_end

pytestmark = pytest.mark.sockets


def test_prometheus_holds_what_the_summary_says(monitored: Monitored) -> None:
    made = monitored.result.summary
    assert (made.outcome, [ban.peer for ban in made.bans]) == ("finished", [3])
    mine = f'{{run_id="{monitored.run_id}"}}'
    assert list(monitored.last(f"btard_final_accuracy_ratio{mine}").values()) == [made.final_test_accuracy]
    assert list(monitored.last(f"btard_run_accuracy_ratio{mine}").values()) == [made.accuracy[-1][1]]
    banned = monitored.last(f"max by (peer) (btard_peer_state{mine}) == 3")
    assert {dict(labels)["peer"] for labels in banned} == {str(ban.peer) for ban in made.bans}
    steps = monitored.last(f"max by (peer) (btard_peer_banned_step{mine})")
    assert steps == {(("peer", "3"),): made.bans[0].step}
    assert monitored.last(f"max by (node) (btard_step{mine})")[(("node", "0"),)] == 120, "the last scrape is the end"
    sent = f'btard_sent_bytes_total{{run_id="{monitored.run_id}",kind=~"part|aggregate"}}'
    bulk = monitored.last(f"sum(last_over_time({sent}[5m]))")  # nodes end one after the other
    assert list(bulk.values()) == [made.bytes_sent.bulk]
    assert list(monitored.last(f"btard_expected_bytes{mine}").values()) == [made.bytes_expected]


def test_rules_were_evaluated_and_only_expected_alerts_fired(monitored: Monitored) -> None:
    recall = monitored.last(f'run_id:btard_detection_recall:ratio{{run_id="{monitored.run_id}"}}')
    assert list(recall.values()) == [1.0]
    fired = {dict(labels)["alertname"] for labels in monitored.last('ALERTS{alertstate="firing"}')}
    assert fired <= {"VerificationFailures", "ChecksumMismatches"}, "what an attack is expected to show"
    assert "VerificationFailures" in fired


def test_people_are_told_where_and_nothing_is_left(monitored: Monitored) -> None:
    url, again = (line for line in monitored.notes if line.startswith("metrics: "))
    assert url.startswith("metrics: http://127.0.0.1:")
    assert f"--storage.tsdb.path={monitored.result.run_dir}/monitoring/data" in again
    targets = json.loads((monitored.result.run_dir / "monitoring" / "targets" / "run.json").read_text())
    assert {each["labels"]["run_id"] for each in targets} == {monitored.run_id}
    assert sorted(each["labels"]["node"] for each in targets) == ["0", "1", "2", "3", "launcher"]
    assert (monitored.result.run_dir / "monitoring" / "prometheus.log").read_text().count("level=error") == 0


class OwnScraper(Notes):
    """An observer that scrapes each node at its end, as the user's own Prometheus would."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: dict[int, str] = {}

    def saw(self, records: Sequence[Record]) -> None:
        for record in records:
            if record["event"] == "metrics":
                self.addresses[record["node"]] = record["address"]
            elif record["event"] == "finished":
                scrape(self.addresses[record["node"]])


def test_without_prometheus_one_warning_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    notes = OwnScraper()
    made = run(Experiment(task="quadratic", device="cpu", peers=2, steps=2, monitor=True, timeout=100,
                          run_dir=str(tmp_path / "run")), notes).summary  # fmt: skip
    assert made.outcome == "finished"
    (warning,) = (line for line in notes.lines if line.startswith("warning"))
    assert "prometheus is not installed" in warning
    assert str(tmp_path / "run" / "monitoring" / "targets" / "run.json") in warning


def test_a_prometheus_that_ends_at_once_is_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "prometheus"
    broken.write_text("#!/bin/sh\necho 'unknown long flag' >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monitor = Prometheus(tmp_path / "monitoring", "run")
    monitor.start()
    while monitor.running:
        os.sched_yield()
    assert monitor.problem == "prometheus ended with exit code 7: unknown long flag"
    assert monitor.problem is None, "told once"
    monitor.stop()


def test_a_port_that_somebody_takes_meanwhile_is_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unlucky = tmp_path / "prometheus"
    unlucky.write_text(f"""#!/bin/sh
[ -e {tmp_path}/again ] && exit 7
touch {tmp_path}/again
echo 'listen tcp 127.0.0.1:9090: bind: address already in use' >&2
exit 1
""")
    unlucky.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monitor = Prometheus(tmp_path / "monitoring", "run")
    monitor.start()
    while monitor.running:
        os.sched_yield()
    assert monitor.taken
    monitor.start()
    while monitor.running:
        os.sched_yield()
    assert not monitor.taken
    assert monitor.problem == "prometheus ended with exit code 7: it left no word"
    monitor.stop()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=lambda value: str(value))
def test_prometheus_does_not_outlive_the_launcher(signum: int, tmp_path: Path) -> None:
    program("prometheus")
    arguments = ("--task", "quadratic", "--device", "cpu", "-n", "2", "--steps", "1000000", "--eval-every", "100000",
                 "--run-dir", "run", "--monitor")  # fmt: skip
    with launched(tmp_path, *arguments) as process:
        read_until(process, "workers ready")
        left = [pid for pid in session(process.pid) if pid != process.pid]
        names = [(Path("/proc") / str(pid) / "comm").read_text().strip() for pid in left]
        assert "prometheus" in names
        if signum == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, signum)
            process.communicate(timeout=PATIENCE_S)
        await_end(left)


def test_a_simulated_run_has_nothing_to_watch() -> None:
    with pytest.raises(ConfigError, match="--backend simulated has none"):
        run(Experiment(task="quadratic", backend="simulated", monitor=True))


def test_targets_are_written_in_one_piece(tmp_path: Path) -> None:
    monitor = Prometheus(tmp_path / "monitoring", "run")
    assert json.loads(monitor.targets_file.read_text()) == []
    monitor.aim({"0": "127.0.0.1:1"})
    assert json.loads(monitor.targets_file.read_text()) == [
        {"targets": ["127.0.0.1:1"], "labels": {"run_id": "run", "node": "0"}}
    ]
    with pytest.raises(BackendError, match="use another --run-dir"):
        Prometheus(tmp_path / "monitoring", "run")


def test_no_value_yet_is_not_zero(monitored: Monitored) -> None:
    first = [float(value) for each in monitored.ask(f'btard_run_accuracy_ratio{{run_id="{monitored.run_id}"}}')
             for _, value in each["values"]]  # fmt: skip
    assert all(math.isnan(value) or value > 0 for value in first)
