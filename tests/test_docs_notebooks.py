"""The notebooks run as they stand, cell by cell in a fresh process, and are kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.imports import ROOT
from tests.launching import PATIENCE_S, environment

FOLDER = ROOT / "docs" / "notebooks"
BAN = FOLDER / "a-ban-in-a-minute.ipynb"


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The code cells, in order."""
    found = json.loads(notebook.read_text(encoding="utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    return [cell for cell in found["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    assert cells(notebook)
    assert not [cell["id"] for cell in cells(notebook) if cell["outputs"] or cell["execution_count"] is not None]


@pytest.mark.slow
def test_the_notebook_ends_with_both_bans_proven(tmp_path: Path) -> None:
    program = "\n".join("".join(cell["source"]) for cell in cells(BAN))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_S,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines, done.stderr
    attackers = json.loads(lines[0].removeprefix("attackers: "))
    assert len(attackers) == 2
    assert sorted(int(line.split()[1]) for line in lines if " banned at step " in line) == attackers
    assert [line.split(" | ")[1:] for line in lines if " | " in line] == [["recomputation", "proven"]] * 2
    assert ", 0 wrong, " in done.stdout and float(lines[-1].split()[1].strip(",")) > 0.6
