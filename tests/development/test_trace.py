"""The measure of how far a message travels repeats, and sees every phase."""

from __future__ import annotations

from tests.development.trace import crossings

MODULES, SWITCHES = 24, 300
"""The most that one message may cross on its way through a phase: they only fall (ADR 65)."""


def test_a_trace_repeats_and_has_every_phase() -> None:
    first = list(crossings())
    assert {"AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE", "committed"} <= {each.entered for each in first}
    assert all(len(each.modules) >= 2 and each.switches >= len(each.modules) - 1 for each in first)
    assert max(len(each.modules) for each in first) <= MODULES
    assert max(each.switches for each in first) <= SWITCHES
    again = {each.entered: each.modules for each in crossings()}
    assert again == {each.entered: each.modules for each in first}
