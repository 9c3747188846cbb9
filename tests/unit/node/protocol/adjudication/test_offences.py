"""The table of offences: what in the code names a reason names one of its rows."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from btard.launcher.run import removals
from btard.node.protocol.adjudication import offences
from btard.node.protocol.adjudication.offences import OFFENCES, Standing

CORE = Path(offences.__file__).parent.parent


def reasons() -> set[str]:
    """Every literal reason that the core gives a `Guilt` or a `Removal`, the second argument of both."""
    calls = (node for path in CORE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1)  # fmt: skip
    named = [call.args[1] for call in calls if call.func.id in ("Guilt", "Removal")]  # type: ignore[attr-defined]
    return {each.value for given in named for each in ast.walk(given)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)}  # fmt: skip


def test_the_core_names_no_other_reason() -> None:
    found = reasons()
    assert len(found) > len(OFFENCES) // 2 and found <= set(OFFENCES)


def test_what_needs_no_malice_is_gone_and_what_voids_is_banned() -> None:
    by_standing = {standing: {each.reason for each in OFFENCES.values() if each.standing == standing}
                   for standing in get_args(Standing)}  # fmt: skip
    assert by_standing["gone"] == {"silent", "withheld", "edges", "late"}
    assert by_standing["eliminated"] == {"eliminated"}
    assert {each.reason for each in OFFENCES.values() if each.voids} == {"aggregate", "unusable"}


def test_lies_come_before_what_may_be_bad_luck() -> None:
    """A peer that lied and then withheld the proof, or fell silent, is banned, not gone."""
    order = [each.standing for each in OFFENCES.values()]
    assert order == sorted(order, key=["banned", "gone", "eliminated"].index)
    assert [offences.gravity(reason) for reason in OFFENCES] == list(range(len(OFFENCES)))


@pytest.mark.parametrize("reason", ["", "foo", "Silent"])
def test_a_reason_that_a_node_made_up(reason: str) -> None:
    assert offences.standing(reason) == "banned" and offences.sentence(reason) == reason


def test_advice_is_for_offences_that_ban() -> None:
    assert {offences.standing(reason) for reason in removals._CAUSES} == {"banned"}
