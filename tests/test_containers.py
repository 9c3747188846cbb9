"""Containers without an engine: the compose file, who may see which part of a run, and how nodes are followed."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from btard.launcher.backends.backend import Exited
from btard.launcher.backends.local import ENVIRONMENT
from btard.launcher.cli import main
from btard.launcher.containers import bundle, emit, engine, mirror, observer, places, roles, versions
from btard.launcher.containers.mirror import Change
from btard.launcher.containers.observer import Volumes
from btard.launcher.run.run_directory import read_record
from btard.node.config import Endpoint, load
from btard.node.crypto.keys import generate
from btard.node.errors import BackendError, ConfigError, WireError
from btard.node.metrics import healthcheck
from btard.node.storage import process_lock
from btard.node.storage.journal import Journal
from tests.ceremony import met
from tests.workers import on_this_machine

ROOT = Path(__file__).parent.parent
SMALL = {"BTARD_PEERS": "4", "BTARD_TASK": "quadratic", "BTARD_STEPS": "5", "BTARD_ATTACK": "noise",
         "BTARD_BYZANTINE": "1", "BTARD_ATTACK_START": "1", "PATH": os.environ["PATH"]}  # fmt: skip
CLEAN = {"BTARD_ATTACK": "", "BTARD_PEERS": "2", "BTARD_TASK": "quadratic", "BTARD_STEPS": "5"}


@pytest.fixture(scope="module")
def made() -> bundle.Bundle:
    return roles.from_environment(SMALL)


def test_the_committed_compose_files_are_what_the_command_writes(capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in (("compose", "compose.yaml"), ("compose-gpu", "deploy/compose.gpu.yaml")):
        with pytest.raises(SystemExit) as ended:
            main.main(["plan", "-n", "6", "--emit", what])
        assert ended.value.code == 0
        assert capsys.readouterr().out == (ROOT / name).read_text(), "run `make compose`"


@pytest.mark.parametrize("peers", [2, 6, 12])
def test_every_service_is_hardened_and_no_page_is_open_to_the_network(peers: int) -> None:
    file = yaml.safe_load(emit.compose(peers))
    assert [name for name in file["services"] if name.startswith("node-")] == emit.nodes(peers)
    for name, service in file["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"] == "10m", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "latest" not in service["image"], name
        assert ":" in service["image"], name


def test_only_the_owner_mounts_a_nodes_secrets_and_no_variable_tells_who_attacks() -> None:
    services = yaml.safe_load(emit.compose(6))["services"]
    for node in range(6):
        holders = {name for name, service in services.items()
                   if any(volume.startswith(f"secrets-{node}:") for volume in service.get("volumes", ()))}  # fmt: skip
        assert holders == {f"node-{node}"}
        assert "environment" not in services[f"node-{node}"]
    truthful = {name for name, service in services.items() if "truth:" in "".join(service.get("volumes", ()))}
    assert truthful == {"roles", "observer"}
    assert services["observer"]["networks"] == ["watch"]


def test_each_node_gets_its_own_configuration_and_role_alone_and_no_key(made: bundle.Bundle, tmp_path: Path) -> None:
    bundle.lay_out(made, tmp_path)
    for node in range(4):
        (path,) = (each for each in places.volume_of(tmp_path, node).rglob("*") if each.is_file())
        config = load(path)
        assert config.node == node and (config.role is not None) == (node == 3)
        assert config.addresses == {str(node): Endpoint(f"tcp://node-{node}:7400", f"tcp://node-{node}:7401")}
        assert (config.members, config.ceremony) == ((), "/btard/ceremony")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"noise" not in path.read_bytes() or node == 3
    assert read_record(places.truth(tmp_path)).roles.keys() == {"3"}
    targets = msgspec.json.decode((places.targets(tmp_path) / "btard.json").read_bytes())
    assert [group["labels"]["node"] for group in targets] == ["0", "1", "2", "3", "launcher"]


def test_each_node_has_one_port_where_that_is_asked_for() -> None:
    for config in roles.from_environment({**SMALL, "BTARD_ONE_PORT": "1"}).configs:
        assert config.listen == Endpoint("tcp://0.0.0.0:7400")
        assert config.addresses == {str(config.node): Endpoint(f"tcp://node-{config.node}:7400")}


def test_keys_come_from_the_system_unless_a_protocol_seed_is_given(made: bundle.Bundle, tmp_path: Path) -> None:
    assert made.record.seeds.protocol is None
    for found in (made, roles.from_environment({**SMALL, "BTARD_SEED": "0"})):
        assert found.given == ()
    seeded = roles.from_environment({**SMALL, "BTARD_PROTOCOL_SEED": "7"})
    members, secrets = generate(7, 4)
    assert seeded.given == secrets
    bundle.lay_out(seeded, tmp_path)
    configs = [msgspec.structs.replace(
        load(places.config_of(tmp_path, node)), secrets_file=str(tmp_path / f"{node}.json"),
        directory=str(places.written_by(tmp_path, node)), ceremony=str(places.ceremony(tmp_path)),
    ) for node in range(4)]  # fmt: skip
    assert met(configs)[0].members == members and not list(tmp_path.rglob("given.json"))


@pytest.mark.parametrize(
    ("settings", "attackers"),
    [
        ({}, {"4": "noise", "5": "noise"}),
        ({"BTARD_PEERS": "12"}, {"10": "noise", "11": "noise"}),
        ({"BTARD_PEERS": "4"}, {"3": "noise"}),
        ({"BTARD_PEERS": "2"}, {}),
        ({"BTARD_ATTACK": ""}, {}),
        ({"BTARD_ATTACK": "", "BTARD_BYZANTINE": "2"}, {}),
        ({"BTARD_ROLE": ""}, {}),
        ({"BTARD_BYZANTINE": "1"}, {"5": "noise"}),
        ({"BTARD_ATTACK": "sign_flip", "BTARD_BYZANTINE": "1", "BTARD_STEPS": ""}, {"5": "sign_flip"}),
        ({"BTARD_ROLE": "2=ipm"}, {"2": "ipm"}),
    ],
    ids=lambda value: " ".join(f"{key}={text}" for key, text in value.items()) or "none",
)
def test_whoever_sets_nothing_sees_an_attack_and_an_empty_one_is_none(
    settings: dict[str, str], attackers: dict[str, str]
) -> None:
    found = roles.from_environment({"BTARD_PEERS": "6", "BTARD_TASK": "quadratic", **settings}).record
    assert {peer: role.attacks[0].name for peer, role in found.roles.items()} == attackers


def test_the_image_is_built_by_one_service_and_pulled_by_none() -> None:
    services = yaml.safe_load(emit.compose(6))["services"]
    ours = {name: service for name, service in services.items() if service["image"].startswith("btard:")}
    assert ours.keys() == services.keys() - {"prometheus", "grafana"}
    assert {name for name, service in ours.items() if "build" in service} == {"roles"}
    policies = {name: service["pull_policy"] for name, service in ours.items()}
    assert policies.pop("roles") == "build" and set(policies.values()) == {"never"}
    # A launcher builds it itself, or finds it: an installed one has nothing to build it from.
    assert all(service.get("pull_policy") != "build" and "build" not in service
               for service in yaml.safe_load(emit.compose(6, built=True))["services"].values())  # fmt: skip


def test_a_launcher_and_an_image_are_compared_by_what_they_compute_with() -> None:
    import torch

    done = subprocess.run([sys.executable, "-m", "btard.launcher.containers.versions"], capture_output=True, cwd=ROOT)
    here = msgspec.json.decode(done.stdout, type=versions.Versions)
    assert here == versions.here() and here.torch == str(torch.__version__)
    assert versions.difference(here, here) == ""
    other = versions.Versions("2.0.0+cpu", here.btard)
    assert versions.difference(here, other) == f"torch {here.torch} here, 2.0.0+cpu there"
    assert versions.difference(here, versions.Versions(here.torch, "")) == "", "run from its source"


def test_one_constant_names_the_images_torch() -> None:
    """CI makes its second environment from it."""
    named = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "TORCH_VERSION=" in line]
    assert len(named) == 1 and named[0].startswith("ARG TORCH_VERSION=")
    version = named[0].partition("=")[2]
    elsewhere = [path for path in (ROOT / "compose.yaml", ROOT / ".ci/run", ROOT / "deploy/requirements.txt")
                 if version in path.read_text()]  # fmt: skip
    assert elsewhere == []


def test_torchvision_comes_from_where_torch_does() -> None:
    """What pip is called with, by the image's own script."""
    text = (ROOT / "Dockerfile").read_text()
    step = next(each for each in text.split("\nRUN ") if each.startswith('case "$TORCHVISION"'))
    script = step.partition("\n\n")[0].replace("\\\n", " ")
    fake = 'pip() { echo "pip $*"; }; find() { :; }; '
    told = {}
    for torch_build, vision in itertools.product(("cpu", "cuda", "tpu"), ("0", "1", "yes")):
        given = {"TORCH": torch_build, "TORCHVISION": vision, "TORCH_VERSION": "2.0", "TORCHVISION_VERSION": "0.1"}
        done = subprocess.run(["sh", "-c", fake + script], env=given, capture_output=True, text=True)
        told[torch_build, vision] = (done.returncode, done.stdout.splitlines(), done.stderr)
    assert told["cuda", "0"][:2] == (0, ["pip install --quiet torch==2.0"])
    assert told["cuda", "1"][:2] == (
        0,
        ["pip install --quiet pillow", "pip install --quiet torch==2.0 torchvision==0.1"],
    )
    assert told["cpu", "1"][1][-1].endswith(
        "--index-url https://download.pytorch.org/whl/cpu torch==2.0 torchvision==0.1"
    )
    assert told["cpu", "yes"] == (2, [], "TORCHVISION=yes is unknown; use 0 or 1\n")
    assert told["tpu", "0"] == (2, [], "TORCH=tpu is unknown; use cpu or cuda\n")


def test_containers_are_not_simulated() -> None:
    """A simulation's keys derive from its public seed."""
    with pytest.raises(ConfigError, match=r"^BTARD_BACKEND=simulated has no containers; leave it out, or"):
        roles.from_environment({**SMALL, "BTARD_BACKEND": "simulated"})


def test_keys_leaves_a_run_alone_whose_nodes_still_work(made: bundle.Bundle, tmp_path: Path) -> None:
    bundle.lay_out(made, tmp_path)
    before = places.config_of(tmp_path, 0).read_bytes()
    with process_lock.held(places.written_by(tmp_path, 2)), pytest.raises(BackendError, match="node 2 still works"):
        bundle.lay_out(roles.from_environment(SMALL), tmp_path)
    assert places.config_of(tmp_path, 0).read_bytes() == before
    bundle.lay_out(roles.from_environment(SMALL), tmp_path)
    assert places.config_of(tmp_path, 0).read_bytes() != before
    assert not places.written_by(tmp_path, 2).exists()


@pytest.mark.parametrize(("arguments", "code"), [(["nonsense"], 2), (["deliver"], 2)])
def test_roles_says_what_is_wrong(arguments: list[str], code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from btard.launcher.containers.roles import main; "
               f"sys.exit(main(sys.argv[1:], __import__('pathlib').Path({str(tmp_path)!r})))", *arguments]  # fmt: skip
    done = subprocess.run(command, input=b"{}", capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == code
    assert done.stderr.decode().startswith("error: ") and done.stderr.count(b"\n") == 1


MOST = mirror.limits(steps=5, dimension=64)


def mirrored(found: mirror.Mirror, copy: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a copy after one look, and what is not copied."""
    changes = list(found.changes())
    for change in changes:
        mirror.apply(copy, change)
    files = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    return files, [change.problem for change in changes if change.problem]


def test_a_mirror_copies_what_grows_and_nothing_else(tmp_path: Path) -> None:
    volume, copy = tmp_path / "there", tmp_path / "here"
    place = volume / "nodes" / "3"
    (place / "evidence").mkdir(parents=True)
    found = mirror.Mirror({3: volume}, MOST, tmp_path)
    (place / "journal.jsonl").write_text('{"a":1}\n{"half')
    (place / "evidence" / "ban-1-0-2.evidence").write_bytes(b"proof")
    (place / "evidence" / "return-4-1.certificate").write_bytes(b"proof of return")
    (place / "evidence" / "other").write_bytes(b"no")
    (place / "secrets.json").write_text("no")
    (tmp_path / "outside").write_text("no")
    (place / "parameters.f32").symlink_to(tmp_path / "outside")
    os.mkfifo(place / "certificate")
    expected = {"nodes/3/journal.jsonl": b'{"a":1}\n', "nodes/3/evidence/ban-1-0-2.evidence": b"proof",
                "nodes/3/evidence/return-4-1.certificate": b"proof of return"}  # fmt: skip
    assert mirrored(found, copy) == (expected, [])
    # A node that starts again takes back what a crash has left of a line.
    (place / "journal.jsonl").write_text('{"a":1}\n{"a":2}\n')
    again = list(found.changes())
    assert again == [Change("nodes/3/journal.jsonl", 8, b'{"a":2}\n')]
    for change in again * 2:
        mirror.apply(copy, change)
    assert (copy / "nodes/3/journal.jsonl").read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_the_stream_of_changes_is_up_at_once_and_ends_with_its_reader(tmp_path: Path) -> None:
    """A launcher waits for it before the first node starts: it must not import what takes seconds."""
    journal = places.volume_of(tmp_path, 1) / "nodes" / "1" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"a":1}\n')
    code = "import sys, pathlib; from btard.launcher.containers import mirror; assert 'torch' not in sys.modules; "
    command = [sys.executable, "-c", code + "mirror.main(2, 5, 64, pathlib.Path(sys.argv[1]))", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [msgspec.json.decode(process.stdout.readline(), type=Change) for _ in range(2)]
        process.stdout.close()
        assert process.wait(30) == 0
    assert told == [Change("nodes/1/journal.jsonl", 0, b'{"a":1}\n'), Change(mirror.SWEEP, 0, b"")]


def sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(size)


def many_files(place: Path) -> None:
    for peer in range(6):
        sparse(place / f"evidence/ban-1-0-{peer}.evidence", MOST.evidence)


GIGABYTE = 1 << 30
HOSTILE_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a sparse journal of 10 GB": (
        lambda place: sparse(place / "journal.jsonl", 10 * GIGABYTE),
        f"nodes/3/journal.jsonl has {10 * GIGABYTE} bytes, more than the {MOST.journal} that it may have; no more of",
    ),
    "sparse evidence of 10 GB": (
        lambda place: sparse(place / "evidence/ban-1-0-2.evidence", 10 * GIGABYTE),
        f"nodes/3/evidence/ban-1-0-2.evidence has {10 * GIGABYTE} bytes, more than the {MOST.evidence} that it may",
    ),
    "parameters of another model": (
        lambda place: sparse(place / "parameters.f32", 4 * 64 + 4),
        "nodes/3/parameters.f32 has 260 bytes, more than the 256 that it may have",
    ),
    "an endless exit code": (
        lambda place: sparse(place / "exit", GIGABYTE),
        f"nodes/3/exit has {GIGABYTE} bytes, more than the 64 that it may have",
    ),
    "evidence that adds up": (
        many_files,
        f"node 3 has written more than {MOST.in_all} bytes; no more of it is copied",
    ),
}


@pytest.mark.parametrize(("fill", "problem"), HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_no_node_fills_the_observers_disk(fill: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    volume, copy = tmp_path / "there", tmp_path / "here"
    fill(volume / "nodes" / "3")
    found = mirror.Mirror({3: volume}, MOST, tmp_path)
    changes = list(found.changes())
    for change in changes:
        mirror.apply(copy, change)
    problems = [change.problem for change in changes if change.problem]
    assert problems and problem in problems[0], problems
    assert all("\n" not in line for line in problems)
    blocks = sum(path.stat().st_blocks * 512 for path in copy.rglob("*"))
    assert blocks < 1 << 20, "holes stay holes"
    assert list(found.changes()) == [], "it is said once"


def test_a_journal_that_shrinks_is_copied_no_further(tmp_path: Path) -> None:
    volume, copy = tmp_path / "there", tmp_path / "here"
    journal = volume / "nodes/3/journal.jsonl"
    journal.parent.mkdir(parents=True)
    found = mirror.Mirror({3: volume}, MOST, tmp_path)
    journal.write_bytes(b"first line\nsecond line\n")
    assert mirrored(found, copy)[1] == []
    journal.write_bytes(b"another\n")
    files, problems = mirrored(found, copy)
    assert files == {"nodes/3/journal.jsonl": b"first line\nsecond line\n"}
    assert problems == ["nodes/3/journal.jsonl has shrunk from 23 to 8 bytes; no more of it is copied"]


@pytest.mark.parametrize("link", ["nodes", "nodes/3", "nodes/3/evidence"])
def test_no_folder_is_reached_through_a_link(link: str, tmp_path: Path) -> None:
    """The observer sees all volumes: a node could pass another's files, or its evidence, for its own."""
    volume, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for part in ("nodes/3/evidence", "3/evidence", "evidence"):
        (elsewhere / part).mkdir(parents=True)
        (elsewhere / part / "ban-1-0-2.evidence").write_bytes(b"another's")
    (volume / link).parent.mkdir(parents=True, exist_ok=True)
    (volume / link).symlink_to(elsewhere / link.partition("/")[0] if link == "nodes" else elsewhere)
    assert mirrored(mirror.Mirror({3: volume}, MOST, tmp_path), tmp_path / "here") == ({}, [])


@pytest.mark.parametrize("name", [process_lock.LOCK, process_lock.EXIT])
@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "noise"])
def test_a_hostile_lock_or_exit_code_holds_nobody_up(kind: str, name: str, tmp_path: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(tmp_path / name)
        case "link":
            (tmp_path / name).symlink_to("/dev/zero")
        case "folder":
            (tmp_path / name).mkdir()
        case _:
            sparse(tmp_path / name, 10 * GIGABYTE)
    assert not process_lock.alive(tmp_path)
    assert process_lock.began(tmp_path) is (kind == "noise" and name == process_lock.LOCK)
    assert process_lock.last_word(tmp_path) is None


@pytest.mark.parametrize("path", ["../x", "nodes/0/../../x", "run.json", "nodes/0/evidence/../exit", "/nodes/0/exit"])
def test_a_change_outside_a_nodes_files_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(WireError, match="no file of a run"):
        mirror.apply(tmp_path, Change(path, 0, b"x"))


def test_the_observer_notices_ends_and_deaths(tmp_path: Path) -> None:
    backend = Volumes(3, tmp_path, tmp_path / "run", MOST, print)
    for node in range(3):
        Journal(places.written_by(tmp_path, node) / "journal.jsonl", node).append("bound")
    with process_lock.held(places.written_by(tmp_path, 0)):
        with process_lock.held(places.written_by(tmp_path, 1)):
            assert backend.poll(0) == []
            process_lock.leave_word(places.written_by(tmp_path, 1), 0)
        assert backend.poll(0) == [Exited(1, 0)]
        assert backend.bound == {0, 1, 2}
    assert backend.poll(0) == [Exited(0, -9)]
    assert backend.poll(0) == []  # node 2 has not begun, and nobody ends twice


def test_a_killed_process_lets_go_of_its_directory(tmp_path: Path) -> None:
    code = ("import sys; from pathlib import Path; from btard.node.storage import process_lock\n"
            "with process_lock.held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert process_lock.alive(tmp_path)
        with pytest.raises(BackendError, match="another worker runs"), process_lock.held(tmp_path):
            pass
        process.kill()
        process.wait()
    assert (
        not process_lock.alive(tmp_path) and process_lock.began(tmp_path) and process_lock.last_word(tmp_path) is None
    )


def test_health_follows_this_process_and_not_an_earlier_one(tmp_path: Path) -> None:
    note, path = str(tmp_path / "note"), tmp_path / "journal.jsonl"
    assert healthcheck.problem(note) == "no worker has begun"
    healthcheck.begin(path, note)
    assert healthcheck.problem(note) == "it has not bound its sockets"
    with Journal(path, 0) as journal:
        journal.append("bound")
        assert healthcheck.problem(note) == "not enough peers have greeted it"
        journal.append("greeted", peers=[1])
        assert healthcheck.problem(note) is None
        healthcheck.begin(path, note)
        assert healthcheck.problem(note) == "it has not bound its sockets"


def test_the_health_check_loads_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys; from btard.node.metrics import healthcheck as check; "
        "print(check.main(), 'torch' in sys.modules, 'msgspec' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT), "HEALTH_NOTE": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "no worker has begun\n1 False False\n"


def test_workers_in_containers_have_the_environment_of_local_ones() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert [f"{name}={value}" for name, value in ENVIRONMENT.items() if f" {name}={value}" not in text] == []


@pytest.mark.parametrize(
    ("facts", "heard"),
    [
        ({"com.docker.compose.service": "node-2", "exitCode": "137"}, ("node-2", -9)),
        ({"com.docker.compose.service": "node-0", "exitCode": "1"}, ("node-0", 1)),
        ({"com.docker.compose.service": "roles", "com.docker.compose.oneoff": "True", "exitCode": "0"}, None),
    ],
    ids=["killed", "failed", "compose run"],
)
def test_an_engines_word_of_a_death(facts: dict[str, str], heard: tuple[str, int] | None) -> None:
    line = msgspec.json.encode({"Type": "container", "Actor": {"ID": "x", "Attributes": facts}})
    assert engine.Project.death(line) == heard


def test_an_unreadable_bundle_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="no bundle of a run"):
        bundle.unpack(b'{"record": 1}')


def test_the_pinned_requirements_cover_the_package() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    items = project["dependencies"] + project["optional-dependencies"]["monitor"]  # the observer may mark a Grafana
    wanted = {item.split(">")[0].strip().lower().replace("_", "-") for item in items}
    pinned = {line.split("==")[0].lower().replace("_", "-")
              for line in (ROOT / "deploy" / "requirements.txt").read_text().splitlines() if "==" in line}  # fmt: skip
    assert wanted - pinned == {"torch", "torchvision"}


@pytest.mark.sockets
def test_workers_and_observer_on_one_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the containers run, as processes: keys, two workers by `python -m btard.node`, and the observer."""
    made = roles.from_environment({**CLEAN, "PATH": os.environ["PATH"]})
    bundle.lay_out(made, tmp_path)
    earlier = time.time() - 100
    os.utime(places.truth(tmp_path) / "run.json", (earlier, earlier))
    with on_this_machine(tmp_path, range(2), 2) as workers:
        capsys.readouterr()
        assert observer.main([], tmp_path, port=0) == 0
        told = capsys.readouterr().out.splitlines()
        assert [worker.wait(30) for worker in workers] == [0, 0]
    summary = msgspec.json.decode((places.runs(tmp_path) / made.record.run_id / "summary.json").read_bytes())
    assert summary["outcome"] == "finished" and summary["steps"] == 5 and summary["agreement"]
    assert summary["honest_banned"] == 0 and summary["byzantine"] == []
    assert 100 <= summary["wall_seconds"] < 200, "counted from when the nodes got their keys"
    (ready,) = [float(line.split()[4]) for line in told if line.startswith("2 workers ready after ")]
    assert 100 <= ready <= summary["wall_seconds"]
    name = f"runs/{made.record.run_id}"
    assert told[-3] == f"check the evidence with: docker compose run --rm verify {name}"
    assert f" observer:{places.runs(tmp_path)}/{made.record.run_id} . && btard-launch verify " in told[-2]
    assert told[-1].startswith("press Ctrl-C; dashboards stay until then") and "\n".join(told).count("Ctrl-C") == 1


@pytest.mark.sockets
def test_who_is_started_again_after_the_end_and_stays_is_healthy(tmp_path: Path) -> None:
    bundle.lay_out(roles.from_environment({**CLEAN, "PATH": os.environ["PATH"]}), tmp_path)
    path, note = places.config_of(tmp_path, 0), tmp_path / "note"
    own = places.written_by(tmp_path, 0)
    own.mkdir(parents=True, exist_ok=True)
    config = msgspec.structs.replace(load(path), directory=str(own), metrics="127.0.0.1:0", files=True, stay=True)
    path.write_bytes(msgspec.json.encode(config))
    events = ("bound", "greeted", "finished")
    (own / "journal.jsonl").write_text("".join(f'{{"time":1.0,"node":0,"event":"{each}"}}\n' for each in events))
    command = [sys.executable, "-m", "btard.node", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), healthcheck.VARIABLE: str(note)}
    assert healthcheck.problem(str(note)) == "no worker has begun"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        try:
            assert "has finished already" in worker.stderr.readline()
            assert "stays: its files are at http://127.0.0.1:" in worker.stderr.readline()
            assert healthcheck.problem(str(note)) is None
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
