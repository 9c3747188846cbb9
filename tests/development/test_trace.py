"""The measure of how far a message travels repeats, and sees every phase."""

from __future__ import annotations

from tests.development.trace import crossings


def test_a_trace_repeats_and_has_every_phase() -> None:
    first = list(crossings())
    assert {"AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE", "committed"} <= {each.entered for each in first}
    assert all(len(each.modules) >= 2 and each.switches >= len(each.modules) - 1 for each in first)
    again = {each.entered: each.modules for each in crossings()}
    assert again == {each.entered: each.modules for each in first}
