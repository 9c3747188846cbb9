"""The run directory: complete, private where it must be, or not there at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from btard.launcher.containers import bundle
from btard.launcher.run import control, run_directory, summary
from btard.launcher.run.experiment import CEREMONY, Experiment
from btard.launcher.sweep import rows, store
from btard.node.crypto import keys
from btard.node.errors import BackendError, BtardError, ConfigError
from btard.node.genesis.ceremony import Meeting, Minutes
from btard.node.genesis.genesis import read_genesis
from tests.ceremony import met


def create(experiment: Experiment, where: Path) -> run_directory.RunDirectory:
    run, roles = experiment.run_config("cpu"), experiment.roles()
    return run_directory.create(experiment, run, roles, where / "data", argv=["x"], sources={"steps": "flag --steps"})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_holds_what_the_run_needs(tmp_path: Path) -> None:
    made = create(Experiment(attack="noise", byzantine=1, seed=3), tmp_path)
    assert made.path.parent == tmp_path / "runs"
    assert made.path.name.endswith("-noise")
    for config in met(made.configs):
        own = Path(config.directory)
        assert {path.name for path in own.iterdir() if path.stat().st_mode & 0o77 == 0} == {
            "secrets.json",
            "config.json",
        }
        assert keys.public_identity(config.node, keys.load(own / "secrets.json")) == config.members[config.node]
    record = run_directory.read_record(made.path)
    assert (record.argv, record.sources, list(record.roles)) == (("x",), {"steps": "flag --steps"}, ["5"])
    assert record.versions.packages["torch"]
    assert json.loads((made.path / "run.json").read_bytes())["link_model"] is None


def test_the_public_half_tells_nothing_of_roles_or_secrets(tmp_path: Path) -> None:
    made = create(Experiment(attack="noise", byzantine=1), tmp_path)
    configs = met(made.configs)
    Minutes(Meeting(made.path / CEREMONY, configs[0].run, made.run_id), made.path).look()
    genesis = read_genesis(made.path)
    assert (genesis.run_id, genesis.run, genesis.members) == (made.run_id, configs[0].run, configs[0].members)
    for public in (made.path / "genesis.json", made.path / "approvals.json", *(made.path / CEREMONY).iterdir()):
        text = public.read_text()
        assert "noise" not in text
        for config in configs:
            assert not any(secret in text for secret in msgspec.structs.astuple(keys.load(Path(config.secrets_file))))


def test_the_same_protocol_seed_gives_the_same_keys(tmp_path: Path) -> None:
    first, second, other = (create(Experiment(protocol_seed=seed), tmp_path) for seed in (1, 1, 2))
    assert first.path != second.path
    members = [met(made.configs)[0].members for made in (first, second, other)]
    assert members[0] == members[1] != members[2]
    assert not list(first.path.rglob("given.json")), "each has taken its own"


def test_without_it_two_runs_of_one_seed_have_other_keys(tmp_path: Path) -> None:
    first, second = (create(Experiment(seed=1), tmp_path) for _ in range(2))
    for one, other in zip(met(first.configs), met(second.configs), strict=True):
        ours, theirs = (keys.load(Path(config.secrets_file)) for config in (one, other))
        assert not set(msgspec.structs.astuple(ours)) & set(msgspec.structs.astuple(theirs))
    assert run_directory.read_record(first.path).seeds.protocol is None


def test_an_empty_directory_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert create(Experiment(run_dir="mine"), tmp_path).path == tmp_path / "mine"


def test_a_full_one_may_not(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="--run-dir mine exists and is not empty"):
        create(Experiment(run_dir="mine"), tmp_path)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_of_two_runs_that_name_one_directory_at_once_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[run_directory.RunDirectory] = []

    def overtaken(path: Path) -> bool:
        monkeypatch.undo()
        first.append(create(Experiment(run_dir=str(tmp_path / "mine")), tmp_path))
        return False

    monkeypatch.setattr(Path, "exists", overtaken)
    with pytest.raises(ConfigError, match="mine exists and is not empty; name a new directory"):
        create(Experiment(run_dir=str(tmp_path / "mine")), tmp_path)
    assert run_directory.read_record(first[0].path).run_id == first[0].run_id


def test_a_disk_that_is_full_once_the_directory_stands_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def full(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == "logs":
            raise OSError(errno.ENOSPC, "No space left on device")
        made(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(BackendError, match=r"the disk is full: cannot write .*mine; free some space"):
        create(Experiment(run_dir=str(tmp_path / "mine")), tmp_path)


def test_of_two_that_choose_one_name_each_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_directory.time, "strftime", lambda _: "20260101-000000")
    assert len({create(Experiment(), tmp_path).path for _ in range(3)}) == 3


def test_a_name_that_is_no_utf_8_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^'.*r\\udcfcn.*' is no UTF-8 and cannot stand in a run's files"):
        create(Experiment(run_dir=os.fsdecode(b"r\xfcn")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError) as caught:
        create(Experiment(run_dir=place), tmp_path)
    assert "use another --run-dir" in str(caught.value)


def test_a_failed_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, secret: object) -> None:
        raise BackendError("the disk is full")

    monkeypatch.setattr(keys, "write", full)
    with pytest.raises(BtardError, match="the disk is full"):
        create(Experiment(protocol_seed=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run directory"),
        (b"{}", "is not readable by this"),
        (b'{"run_id":"\xff"}', "run.json is not readable"),
    ],
)
def test_another_directory_is_no_run(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        run_directory.read_record(tmp_path)


NO_TEXT = b'{"run_id":"\xff"}'
READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "summary.json, for a report": ("summary.json", summary.read, "summary.json is not readable by this version"),
    "sweep.json": ("sweep.json", store.read, "sweep.json is not readable by this version"),
    "row.json, of a sweep": (rows.ROW, rows.load, "cannot be read .*; delete its directory"),
    "a bundle, of a cluster": (
        "bundle",
        lambda where: bundle.unpack((where / "bundle").read_bytes()),
        "no bundle of a",
    ),
}


@pytest.mark.parametrize(("name", "reader", "message"), READERS.values(), ids=READERS)
def test_a_byte_that_is_no_text_is_one_clear_line(
    name: str, reader: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(NO_TEXT)
    with pytest.raises(BtardError, match=message):
        reader(tmp_path)


def test_the_status_of_a_run_whose_notes_are_no_text_is_still_told(tmp_path: Path) -> None:
    made = create(Experiment(), tmp_path)
    for name in (control.NOTE, "summary.json"):
        (made.path / name).write_bytes(NO_TEXT)
    assert control.status(made.path)[0].endswith(
        "its launcher is gone; `btard-launch resume` goes on, where there is a checkpoint"
    )
