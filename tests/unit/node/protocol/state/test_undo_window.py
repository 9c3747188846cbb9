"""The window of undo: whose contributions it holds, what its digest binds, and who checks what where few are left.
(How it moves on and is used: test_rollback.)"""

from __future__ import annotations

from dataclasses import replace

import pytest

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import AttemptRecord, Layer, Window, layer_digest
from btard.node.protocol.state.undo_window import Contribution, Restoration, recheck_shares
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Commit, Phase, Signed
from tests.protocol_attempts import complete, replace_state

R = bytes(range(32))


def past(step: int, number: int = 0, contributors: tuple[int, ...] = ()) -> AttemptRecord:
    """A committed attempt with nothing in it but COMMITs, of which only contributors' have digests of parts."""
    attempt: Attempt = complete().attempt
    replace_state(attempt, step=step)
    commits = (Commit(attempt.slot(Phase.COMMIT, peer), (), (b"d",) * (peer in contributors), b"") for peer in range(6))
    return AttemptRecord(attempt.state, number, {Phase.COMMIT: tuple(Signed(encode_body(c), b"") for c in commits)})


def layer(step: int, contributors: tuple[int, ...], number: int = 0) -> Layer:
    return Layer(past(step, number, contributors), bytes([step, number]))


@pytest.fixture(scope="module")
def window() -> Window:
    """Three steps; in step 4 peer 1 validated, and the second attempt stood."""
    return Window((layer(3, (0, 1, 2)), layer(4, (0, 2), number=1), layer(5, (0, 1, 2))))


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ((), []),
        ((9,), []),
        ((1,), [(3, 0, 1), (5, 0, 1)]),
        ((2, 1), [(3, 0, 1), (3, 0, 2), (4, 1, 2), (5, 0, 1), (5, 0, 2)]),
        ((1, 1), [(3, 0, 1), (5, 0, 1)]),
    ],
    ids=["nobody", "a stranger", "one peer", "two peers", "one peer twice"],
)
def test_whose_contributions_are_kept(
    window: Window, peers: tuple[int, ...], expected: list[tuple[int, int, int]]
) -> None:
    found = window.of(peers)
    assert found == tuple(Contribution(*item) for item in expected) == tuple(sorted(found))


def test_a_contribution_is_found_in_the_attempt_that_stood(window: Window) -> None:
    for item in window.of((0, 1, 2)):
        assert (window.layer(item).step, window.layer(item).record.number) == (item.step, item.attempt)
    with pytest.raises(StopIteration):
        window.layer(Contribution(4, 0, 0))


def test_the_digest_binds_layers_in_their_order_and_leaves_out_what_close_says_elsewhere(window: Window) -> None:
    first, second, third = window.layers
    others = [
        replace(window, layers=(second, first, third)),
        replace(window, layers=(first, second)),
        replace(window, layers=(first, second, replace(third, digest=b"?"))),
        replace(window, forgotten=True),
        replace(window, examined=1),
    ]
    assert len({each.digest for each in (window, *others)}) == 1 + len(others)
    same = replace(window, undone=Restoration((1,), (), None, 0, older=False))
    assert same.digest == window.digest


def test_a_layer_binds_its_place_its_state_and_its_transcript() -> None:
    one = past(3)
    otherwise = replace(one, state=one.state.with_facts(r=b"another"))
    made = [
        layer_digest(one, b"t"),
        layer_digest(one, b"u"),
        layer_digest(past(4), b"t"),
        layer_digest(past(3, 1), b"t"),
        layer_digest(otherwise, b"t"),
    ]
    assert len(set(made)) == len(made)
    assert layer_digest(past(3), b"t") == made[0], "all honest peers find the same"


def test_nobody_checks_oneself_even_where_nobody_else_is_left() -> None:
    due = (Contribution(3, 0, 1), Contribution(4, 0, 2))
    shares = recheck_shares(due, 3, (1,), R)
    assert shares == {1: (due[1],)}
    assert recheck_shares(due, 3, (), R) == {}


def test_one_checker_never_gets_the_same_contribution_twice() -> None:
    due = tuple(Contribution(step, 0, 9) for step in range(5))
    for checkers in (1, 2, 3, 7):
        shares = recheck_shares(due, checkers, (0, 1, 2), R)
        assert all(len(set(share)) == len(share) for share in shares.values())
        assert sum(len(share) for share in shares.values()) == 5 * min(checkers, 3)
