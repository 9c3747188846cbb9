"""A worker's metrics: fed by outputs, and scraped from real workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from node import metrics
from node.config import Plugin, Role, Schedule
from node.errors import ConfigError
from node.metrics import METRICS, Group
from tests.launching import environment
from tests.scraping import Values, scrape, with_labels
from tests.workers import QUADRATIC, WATCHDOG_S, Worker, changed, introduce, roster, workers

LOCAL = "127.0.0.1:0"
ATTACKED = msgspec.structs.replace(QUADRATIC, peers=4, steps=12, eval_every=4)
NODE_GROUPS = (Group.TRAINING, Group.PROTOCOL, Group.NETWORK, Group.INFO)


def last_values(each: Worker) -> Values:
    """Wait for a worker's end, then take the scrape it stays for."""
    end = monotonic() + WATCHDOG_S
    while not each.said("finished") and not each.said("expelled"):
        assert monotonic() < end, each.log
        assert each.process.exitcode is None, each.log
        each.process.join(0.02)
    return scrape(each.said("metrics")[0]["address"])


@pytest.mark.sockets
def test_a_real_attacked_run_has_data_for_every_declared_metric(tmp_path: Path) -> None:
    made = list(roster(tmp_path, ATTACKED))
    made[3] = changed(made[3], role=Role((Plugin("sign_flip"),), Schedule(start=2), (3,)))
    with workers([changed(each, metrics=LOCAL) for each in made]) as started:
        introduce(started)
        seen = [last_values(each) for each in started]
        assert [each.exit_code() for each in started] == [0] * 4, [each.log for each in started]
    wanted = [each for each in METRICS if each.group in NODE_GROUPS and each.waiting is None]
    missing = [name for each in wanted for name in each.series if not any(name in values for values in seen)]
    assert missing == []
    declared = {name for each in METRICS for name in each.series}
    ours = {name for values in seen for name in values if name.startswith(metrics.PREFIX)}
    assert {name for name in ours if not name.endswith("_created")} <= declared
    honest = seen[0]
    assert list(honest["btard_peer_state"].values()) == [1, 1, 1, 3]
    assert sum(honest["btard_bans_total"].values()) == 1
    assert sum(with_labels(honest["btard_accusations_total"], verdict="guilty")) == 1
    assert sum(with_labels(honest["btard_accusations_total"], verdict="cleared")) == 0
    assert honest["btard_step"] == {(): 12}
    assert honest["btard_step_duration_seconds_count"] == {(): 13}
    assert honest["btard_active_peers"] == {(): 3}
    assert honest["btard_samples_total"][()] % ATTACKED.batch_size == 0
    assert "process_cpu_seconds_total" in honest


@pytest.mark.sockets
def test_counters_are_those_of_the_journal(tmp_path: Path) -> None:
    with workers([changed(each, metrics=LOCAL) for each in roster(tmp_path)]) as started:
        introduce(started)
        for each in started:
            values, end = last_values(each), each.said("finished")[0]
            sent = values["btard_sent_bytes_total"]
            bulk = sum(sum(with_labels(sent, kind=kind)) for kind in ("part", "aggregate"))
            assert bulk == end["bulk_bytes"]
            assert sum(sent.values()) >= end["bulk_bytes"] + end["control_bytes"]
            assert {dict(labels)["peer"] for labels in sent} == {
                str(peer) for peer in range(3) if peer != each.config.node
            }


@pytest.mark.sockets
def test_metrics_stay_open_until_scraped_once_more_and_a_stop_ends_that(tmp_path: Path) -> None:
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=2))
    with workers([changed(each, metrics=LOCAL) for each in made]) as (scraped, stopped):
        introduce((scraped, stopped))
        assert last_values(scraped)["btard_step"] == {(): 3}
        assert scraped.exit_code() == 0
        with pytest.raises(OSError, match="refused"):
            scrape(scraped.said("metrics")[0]["address"])
        stopped.pipe.send(("stop",))
        begun = monotonic()
        assert stopped.exit_code() == 0
        assert monotonic() - begun < 10, "well before the 15 s that it would have waited for a scrape"


@pytest.mark.sockets
def test_an_address_in_use_is_one_clear_line(tmp_path: Path) -> None:
    made = roster(tmp_path)
    with workers([changed(made[0], metrics=LOCAL)]) as (first,):
        first.bound()
        taken = first.said("metrics")[0]["address"]
        with workers([changed(made[1], metrics=taken)]) as (second,):
            assert second.exit_code() == 1
            assert f"cannot serve metrics on {taken}: Address already in use" in second.log
            assert second.log.count("\n") == 1


@pytest.mark.parametrize("address", ["9464", "localhost", ":9464", "host:port", "host:65536", "host:-1", "a:٣"])
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        changed(roster(tmp_path)[0], metrics=address)


def test_without_monitoring_nothing_of_it_is_imported() -> None:
    script = "import json, sys, node.worker, launcher.cluster; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "node.monitoring" in loaded
    assert not [name for name in loaded if name.startswith(("prometheus_client", "node.meter", "http.server"))]


def test_declarations_follow_prometheus_conventions() -> None:
    names = [each.name for each in METRICS]
    assert len(names) == len(set(names))
    for each in METRICS:
        assert each.name.endswith("_total") == (each.kind is metrics.Kind.COUNTER), each.name
        assert bool(each.buckets) == (each.kind is metrics.Kind.HISTOGRAM), each.name
        assert list(each.buckets) == sorted(set(each.buckets)), each.name
        assert not {"step", "run_id", "node"} & set(each.labels), each.name


def test_more_than_16_nodes_do_not_tell_their_peers_apart() -> None:
    assert metrics.metric("sent_bytes_total").labels_for(16) == ("peer", "kind")
    assert metrics.metric("sent_bytes_total").labels_for(17) == ("kind",)
    assert metrics.metric("peer_byzantine").labels_for(17) == ("peer", "attack")
