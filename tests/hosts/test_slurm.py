"""A real Slurm of six virtual nodes: a gang start, keys on nodes, a task killed and started again, a job requeued."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from btard.launcher.emit.emitters import slurm as emit
from btard.launcher.verify.verification import verify
from btard.node.genesis.approval import APPROVALS
from btard.node.genesis.identity import GENESIS, SECRETS
from btard.node.storage import journal
from tests.hosts import slurm
from tests.hosts.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]
REQUIRED = "SLURM_REQUIRED"
"""Where this is set, as in CI, missing programs are a failure and not a reason to skip."""
NODES, LOST = 6, "h3"
# A gradient that takes its time, so that the run outlasts what is done to it.
RUN = """peers = 6
task = "slow_quadratic:seconds=0.05"
imports = ["slow.py"]
steps = 100
batch-size = 4
device = "cpu"
undo = "off"
probation = 2
eval-every = 50
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Slurm]:
    if lacking := slurm.missing():
        said = f"no Slurm here: {', '.join(lacking)}; apt-get install slurmctld slurmd slurm-client munge"
        pytest.fail(said) if os.environ.get(REQUIRED) else pytest.skip(said)
    with slurm.running(tmp_path, NODES) as made:
        (made.home / "btard.sbatch").write_text(emit(NODES).text)
        (made.home / "run.toml").write_text(RUN)
        shutil.copy(Path(__file__).parents[1] / "slow_quadratic.py", made.home / "slow.py")
        yield made


def records(cluster: Slurm, job: str, node: str, event: str) -> list[journal.Record]:
    """What a node's peer journalled of one kind."""
    found = list((cluster.disk / f"btard-{job}" / node).glob("nodes/*/journal.jsonl"))
    return [record for path in found for record in journal.read(path)[0] if record["event"] == event]


def test_a_run_by_slurm(cluster: Slurm) -> None:
    cluster.wait(lambda: cluster.call("sinfo", "--noheader", "--format=%D %t").split() == [str(NODES), "idle"])
    busy = cluster.call("sbatch", "--parsable", "--nodelist=h5", "--output=/dev/null", "--wrap=exec sleep 600").strip()
    cluster.wait(lambda: cluster.job(busy, "JobState") == "RUNNING")
    job = cluster.call("sbatch", "--parsable", "btard.sbatch", "run.toml", "--import", "slow.py").strip()

    # All or none: five nodes are free, and none of them has begun.
    cluster.wait(lambda: cluster.job(job, "Reason") == "Resources")
    assert cluster.job(job, "JobState") == "PENDING"
    assert not (cluster.home / f"btard-{job}").exists() and not list(cluster.disk.iterdir())
    cluster.call("scancel", busy)
    own = cluster.disk / f"btard-{job}"
    cluster.wait(lambda: all(len(records(cluster, job, node, "committed")) > 2 for node in cluster.nodes))

    # Each node's keys are its own, on its own disk.
    assert sorted(path.name for path in own.iterdir()) == list(cluster.nodes)
    secret = []
    for node in cluster.nodes:
        assert stat.S_IMODE((own / node / SECRETS).stat().st_mode) == 0o600
        secret += json.loads((own / node / SECRETS).read_text()).values()
    assert len(set(secret)) == 3 * NODES
    shared = [path for path in cluster.home.rglob("*") if path.is_file()]
    assert len([path for path in shared if path.suffix == ".proposal"]) == NODES
    assert not [path for path in shared for value in secret if value.encode() in path.read_bytes()]

    # One task is killed: another step has its keys, on its node, and it is back among the others.
    steps = dict(reversed(line.split()) for line in cluster.call("squeue", "-h", "-s", "-o", "%i %j").splitlines())
    seen = len(records(cluster, job, LOST, "committed"))
    cluster.call("scancel", "--signal=KILL", steps[f"peer-{LOST}"])
    cluster.wait(lambda: len(records(cluster, job, LOST, "bound")) == 2)
    cluster.wait(lambda: len(records(cluster, job, LOST, "committed")) > seen)
    assert f"the peer on {LOST} ended with exit code 137 and is started again" in log(cluster, job)

    # The whole job is requeued, as after a failure of its first node: all go on where they were.
    cluster.call("scontrol", "requeue", job)
    cluster.wait(lambda: cluster.job(job, "JobState") == "PENDING")
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now")
    cluster.wait(lambda: cluster.job(job, "JobState") in ("COMPLETED", "FAILED"))
    assert (cluster.job(job, "JobState"), cluster.job(job, "Restarts")) == ("COMPLETED", "1"), log(cluster, job)
    assert f"{NODES} of {NODES} peers finished" in log(cluster, job)

    ends = [record for node in cluster.nodes for record in records(cluster, job, node, "finished")]
    assert len(ends) == NODES and len({record["parameter_digest"] for record in ends}) == 1
    together = cluster.where / "collected"
    together.mkdir()
    for node in cluster.nodes:
        assert len(records(cluster, job, node, "bound")) == (3 if node == LOST else 2)
        shutil.copytree(own / node / "nodes", together / "nodes", dirs_exist_ok=True)
    for name in (GENESIS, APPROVALS):
        shutil.copy(own / "h0" / name, together)
    # A peer that was away has not what was proven meanwhile, and believes it on the members' signatures.
    for path in (together, *(own / node for node in cluster.nodes)):
        report = verify(path, imports=[cluster.home / "slow.py"])
        assert not report.wrong, report.findings
        assert f"all {NODES} members signed this genesis" in {finding.explanation for finding in report.findings}

    # On a node without the keys of this run none are made anew.
    shutil.rmtree(own / LOST)
    cluster.call("scontrol", "requeue", job)
    cluster.wait(lambda: cluster.job(job, "JobState") == "PENDING")
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now")
    cluster.wait(lambda: cluster.job(job, "JobState") in ("COMPLETED", "FAILED"))
    assert cluster.job(job, "JobState") == "FAILED"
    assert f"{LOST} holds no keys of this run, and it has begun" in log(cluster, job)
    assert f"{NODES - 1} of {NODES} peers finished" in log(cluster, job)
    assert not (own / LOST).exists()


def log(cluster: Slurm, job: str) -> str:
    """What the job wrote."""
    return (cluster.home / f"btard-{job}.log").read_text()
