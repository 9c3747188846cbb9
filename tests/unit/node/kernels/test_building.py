"""Libraries are built once, whole or not at all, by any compiler, and not where they were built beforehand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from btard.node.kernels import building
from tests.imports import ROOT

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@needs_compiler
def test_a_library_is_built_once_and_left_whole(tmp_path: Path) -> None:
    made = building.build(building.compiler(), tmp_path, building.PASSES)
    before = made.stat().st_mtime_ns
    assert building.build(building.compiler(), tmp_path, building.PASSES) == made
    assert list(tmp_path.iterdir()) == [made]
    assert made.stat().st_mtime_ns == before


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        building.build(str(broken), tmp_path / "built", building.PASSES)
    assert list((tmp_path / "built").iterdir()) == []


@needs_compiler
def test_what_was_built_beforehand_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script imports the standard library alone, and what it makes is found by its name."""
    script = ROOT / "node" / "kernels" / "building.py"
    command = [sys.executable, "-I", "-S", str(script), str(tmp_path / "built")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert sorted(told.stdout.split()) == sorted(map(str, (tmp_path / "built").iterdir()))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    libraries = (building.PASSES, building.PORTABLE)
    assert [building.compiled(files) for files in libraries] == [None, None]
    monkeypatch.setattr(building, "BUILT", tmp_path / "built")
    assert None not in [building.compiled(files) for files in libraries]
    with pytest.raises(FileNotFoundError, match="install gcc"):
        building.compiler()


@needs_compiler
def test_another_source_is_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of an older release beside it is not taken for this one's."""
    (tmp_path / "one.c").write_text("int one(void) { return 1; }\n")
    monkeypatch.setattr(building, "FOLDER", tmp_path)
    before = building.build(building.compiler(), tmp_path / "built", ("one.c",))
    (tmp_path / "one.c").write_text("int one(void) { return 2; }\n")
    assert building.build(building.compiler(), tmp_path / "built", ("one.c",)) != before
