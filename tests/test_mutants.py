"""Each hand-made mistake is noticed by the tests of its own module (tests/mutants.py, tests/mutation.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
import sys

from tests import mutation

mutation.CPU_S, patience, mutation.PATIENCE = 10, mutation.PATIENCE, 2
module, tests = "btard.node.protocol.adjudication.complaints", "tests/unit/node/protocol/state/test_transition.py"
text, first = mutation.source_of(module), "    charges = {"
made = []
for before, after in (
    ("ELIMINATION = 4", "ELIMINATION = 5"),
    (first, f"    while True: pass\\n{first}"),
    (first, f"    __import__('threading').Event().wait()\\n{first}"),
):
    assert before in text, before
    made.append((after, compile(text.replace(before, after), str(mutation.path_of(module)), "exec")))


results = []
mutation.Examination(module, tests, made, lambda after, outcome: results.append(outcome.result)).run()
print(*results, flush=True)
mutation.PATIENCE = patience
print(mutation.anew(module, made[0][1], [tests]).result)
"""


@pytest.mark.slow
def test_the_tool_sees_a_survivor_and_a_hang() -> None:
    """Mutants of a module whose tests do not look there, would compute for ever, or would wait for ever; in a process
    of its own: a fork of this one could wait for a lock that a thread held."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=mutation.ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.split() == ["unsure", "hung", "hung", "survived"], done.stdout + done.stderr


SAMPLE = """
import sys
from dataclasses import replace
from pathlib import Path

from tests import mutation

module, record = "btard.node.protocol.attempt.attempt", Path(sys.argv[1])
wanted = [
    mutant
    for mutant in mutation.places(module)
    if (mutant.before, mutant.after)
    in (("len(by) >= quorum", "len(by) > quorum"), ("len(held) < len(self.active)", "len(held) <= len(self.active)"))
]
print(mutation.run_sample(wanted, record, again=False, minutes=float("inf")))
rows = mutation.read(record)
print(*(row.result for row in rows))
mutation.write(record, [replace(rows[0], by="kept"), *rows[2:]])  # what an interruption may leave
mutation.run_sample(wanted, record, again=False, minutes=0.0)
print(len(mutation.read(record)))
mutation.run_sample(wanted, record, again=False, minutes=float("inf"))
print(*(row.result for row in mutation.read(record)), mutation.read(record)[0].by)
"""


@pytest.mark.slow
def test_a_sample_kills_a_mutant_spares_an_equivalent_one_and_goes_on(tmp_path: Path) -> None:
    """In a transcript nobody but the active has a message: where all are there, `missing` looks for nothing or finds
    nothing."""
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE, str(tmp_path / "record.csv")],
        cwd=mutation.ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if ":" not in line and "mutants run" not in line]
    assert told == ["1", "survived killed", "1", "survived killed kept"], done.stdout + done.stderr
    assert done.stdout.count("survived ") == 3, "the equivalent one is run once, the killed one twice"


def test_every_kind_of_mutant_is_made_and_compiles() -> None:
    found = mutation.places("btard.node.protocol.state_sync.probation")
    kinds = {"comparison", "constant", "and/or", "not", "arithmetic", "return", "deletion"}
    assert kinds >= {mutant.operator for mutant in found} >= kinds - {"not"}
    assert [mutant.number for mutant in found] == list(range(len(found)))
    assert all(mutant.before != mutant.after for mutant in found)
    some = found[:: len(found) // 10]
    made = dict(mutation.compiled(some[0].module, {mutant.number for mutant in some}))
    assert list(made) == some and len(set(made.values())) >= 10


def test_a_sample_is_repeatable_and_grows() -> None:
    modules = ["btard.node.protocol.adjudication.charges", "btard.node.protocol.adjudication.complaints"]
    few, more = mutation.sample(1, 200, modules), mutation.sample(1, 400, modules)
    assert few == more[: len(few)] != more and {mutant.module for mutant in more} == set(modules)
    assert mutation.sample(2, 200, modules) != few


def test_a_row_that_no_longer_fits_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"occurs 0 times in btard\.node\.protocol\.adjudication\.complaints; adjust tests/mutants\.py"
    ):
        _ = HandMade("gone", "btard.node.protocol.adjudication.complaints", "no such text", "", ()).source
