"""The emitters: what they write is kept and valid by the engines' own schemas, hardened, and never written over."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from btard.launcher.cli import main
from btard.launcher.containers import places
from btard.launcher.emit.emitters import EMITTERS, Emission, kubernetes
from btard.node.errors import BackendError, ConfigError
from tests.manifests import PEERS, ROOT, kept
from tests.monitored import promtool

KUBERNETES = ("1.28", "1.32", "1.37")
"""Versions of its API by whose schemas manifests are checked."""
OWN = {"JobSet", "PodMonitor", "PrometheusRule"}
"""Kinds that a cluster has by an extension, and that have no schema there."""

RETURNING = {"undo": "off"}
"""What a run asks for whose peers may come back after they were away."""
FOLDERS = (".", "monitoring", "overlays/owner", "overlays/gpu", "overlays/gpu-shared", "overlays/gpu-mig")


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each is not None]


def of_kind(text: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in documents(text) if each["kind"] == kind]


def pod_specs(text: str) -> Iterator[dict[str, Any]]:
    """The pods of stateful sets and of JobSets."""
    for each in of_kind(text, "StatefulSet"):
        yield each["spec"]["template"]["spec"]
    for each in of_kind(text, "JobSet"):
        yield from (job["template"]["spec"]["template"]["spec"] for job in each["spec"]["replicatedJobs"])


def check(document: dict[str, Any], version: str) -> None:
    """By the API's schema; of a JobSet its jobs."""
    if document["kind"] == "JobSet":
        for job in document["spec"]["replicatedJobs"]:
            head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}}
            kubernetes_validate.validate({**head, **job["template"]}, version, strict=True)
    elif document["kind"] not in OWN | {"Kustomization"}:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("path", "text"), list(kept()), ids=lambda each: str(each)[-60:] if isinstance(each, Path) else ""
)
def test_what_is_kept_is_what_the_emitters_write(path: Path, text: str) -> None:
    assert path.read_text() == text, "run `make manifests`"


def test_nothing_else_lies_among_the_emitted_files() -> None:
    wanted = {path for path, _ in kept()}
    found = [path for name in ("kubernetes", "slurm") for path in (ROOT / "deploy" / name).rglob("*") if path.is_file()]
    assert set(found) <= wanted and len(found) > 15


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("engine", ["kubernetes", "jobset"])
def test_manifests_are_strictly_valid(engine: str, version: str) -> None:
    made = EMITTERS[engine](12)
    for text in (made.text, *(text for name, text in made.files.items() if name.endswith(".yaml"))):
        for document in documents(text):
            check(document, version)


@pytest.mark.parametrize("engine", ["kubernetes", "jobset"])
def test_a_field_that_kubernetes_does_not_know_is_found(engine: str) -> None:
    for document in documents(EMITTERS[engine](PEERS).text):
        specs = list(pod_specs(yaml.safe_dump(document)))
        if specs:
            changed = yaml.safe_dump(document).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
            with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
                check(yaml.safe_load(changed), KUBERNETES[0])
            return
    raise AssertionError("no pods")


@pytest.mark.parametrize("engine", ["kubernetes", "jobset"])
def test_pods_are_restricted(engine: str) -> None:
    """What the profile `restricted` of the Pod Security Standards asks for, and no token of a service account."""
    text = EMITTERS[engine](PEERS).text
    (namespace,) = of_kind(text, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (account,) = of_kind(text, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    specs = list(pod_specs(text))
    assert len(specs) == (1 if engine == "kubernetes" else PEERS)
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False and spec["serviceAccountName"] == "peer"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(
            len(volume) == 2 and {"configMap", "emptyDir", "persistentVolumeClaim"} & set(volume)
            for volume in spec["volumes"]
        )
        for container in (*spec["initContainers"], *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", ()))
            assert {"requests", "limits"} <= set(container["resources"])


@pytest.mark.parametrize("peers", [2, 12])
def test_each_pod_has_a_name_and_a_claim_of_its_own(peers: int) -> None:
    text = EMITTERS["kubernetes"](peers).text
    (peer,) = of_kind(text, "StatefulSet")
    (mesh,) = of_kind(text, "Service")
    assert (peer["spec"]["replicas"], peer["spec"]["podManagementPolicy"]) == (peers, "Parallel")
    assert [claim["metadata"]["name"] for claim in peer["spec"]["volumeClaimTemplates"]] == ["own"]
    assert peer["spec"]["serviceName"] == mesh["metadata"]["name"] and mesh["spec"]["clusterIP"] == "None"
    assert mesh["spec"]["publishNotReadyAddresses"] is True
    labels = peer["spec"]["template"]["metadata"]["labels"]
    for selector in (
        peer["spec"]["selector"]["matchLabels"],
        mesh["spec"]["selector"],
        of_kind(text, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
        of_kind(text, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"],
        peer["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        documents(kubernetes(peers).files["monitoring/podmonitor.yaml"])[0]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items() and selector
    assert tomllib.loads(of_kind(text, "ConfigMap")[0]["data"]["run.toml"]) == {"peers": peers, **RETURNING}


def test_the_network_policy_lets_peers_meet_and_nothing_else() -> None:
    (policy,) = of_kind(EMITTERS["kubernetes"](PEERS).text, "NetworkPolicy")
    ports = [places.CONTROL_PORT]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    peers, metrics = policy["spec"]["ingress"]
    assert [port["port"] for port in peers["ports"]] == ports
    assert all({"namespaceSelector", "podSelector"} <= set(who) for who in peers["from"])
    assert [port["port"] for port in metrics["ports"]] == [places.METRICS_PORT]
    out, names = policy["spec"]["egress"]
    assert [port["port"] for port in out["ports"]] == ports and {port["port"] for port in names["ports"]} == {53}


@pytest.mark.parametrize("peers", [2, 12])
def test_a_jobset_has_a_job_and_a_claim_for_each_peer(peers: int) -> None:
    text = EMITTERS["jobset"](peers).text
    (made,) = of_kind(text, "JobSet")
    jobs = made["spec"]["replicatedJobs"]
    assert [job["name"] for job in jobs] == [f"peer-{number}" for number in range(peers)]
    assert all(job["replicas"] == job["template"]["spec"]["completions"] == 1 for job in jobs)
    assert [rule["action"] for rule in made["spec"]["failurePolicy"]["rules"]] == ["RestartJob"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", made["spec"]["failurePolicy"]["rules"][0]["name"])
    mounted = [
        volume["persistentVolumeClaim"]["claimName"]
        for spec in pod_specs(text)
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    claims = [claim["metadata"]["name"] for claim in of_kind(text, "PersistentVolumeClaim")]
    assert mounted == claims and len(set(claims)) == peers
    addresses = [spec["initContainers"][0]["env"][-1]["value"] for spec in pod_specs(text)]
    subdomain = made["spec"]["network"]["subdomain"]
    assert [address.split(".")[0] for address in addresses] == [f"tcp://btard-peer-{k}-0-0" for k in range(peers)]
    assert all(f".{subdomain}.$(POD_NAMESPACE).svc:" in address for address in addresses)


@pytest.mark.parametrize("peers", [2, 12])
def test_peers_that_share_a_gpu_keep_to_their_parts_of_its_memory(peers: int) -> None:
    files, taken = kubernetes(peers).files, {}
    for name in ("gpu", "gpu-shared", "gpu-mig"):
        (target,) = documents(files[f"overlays/{name}/kustomization.yaml"])[0]["patches"]
        operations = {each["path"].rpartition("/")[2]: each["value"] for each in yaml.safe_load(target["patch"])}
        taken[name] = [float(each["value"]) for each in operations.get("env", []) if each["name"] == "BTARD_GPU_SHARE"]
    assert (taken["gpu"], taken["gpu-mig"]) == ([], []), "what such a pod sees is its own"
    (share,) = taken["gpu-shared"]
    assert 0.5 < share * peers < 1


@pytest.mark.parametrize("peers", [2, 12])
def test_a_swarm_stack_keeps_each_peer_where_its_volume_is(peers: int) -> None:
    stack = yaml.safe_load(EMITTERS["swarm"](peers).text)
    assert list(stack["services"]) == [f"peer-{number}" for number in range(peers)]
    for number, service in enumerate(stack["services"].values()):
        own, scratch = service["volumes"]
        assert own == f"own-{number}:{places.OWN_RUN}" and f"own-{number}" in stack["volumes"]
        assert scratch == {"type": "tmpfs", "target": "/tmp"} and "tmpfs" not in service, "a stack has no other kind"
        assert service["healthcheck"] == {"disable": True}, "peers find no name of a task that is not healthy"
        assert service["deploy"]["placement"]["constraints"][0].startswith(f"node.hostname == ${{NODE_{number}:?")
        assert service["deploy"]["endpoint_mode"] == "dnsrr"
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        script = service["command"][-1]
        assert "$$ADDRESS" in script and not re.search(r"(?<!\$)\$(?!\$)", script), "else Docker would put it in"


@pytest.mark.parametrize(
    ("text", "form", "peers"),
    [
        ((ROOT / "docs/hosts.md").read_text(), r"^    (.*> run\.toml)$", 6),
        ((ROOT / "docs/slurm.md").read_text(), r"^    (.*> run\.toml)$", 6),
        (EMITTERS["swarm"](12).text, r"^#   (.*> run\.toml) &&", 12),
    ],
    ids=["hosts", "slurm", "swarm"],
)
def test_the_run_that_a_guide_writes_lets_peers_come_back(text: str, form: str, peers: int, tmp_path: Path) -> None:
    (command,) = re.findall(form, text, re.MULTILINE)
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, check=True)
    assert tomllib.loads((tmp_path / "run.toml").read_text()) == {"peers": peers, **RETURNING}


@pytest.mark.parametrize("peers", [2, 12])
def test_a_batch_script_asks_for_a_node_for_each_peer(peers: int, tmp_path: Path) -> None:
    text = EMITTERS["slurm"](peers).text
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"]) == (str(peers), "1") and {"requeue", "no-kill"} <= set(asked)
    (tmp_path / "script").write_text(text)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)


def test_a_batch_scripts_peer_uses_no_directory_that_is_not_its_own(tmp_path: Path) -> None:
    """Anybody may write to /var/tmp, and guess a job's number."""
    text = EMITTERS["slurm"](2).text
    begin = text.index("peer() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "btard-7").symlink_to(tmp_path / "elsewhere")
    given = {
        "PATH": os.environ["PATH"],
        "DISK": str(tmp_path),
        "MEETING": str(tmp_path),
        "RUN": "run.toml",
        "PORT": "1",
    }
    done = subprocess.run(
        ["bash", "-euc", f"{function}\npeer 0"],
        env={**given, "NODES": "h0", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "h0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and not list((tmp_path / "elsewhere").iterdir())
    assert done.stderr == (
        f"{tmp_path}/btard-7 on h0 is somebody else's: set BTARD_DISK to a directory of your own on each node\n"
    )


def test_rules_are_those_of_prometheus(tmp_path: Path) -> None:
    made = documents(kubernetes(PEERS).files["monitoring/rules.yaml"])
    for each, name in zip(made, ("alerts", "recording"), strict=True):
        source = yaml.safe_load((ROOT / f"deploy/prometheus/rules/{name}.yml").read_text())
        assert each["spec"] == source and each["metadata"]["name"] == f"btard-{name}"
        (tmp_path / name).write_text(yaml.safe_dump(each["spec"]))
        code, said = promtool("check", "rules", tmp_path / name)
        assert code == 0, said


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_builds_what_lies_in_deploy(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("NOT RUN: kubectl kustomize; there is no kubectl here")
    done = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy" / "kubernetes" / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = documents(done.stdout)
    for document in made:
        check(document, KUBERNETES[-1])
    if folder == "monitoring":
        (dashboards,) = of_kind(done.stdout, "ConfigMap")
        assert dashboards["metadata"]["labels"] == {"grafana_dashboard": "1"}
        found = {path.name: path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
        assert dashboards["data"] == found and sum(map(len, found.values())) < 1 << 20
        return
    (peer,), (run,) = of_kind(done.stdout, "StatefulSet"), of_kind(done.stdout, "ConfigMap")
    limits = peer["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    image = peer["spec"]["template"]["spec"]["containers"][0]["image"]
    if folder.startswith("overlays/gpu"):
        assert image == "btard:cuda" and sum(value for name, value in limits.items() if "nvidia.com/" in name) == 1
        assert tomllib.loads(run["data"]["run.toml"]) == {"peers": 6, **RETURNING, "device": "cuda"}
    elif folder == "overlays/owner":
        assert peer["spec"]["replicas"] == 2 and image == "btard:cpu"
        (namespace,) = of_kind(done.stdout, "Namespace")
        assert {each["metadata"].get("namespace") for each in made} == {None, "btard-left"}
        assert namespace["metadata"]["name"] == "btard-left" and namespace["metadata"]["labels"]["btard-run"] == "btard"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def test_for_hosts_there_are_both_ways_to_keep_a_peer_running_and_the_runs_options() -> None:
    files = EMITTERS["hosts"](7).files
    assert tomllib.loads(files["run.toml"]) == {"peers": 7, **RETURNING}
    kept_at = ROOT / "deploy" / "hosts"
    assert {name: files[name] for name in files if name != "run.toml"} == {
        path.name: path.read_text() for path in kept_at.iterdir()
    }
    assert {"btard-peer@.service", "compose.yaml"} <= set(files)


@pytest.mark.parametrize("engine", EMITTERS)
def test_a_plan_is_printed_or_written(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "plan", "-n", 4, "--emit", engine)
    assert (code, out) == (0, EMITTERS[engine](4).text)
    code, out, _ = call(capsys, "plan", "-n", 4, "--emit", engine, "--out", tmp_path / "made")
    files = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert code == 0 and sorted(out.splitlines()) == sorted(f"written: {path}" for path in files)
    made = EMITTERS[engine](4)
    wanted = made.files or {made.name: made.text}
    assert {str(path.relative_to(tmp_path / "made")): path.read_text() for path in files} == wanted
    assert call(capsys, "plan", "-n", 4, "--emit", engine, "--out", tmp_path / "made") == (0, "", "")


def test_a_file_of_somebody_elses_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "base" / "peers.yaml"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    words = ("plan", "--emit", "kubernetes", "--out", tmp_path)
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert err == (f"error: {mine} is there with another content (and 0 more); use another --out, or --overwrite\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine] and mine.read_text() == "mine\n"
    assert call(capsys, *words, "--overwrite")[0] == 0
    assert mine.read_text() == kubernetes(6).files["base/peers.yaml"]


def test_a_link_counts_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "name").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is there with another content"):
        Emission("text", "name").write(tmp_path, overwrite=False)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="use another --out"):
        Emission("text", "name").write(tmp_path / "file" / "below", overwrite=False)
    code, out, err = call(capsys, "plan", "--out", tmp_path)
    assert (code, out) == (2, "") and err.startswith("error: --out and --overwrite are for what --emit writes")
    code, _, err = call(capsys, "plan", "--emit", "nomad")
    assert code == 2 and "'kubernetes'" in err and err.count("\n") == 1
