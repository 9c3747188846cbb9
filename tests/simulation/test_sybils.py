"""The cost of an identity, as docs/hosts.md has it: measured, and the measure can tell."""

from __future__ import annotations

from docs.sybils import HONEST, PLACES, measure


def test_an_identity_costs_its_probation_and_lies_end_it() -> None:
    found = measure(0, "later", probation=2, admit_every=1, steps=24)
    assert 0 < found.admitted <= found.entered <= PLACES
    assert found.worked >= 2 * found.admitted and set(found.served) == {3}
    assert found.lies > 0 and found.lasted
    assert 2 * found.together[0] < found.together[1], "never a majority"


def test_without_honest_work_nobody_is_admitted() -> None:
    found = measure(0, "gradient", probation=2, admit_every=1, steps=24)
    assert found.entered > 0
    assert (found.admitted, found.worked, found.lies, found.lasted) == (0, 0, 0, ())


def test_honest_newcomers_are_no_liars() -> None:
    found = measure(0, HONEST, probation=1, admit_every=1, steps=12)
    assert found.admitted > 0 and (found.lies, found.lasted) == (0, ())
