"""Proposals out of a list of pods: a hand-made one that the API's schema accepts, and what hostile ones come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest

from btard.launcher.cli import main
from btard.launcher.emit import pods
from btard.node.errors import ConfigError
from btard.node.genesis.genesis import decode_genesis
from tests.ceremony import PEERS, ceremony

TOML = 'peers = 4\ntask = "quadratic"\nsteps = 3\nbatch-size = 4\ndevice = "cpu"\n'
IMAGE = {"image": "btard:cpu", "imageID": "sha256:0", "ready": True, "restartCount": 0}
BEGAN, ENDED = "2026-11-29T10:00:00Z", "2026-11-29T10:00:02Z"


def pod(name: str, message: str) -> dict[str, Any]:
    """A pod whose init container has ended with a message, and whose peer waits."""
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": BEGAN, "finishedAt": ENDED, "message": message}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "btard", "labels": {"app.kubernetes.io/component": "peer"}},
        "spec": {
            "initContainers": [{"name": "identity", "image": "btard:cpu"}],
            "containers": [{"name": "peer", "image": "btard:cpu"}],
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{"name": "identity", **IMAGE, "state": {"terminated": ended}}],
            "containerStatuses": [{"name": "peer", **IMAGE, "state": {"running": {"startedAt": ENDED}}}],
        },
    }


def listed(*, others: int = 1) -> dict[str, Any]:
    """What `kubectl get pods -o json` prints: four peers, and a pod of something else."""
    proposals = [msgspec.json.format(msgspec.json.encode(each)).decode() for each in ceremony().proposals.values()]
    found = [pod(f"peer-{number}", text) for number, text in enumerate(proposals)]
    more = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
        "status": {"phase": "Running"},
    }
    items = [*found, *[more] * others]
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def test_the_hand_made_list_is_one_that_the_schema_accepts() -> None:
    for each in listed()["items"]:
        kubernetes_validate.validate(each, "1.32", strict=True)


def test_all_peers_are_found_by_name_and_other_pods_are_none() -> None:
    found = pods.proposals(json.dumps(listed()).encode(), "pods.json")
    assert list(found) == [f"pods.json: pod btard/peer-{number}" for number in range(PEERS)]
    assert list(found.values()) == list(ceremony().proposals.values())


def test_a_pod_that_was_started_again_has_its_last_message() -> None:
    made = listed()
    status = made["items"][0]["status"]["initContainerStatuses"][0]
    status["lastState"], status["state"] = status["state"], {"waiting": {"reason": "PodInitializing"}}
    assert len(pods.proposals(json.dumps(made).encode(), "pods.json")) == PEERS


def status(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["items"][2]["status"]["initContainerStatuses"][0]
    return found


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    made = listed()
    change(made)
    return json.dumps(made).encode()


def message(text: str) -> Callable[[dict[str, Any]], object]:
    return lambda made: status(made)["state"]["terminated"].update(message=text)


PROPOSAL = listed()["items"][2]["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"]
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "pods.json is no list of pods ("),
    "no JSON": (b"\x00\xff{", "pods.json is no list of pods ("),
    "a list": (b"[]", "pods.json is no list of pods ("),
    "nested without end": (b'{"items":' + b"[" * 100_000, "pods.json is no list of pods ("),
    "an item that is none": (b'{"items":[7]}', "pods.json is no list of pods ("),
    "no items": (b'{"items":[]}', "pods.json has 0 pods and no peer among them: none has an init container 'identity'"),
    "another namespace": (
        changed(lambda made: made.update(items=made["items"][-1:])),
        "pods.json has 1 pods and no peer among them",
    ),
    "not yet": (
        changed(lambda made: made["items"][2]["status"].pop("initContainerStatuses")),
        "pods.json: pod btard/peer-2 has not proposed yet; ask again when its init container has ended",
    ),
    "running": (
        changed(lambda made: status(made).update(state={"running": {"startedAt": BEGAN}})),
        "pods.json: pod btard/peer-2 has not proposed yet",
    ),
    "failed": (
        changed(lambda made: status(made)["state"]["terminated"].update(exitCode=2, message="error:\n\x1b[2Jno disk")),
        "pods.json: pod btard/peer-2 could not propose (exit code 2): error:  [2Jno disk",
    ),
    "failed in silence": (
        changed(
            lambda made: made["items"][2]["status"]["initContainerStatuses"][0].update(
                state={"terminated": {"exitCode": 137}}
            )
        ),
        "pods.json: pod btard/peer-2 could not propose (exit code 137): it left no message",
    ),
    "no message": (changed(message("")), "pods.json: pod btard/peer-2 is no proposal ("),
    "a long message": (changed(message("x" * 4096)), "pods.json: pod btard/peer-2 is no proposal: it has more than"),
    "a changed address": (
        changed(message(PROPOSAL.replace("host2", "evil2"))),
        "pods.json: pod btard/peer-2: its signature is not valid for what it says",
    ),
    "one pod twice": (
        changed(lambda made: made["items"].append(made["items"][2])),
        "pods.json: pod btard/peer-2 is there twice",
    ),
    "a name that is a page": (
        changed(lambda made: (made["items"][2]["metadata"].update(name="\n\x1b[31m" + "n" * 5000), message("")(made))),
        "pods.json: pod btard/[31m" + "n" * 194 + " is no proposal (",
    ),
}


@pytest.mark.parametrize(("data", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_clear_line(data: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pods.proposals(data, "pods.json")
    said = str(refused.value)
    assert said.startswith(problem) and "\n" not in said and said.isprintable() and len(said) < 800


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def test_the_command_makes_the_genesis_of_all_owners_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = listed(others=0)
    for name, items in (("left.json", made["items"][:1]), ("right.json", made["items"][1:])):
        Path(name).write_text(json.dumps({**made, "items": items}))
    Path("run.toml").write_text(TOML)
    words = ("genesis", "--from-pods", "left.json", "--config", "run.toml")
    code, out, err = call(capsys, *words, "--from-pods", "right.json", "--name", "four")
    assert code == 0 and "run four of 4 peers" in err
    genesis = decode_genesis(out.encode(), "printed")
    assert set(genesis.proposals) == set(ceremony().proposals.values()) and genesis.run.steps == 3

    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "") and err.startswith("error: 1 proposals for a run of 4 peers")
    code, out, err = call(capsys, "genesis", "--from-pods", "none.json", "--config", "run.toml")
    assert (code, out, err) == (2, "", "error: none.json does not exist; name a file\n")
