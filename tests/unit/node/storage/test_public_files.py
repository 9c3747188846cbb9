"""What of a run directory is for everybody, whatever else lies in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from btard.node.errors import DataError
from btard.node.storage.public_files import PublicFile, PublicFiles, node_of

SECRET = (
    "secrets.json",
    "run.json",
    "proposal.json",
    "approval.json",
    "nodes/1/config.json",
    "nodes/1/secrets.json",
    "nodes/1/alive",
    "nodes/1/checkpoints/3-0.state",
    "nodes/1/evidence/.x.evidence",
    "nodes/1/../secrets.json",
    "nodes/01/journal.jsonl",
    "/etc/passwd",
    "nodes/1/evidence/../../../secrets.json.evidence",
    "nodes/1/journal.jsonl/",
    "",
    "nodes/1/evidence/ban.evidence\n",
)


def laid_out(where: Path) -> PublicFiles:
    for name in (
        "genesis.json",
        "approvals.json",
        "secrets.json",
        "nodes/1/journal.jsonl",
        "nodes/1/config.json",
        "nodes/1/evidence/ban-3-0-2.evidence",
        "nodes/1/evidence/half.evidence.tmp",
        "nodes/2/journal.jsonl",
    ):
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return PublicFiles(where, 1)


def test_only_what_proves_something_is_listed(tmp_path: Path) -> None:
    files = laid_out(tmp_path)
    (tmp_path / "nodes/1/parameters.f32").symlink_to(tmp_path / "secrets.json")
    os.mkfifo(tmp_path / "nodes/1/certificate")
    names = ("genesis.json", "approvals.json", "nodes/1/journal.jsonl", "nodes/1/evidence/ban-3-0-2.evidence")
    assert files.listed() == [PublicFile(name, len(name)) for name in names]
    for name in names:
        with os.fdopen(files.open(name)) as file:
            assert file.read() == name


@pytest.mark.parametrize("name", [*SECRET, "nodes/2/journal.jsonl", "nodes/1/parameters.f32"])
def test_nothing_else_is_opened(name: str, tmp_path: Path) -> None:
    files = laid_out(tmp_path)
    (tmp_path / "nodes/1/parameters.f32").symlink_to(tmp_path / "secrets.json")
    with pytest.raises(DataError):
        files.open(name)


@pytest.mark.parametrize("name", SECRET)
def test_no_other_name_is_public(name: str) -> None:
    with pytest.raises(DataError, match="nothing of this name is public"):
        node_of(name)


def test_a_public_name_says_whose_it_is() -> None:
    assert node_of("genesis.json") is None
    assert node_of("nodes/12/evidence/return-4-12.certificate") == 12
