"""Everything between a peer and its driver is a frozen value, and belongs to what a driver has to know.

A notice asks nothing of a driver, and after an ending there is nothing more.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

import msgspec
import pytest

from btard.node.protocol import api
from btard.node.protocol.api import Effect, Ending, Input, Notice, Output


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


EVENTS = (*get_args(Input), *get_args(Output))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_cannot_be_changed(kind: Any) -> None:
    """A driver may hold one as long as it likes, and hand it to another thread."""
    if is_dataclass(kind):
        assert kind.__dataclass_params__.frozen
        made = [field for field in fields(kind) if field.default_factory is not MISSING]
    else:
        assert issubclass(kind, msgspec.Struct) and kind.__struct_config__.frozen
        made = [each for each in msgspec.structs.fields(kind) if each.default_factory is not msgspec.NODEFAULT]
    assert not made, "nothing is made up on the way"
    assert kind.__dictoffset__ == 0, "no field can be added either"


def test_a_driver_knows_every_event_there_is() -> None:
    """One that is in no union would be dropped by a driver without a word."""
    made = {
        value
        for value in vars(api).values()
        if isinstance(value, type)
        and (is_dataclass(value) or issubclass(value, msgspec.Struct))
        and value.__module__ == api.__name__
    }
    assert made == set(EVENTS)


def test_nothing_is_told_both_ways() -> None:
    assert not set(get_args(Input)) & set(get_args(Output))
    assert len(set(EVENTS)) == len(EVENTS) and set(get_args(Effect)) < set(get_args(Output))
