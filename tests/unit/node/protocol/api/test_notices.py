"""A notice asks nothing of a driver, and after an ending there is nothing more."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from btard.node.protocol.api.events import Effect, Output
from btard.node.protocol.api.notices import Ending, Notice


def test_what_is_told_is_not_what_is_asked_for() -> None:
    kinds = [set(get_args(union)) for union in (Effect, Notice, Ending)]
    assert set.union(*kinds) == set(get_args(Output))
    assert sum(len(each) for each in kinds) == len(get_args(Output))


@pytest.mark.parametrize("kind", get_args(Notice), ids=lambda kind: kind.__name__)
def test_a_notice_says_first_which_attempt_it_is_of(kind: Any) -> None:
    """Records sort by it."""
    assert [field.name for field in fields(kind)][:2] == ["step", "attempt"]


@pytest.mark.parametrize("kind", get_args(Ending), ids=lambda kind: kind.__name__)
def test_an_ending_says_in_which_step(kind: Any) -> None:
    assert fields(kind)[0].name == "step"
