"""The model of agreement, searched exhaustively by spin: the rules hold, and each weakened one is refuted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "agreement.pml"


def search(folder: Path, *flags: str) -> tuple[str | None, int]:
    """The name of the property that some run of the model breaks (None: none does), and how many states were seen.

    A search that spin did not complete is an error, never a pass.
    """
    missing = [tool for tool in ("spin", "cc") if shutil.which(tool) is None]
    if missing:
        problem = f"NOT RUN: the model of agreement needs {' and '.join(missing)} (apt-get install spin gcc)"
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    made = [f"-D{flag}" for flag in flags]
    verifier = ["-O1", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", "-DMEMLIM=3500", "-o", "pan", "pan.c"]
    for command in (["spin", *made, "-a", str(MODEL)], ["cc", *verifier]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    # 100,000 steps are far more than a run of the model has; a search that meets the limit says so.
    found = subprocess.run(["./pan", "-m100000"], cwd=folder, capture_output=True, text=True, timeout=900, check=True)
    text = found.stdout
    broken = re.search(r"assertion violated .*[|(](\w+)\) \(at depth", text)
    states = re.search(r"(\d+) states, stored", text)
    errors = re.search(r"errors: (\d+)", text)
    assert states is not None and errors is not None, text + found.stderr
    assert "error: max search depth too small" not in text, text
    assert "out of memory" not in text + found.stderr, text
    if broken is None:
        assert errors[1] == "0" and "Search not completed" not in text, text
    return broken[1] if broken else None, int(states[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "least"),
    [(("D=1",), 200_000), (("D=2",), 1_000_000), (("D=1", "RESTART"), 500_000)],
    ids=["one tick", "two ticks", "a restart"],
)
def test_the_rules_hold_in_every_run_of_the_model(flags: tuple[str, ...], least: int, tmp_path: Path) -> None:
    broken, states = search(tmp_path, *flags)
    print(f"{' '.join(flags)}: {states} states, every one of them visited")
    assert broken is None
    assert states >= least  # a model that forbids what it should examine would have fewer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "properties"),
    [
        (("C2D",), {"hangs", "starts_apart"}),
        (("NOW",), {"hangs", "starts_apart"}),
        (("RAW",), {"hangs", "starts_apart"}),
        (("FIX2D",), {"hangs", "starts_apart"}),
        (("NOSET",), {"hangs", "starts_apart"}),
        (("RESTART", "RESETC"), {"hangs", "starts_apart"}),
    ],
    ids=["until 2D", "at once", "raw trigger", "2D for every chain", "no closing set", "wait begins anew"],
)
def test_each_weakened_rule_is_refuted(flags: tuple[str, ...], properties: set[str], tmp_path: Path) -> None:
    broken, _ = search(tmp_path, "D=1", *flags)
    assert broken in properties


@pytest.mark.slow
@pytest.mark.parametrize("sight", range(1, 7))
def test_the_search_comes_upon_what_matters(sight: int, tmp_path: Path) -> None:
    """Joining, other OUTCOMEs, late certificates, waiting starts, both kinds of end, dropped disputes: all are met."""
    broken, _ = search(tmp_path, "D=1", f"REACH={sight}")
    assert broken == "seen"
