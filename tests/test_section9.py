"""The tests that the table of attacks names exist, in the column that they stand in."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.integration import test_section9 as clusters
from tests.section9 import ROWS, Row

ROOT = Path(__file__).parent.parent


@cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
def test_a_row_has_its_tests_on_the_simulator(row: Row) -> None:
    assert row.simulator
    for name in row.simulator:
        file, _, test = name.partition("::")
        assert file.startswith("tests/simulation/")
        assert test in functions_in(file), f"no such test: {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
def test_a_row_has_its_tests_over_sockets(row: Row) -> None:
    assert row.sockets
    for name in row.sockets:
        file, _, test = name.partition("::")
        assert not file.startswith("tests/simulation/")
        assert test in functions_in(file), f"no such test: {name}"


def test_the_table_has_the_sixteen_rows_of_the_specification_and_one_more() -> None:
    assert len(ROWS) == len({row.attack for row in ROWS}) == 17


def test_every_cluster_has_a_test_that_judges_it() -> None:
    """Only those of chosen tests are started: one that no test asks for would never run."""
    marks = [mark for value in vars(clusters).values() for mark in getattr(value, "pytestmark", ())]
    judged = [name for mark in marks if mark.args[:1] == ("end",) for name in mark.args[1]]
    assert set(judged) == set(clusters.PLANS)
