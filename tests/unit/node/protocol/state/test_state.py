"""The agreed state: what its digest covers, what verdicts do to it, and the window of undo.

Whose contributions the window holds, what its digest binds, and who checks what where few are left.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.protocol.adjudication.judging import Judgement
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.verification import Draw, NormWindow
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import (
    AttemptRecord,
    Ban,
    Certified,
    Contribution,
    Layer,
    Restoration,
    State,
    Summary,
    Window,
    genesis_randomness,
    layer_digest,
    norms_digest,
    parameters_digest,
    recheck_shares,
)
from btard.node.protocol.state.transition import next_state, void_state
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Commit, Phase, Removal, Signed
from tests.protocol_attempts import complete, replace_state

# --- the window of undo ---------------------------------------------------------------------------------------


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


# --- the state ------------------------------------------------------------------------------------------------


SIX = Roster.genesis(bytes([peer]) * 32 for peer in range(6))
GENESIS = State.genesis(SIX, 0, torch.ones(3), torch.zeros(3))
STATE = GENESIS.with_facts(step=4, validators=(1, 2, 3), validator_count=1)
BAN = Ban(3, 0, 5, "gradient", 1, True)

COVERED = [
    ("step", STATE.with_facts(step=5)),
    ("parameters", replace(STATE, parameters_D=torch.tensor([1.0, 1.0, 1.0000001]))),
    ("optimiser", replace(STATE, optimiser_D=torch.ones(3))),
    ("r", STATE.with_facts(r=bytes(32))),
    ("roster", replace(STATE, roster=SIX.without([5]))),
    ("bans", replace(STATE, bans=(BAN,))),
    ("norms", replace(STATE, norms=NormWindow(((1.0,),)))),
    ("window", replace(STATE, window=Window(forgotten=True))),
    ("draw", STATE.with_facts(validators=(2, 1, 3))),
    ("number of pairs", STATE.with_facts(validator_count=0)),
    ("fingerprints", STATE.with_facts(fingerprints=b"other")),
    ("admissions", STATE.with_facts(admissions=((5, 1),))),
    ("returns", STATE.with_facts(returned=((5, 4),))),
]


@pytest.mark.parametrize("other", [row[1] for row in COVERED], ids=[row[0] for row in COVERED])
def test_the_digest_covers(other: State) -> None:
    assert other.summarise(b"t").digest != STATE.summarise(b"t").digest


def test_the_digest_covers_the_transcript_and_nothing_else() -> None:
    assert STATE.summarise(b"t").digest != STATE.summarise(b"u").digest
    assert replace(STATE, summary=STATE.summarise(b"t")).summarise(b"t") == STATE.summarise(b"t")


def test_at_genesis_nothing_is_certified_and_the_draw_is_empty() -> None:
    assert GENESIS.certified is None
    assert (GENESIS.step, GENESIS.summary.r, GENESIS.draw) == (0, genesis_randomness(0), Draw())
    assert STATE.certified == Certified(STATE.summary, ()) and STATE.draw == Draw((1, 2, 3), 1)


def test_a_verdict_since_is_in_the_state_and_not_in_what_was_signed() -> None:
    after = STATE.punished(4, 0, (Removal(5, "silent", None),), reform=False)
    assert after.summary is STATE.summary and 5 in after.summary.active
    assert 5 not in after.roster.active and [ban.peer for ban in after.bans] == [5]
    fresh = after.summarise(b"t")
    assert (fresh.active, fresh.bans) == (after.roster.active, after.bans)


def test_every_field_of_a_summary_counts() -> None:
    summary = STATE.summarise(b"t")
    filled = msgspec.structs.replace(summary, bans=(BAN,), complaints=((1, 2, 3),), admissions=((1, 2),),
                                      returned=((1, 9),),
                                      undo=(Contribution(3, 0, 5),), late=((1, 2, (3,)),),
                                          bounds=(1, 2))  # fmt: skip
    digests = {filled.digest}
    for name in Summary.__struct_fields__:
        value = getattr(filled, name)
        other = () if isinstance(value, tuple) else value + 1 if isinstance(value, int) else value + b"x"
        digests.add(msgspec.structs.replace(filled, **{name: other}).digest)
    assert len(digests) == 1 + len(Summary.__struct_fields__)


VERDICTS = [
    ("removed", False, "gradient", (), True),
    ("reformed", True, "gradient", (), False),
    ("reformed only for gradients", True, "checksum", (), True),
    ("reformed only once", True, "gradient", (Ban(1, 0, 5, "gradient", 0, False),), True),
    ("another's first offence", True, "gradient", (Ban(1, 0, 4, "gradient", 0, False),), False),
]


@pytest.mark.parametrize(("reform", "reason", "bans", "removed"), [row[1:] for row in VERDICTS],
                         ids=[row[0] for row in VERDICTS])  # fmt: skip
def test_verdicts(reform: bool, reason: str, bans: tuple[Ban, ...], removed: bool) -> None:
    after = replace(STATE, bans=bans).punished(4, 1, (Removal(5, reason, 2),), reform)
    assert after.bans == (*bans, Ban(4, 1, 5, reason, 2, removed))
    assert (5 not in after.roster.active) is removed
    assert after.removed_faults == sum(ban.removed for ban in after.bans)


def test_vectors_and_windows_are_named_by_their_bits() -> None:
    assert parameters_digest(torch.tensor([0.0])) != parameters_digest(torch.tensor([-0.0]))
    assert norms_digest(NormWindow(((1.0, 2.0),))) != norms_digest(NormWindow(((1.0,), (2.0,))))
    assert norms_digest(NormWindow(((math.nan,),))) == norms_digest(NormWindow(((math.nan,),)))


def test_the_next_state_of_an_honest_step() -> None:
    attempt = complete(step=1).attempt
    before = attempt.state
    parameters_D = before.parameters_D.clone()
    after = next_state(attempt, Judgement())
    aggregate_D = torch.cat([attempt.aggregates[peer] for peer in attempt.roster.active])
    expected_D, _ = attempt.tools.optimiser.apply(before.parameters_D, before.optimiser_D, [aggregate_D], 1)
    assert torch.equal(after.parameters_D, expected_D)
    assert torch.equal(before.parameters_D, parameters_D), "a tensor is never changed after it was committed to"
    assert (after.step, after.summary.r, after.bans) == (2, attempt.r, ())
    assert len(after.norms.steps) == len(before.norms.steps) + 1
    assert len(after.norms.steps[-1]) == 6 * len(attempt.contributors)
    assert set(after.draw.order) == set(attempt.contributors)
    assert after.summary == after.summarise(attempt.transcript.digest), "what CLOSE signs"


def test_the_last_step_moves_nothing_and_draws_nobody() -> None:
    attempt = complete(step=3).attempt
    after = next_state(attempt, Judgement())
    assert after.parameters_D is attempt.state.parameters_D
    assert after.norms is attempt.state.norms
    assert after.draw.count == 0
    assert after.step == 4


def test_a_void_attempt_changes_the_roster_alone() -> None:
    from btard.node.protocol.adjudication.charges import Averaging, Guilt

    attempt = complete(step=1).attempt
    after = void_state(attempt, Judgement((Guilt(4, "aggregate", None, Averaging(4, "V2")),), True))
    assert after == replace(attempt.state, bans=(Ban(1, 0, 4, "aggregate", None, True),),
                            roster=attempt.roster.without([4]))  # fmt: skip
