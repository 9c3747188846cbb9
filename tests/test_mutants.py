"""Each hand-made mistake is noticed by the tests of its own module (tests/mutants.py, tests/mutation.py)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import mutation
from tests.mutants import HAND_MADE, HandMade


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """What became of each, by name: in a process of its own, whose forks nothing else has touched."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation", "--table"], cwd=mutation.ROOT, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert len(rows) == len(HAND_MADE) + 1, done.stdout + done.stderr
    return {mutant.name: row[0] for mutant, row in zip(HAND_MADE, rows, strict=False) if mutant.name in " ".join(row)}


@pytest.mark.parametrize("mutant", HAND_MADE, ids=lambda mutant: mutant.name)
def test_the_modules_own_tests_notice_it(mutant: HandMade, table: dict[str, str]) -> None:
    assert table[mutant.name] == "killed"


def test_the_tool_sees_a_survivor_and_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mutants of a module whose tests do not look there, or would wait for ever."""
    module, tests = "node.protocol.edges", ("tests/test_protocol_update.py",)
    text = mutation.source_of(module)

    def outcome(before: str, after: str) -> str:
        assert text.count(before) == 1, f"{before!r} occurs {text.count(before)} times: no mutant"
        code = compile(text.replace(before, after), str(mutation.path_of(module)), "exec")
        return mutation.outcome_of(module, code, tests).result

    assert outcome("ELIMINATION = 4 *", "ELIMINATION = 5 *") == "survived"
    monkeypatch.setattr(mutation, "CPU_S", 2)  # it would take it all
    assert outcome("    most = ", "    while True: pass\n    most = ") == "hung"


def test_every_kind_of_mutant_is_made_and_compiles() -> None:
    found = mutation.places("node.protocol.probation")
    kinds = {"comparison", "constant", "and/or", "not", "arithmetic", "return", "deletion"}
    assert kinds >= {mutant.operator for mutant in found} >= kinds - {"not"}
    assert [mutant.number for mutant in found] == list(range(len(found)))
    assert all(mutant.before != mutant.after for mutant in found)
    codes = {mutation.compiled(mutant) for mutant in found[:: len(found) // 10]}
    assert len(codes) >= 10


def test_a_sample_is_repeatable_and_grows() -> None:
    modules = ["node.protocol.charges", "node.protocol.edges"]
    few, more = mutation.sample(1, 20, modules), mutation.sample(1, 40, modules)
    assert more[:20] == few and {mutant.module for mutant in more} == set(modules)
    assert mutation.sample(2, 20, modules) != few


def test_a_row_that_no_longer_fits_says_so() -> None:
    with pytest.raises(ValueError, match=r"occurs 0 times in node\.protocol\.edges; adjust mutants\.py"):
        _ = HandMade("gone", "node.protocol.edges", "no such text", "", ()).source
