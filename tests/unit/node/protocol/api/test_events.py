"""Everything between a peer and its driver is a frozen value, and belongs to what a driver has to know."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

import msgspec
import pytest

from btard.node.protocol.api import events, notices
from btard.node.protocol.api.events import Effect, Input, Output

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
        for module in (events, notices)
        for value in vars(module).values()
        if isinstance(value, type)
        and (is_dataclass(value) or issubclass(value, msgspec.Struct))
        and value.__module__ == module.__name__
    }
    assert made == set(EVENTS)


def test_nothing_is_told_both_ways() -> None:
    assert not set(get_args(Input)) & set(get_args(Output))
    assert len(set(EVENTS)) == len(EVENTS) and set(get_args(Effect)) < set(get_args(Output))
