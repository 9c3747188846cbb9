"""The name that was probably meant."""

from __future__ import annotations

import pytest

from btard.node.nearest import nearest, suggestion

RULES = ("centered_clip", "krum", "mean", "median")


@pytest.mark.parametrize(("name", "meant"), [("krumm", "krum"), ("medain", "median"), ("zzz", ""), ("help", "")])
def test_nothing_is_suggested_that_does_not_look_alike(name: str, meant: str) -> None:
    assert nearest(name, RULES) == meant


def test_without_a_likely_name_those_that_there_are_are_listed() -> None:
    assert suggestion("krumm", RULES) == "did you mean 'krum'?"
    assert suggestion("zzz", RULES) == "there are centered_clip, krum, mean, median"
    assert suggestion("zzz", [f"n{number}" for number in range(15)]).endswith(", n11 and 3 more")
    assert suggestion("zzz", ()) == "there are none"
