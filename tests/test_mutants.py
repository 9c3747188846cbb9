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


@pytest.mark.slow
@pytest.mark.parametrize("mutant", HAND_MADE, ids=lambda mutant: mutant.name)
def test_the_modules_own_tests_notice_it(mutant: HandMade, table: dict[str, str]) -> None:
    assert table[mutant.name] == "killed"


PROBE = """
from tests import mutation

mutation.CPU_S = 10
module, tests = "btard.node.protocol.adjudication.complaints", ("tests/unit/node/protocol/state/test_transition.py",)
text, most = mutation.source_of(module), "    most = "
mutation.warm(module, tests)
for before, after in (
    ("ELIMINATION = 4", "ELIMINATION = 5"),
    (most, f"    while True: pass\\n{most}"),
    (most, f"    __import__('threading').Event().wait()\\n{most}"),
):
    assert before in text, before
    code = compile(text.replace(before, after), str(mutation.path_of(module)), "exec")
    print(mutation.outcome_of(module, code, tests).result, flush=True)
    mutation.PATIENCE = mutation.PATIENCE if "while" not in after else 1
"""


@pytest.mark.slow
def test_the_tool_sees_a_survivor_and_a_hang() -> None:
    """Mutants of a module whose tests do not look there, would compute for ever, or would wait for ever; in a process
    of its own: a fork of this one could wait for a lock that a thread held."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=mutation.ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.split() == ["survived", "hung", "hung"], done.stdout + done.stderr


def test_every_kind_of_mutant_is_made_and_compiles() -> None:
    found = mutation.places("btard.node.protocol.state_sync.probation")
    kinds = {"comparison", "constant", "and/or", "not", "arithmetic", "return", "deletion"}
    assert kinds >= {mutant.operator for mutant in found} >= kinds - {"not"}
    assert [mutant.number for mutant in found] == list(range(len(found)))
    assert all(mutant.before != mutant.after for mutant in found)
    codes = {mutation.compiled(mutant) for mutant in found[:: len(found) // 10]}
    assert len(codes) >= 10


def test_a_sample_is_repeatable_and_grows() -> None:
    modules = ["btard.node.protocol.adjudication.charges", "btard.node.protocol.adjudication.complaints"]
    few, more = mutation.sample(1, 20, modules), mutation.sample(1, 40, modules)
    assert more[:20] == few and {mutant.module for mutant in more} == set(modules)
    assert mutation.sample(2, 20, modules) != few


def test_a_row_that_no_longer_fits_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"occurs 0 times in btard\.node\.protocol\.adjudication\.complaints; adjust tests/mutants\.py"
    ):
        _ = HandMade("gone", "btard.node.protocol.adjudication.complaints", "no such text", "", ()).source
