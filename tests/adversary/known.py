"""Attacks that broke the built system, in the choice language: each line was played against it and did what it says.

The gradient's did so with `block` for `slow`: gradients are computed beside the message loop since."""

from __future__ import annotations

from dataclasses import dataclass

from tests.adversary.cluster import Size


@dataclass(frozen=True, slots=True)
class Known:
    """A line that once broke a promise.

    Args:
        name: of the attack.
        size: of the cluster.
        line: what is done.
        broke: the kind of promise that it broke; `draft`: in a draft of the rules, never in what was built.
    """

    name: str
    size: Size
    line: str
    broke: str


_CAMPS = "near,c,@CLOSE1,hold:5:CLOSE:0123,@COMMIT2,hold:5:COMMIT:0123,<Suspected,give:5:CLOSE:{},susp:5:{},+3"

KNOWN = (
    Known(
        "two_disputes_two_chosen", Size(6, 2),
        _CAMPS.format("01", "23") + ",bad:5:COMMIT:01,trip:4:23:0,@VIEW2,hold:4:VIEW:0123,hold:5:VIEW:0123,"
        "view:4:01:1full,view:5:01:1full,<Resolved,fate:4:23:equivocation0",
        "fork",
    ),
    Known(
        "two_disputes_removal", Size(6, 2),
        _CAMPS.format("01", "23") + ",trip:5:01,fate:4:23:equivocation0", "removal",
    ),
    Known(
        "two_disputes_one_chosen", Size(6, 2),
        _CAMPS.format("0", "123") + ",trip:5:0,fate:4:123:equivocation0", "halt",
    ),
    Known(
        "restart_forgets_the_attempt_before", Size(6, 1),
        "near,c,@CLOSE1,hold:5:CLOSE:01234,<Suspected,give:5:CLOSE:0,+1,kill:0:500,+2,view:5:1234:1second", "fork",
    ),
    Known("four_votes_of_one_peer", Size(4, 1), "near,c,@AGG1,votes:2:01", "removal"),
    Known("away_while_bytes_were_owed", Size(6, 1), "slow0,c,+38,kill:0:3600", "removal"),
    Known(
        "away_twice_while_parts_were_due", Size(6, 1),
        "odd,r,+43,fate:5:01234:malformed,+5,kill:4:500,+13,kill:4:3600", "removal",
    ),
    Known(
        "started_again_twice_in_one_attempt", Size(6, 1),
        "near,c,+17,hold:5:CLOSE:04,+1,hold:5:COMMIT:0,+2,fate:5:12:malformed,+8,hold:5:AGG:234,+2,kill:3:500,"
        "give:5:COMMIT:0,+5,give:5:AGG:2,+9,kill:3:0", "removal",
    ),
    Known(
        "a_bad_close_replayed_before_its_phase", Size(6, 1),
        "slow0,c,+51,hold:5:CLOSE:23,+8,bad:5:CLOSE:2,bad:5:CLOSE:3,+3,susp:1:013,fate:5:04:silent,+1,kill:3:0",
        "liveness",
    ),
    Known(
        "gradient_longer_than_two_deliveries", Size(4, 1),
        "near,c,tg2500,slow0=2500,@CLOSE1,hold:3:CLOSE:012,<Suspected,give:3:CLOSE:0,@VIEW1,hold:3:VIEW:012", "halt",
    ),
    Known(
        "two_outcomes_of_one_peer", Size(4, 1),
        "near,c,+13,view:3:01:1second,fate:3:12:equivocation,+4,fate:3:0:silent", "halt",
    ),
    Known(
        "killed_after_it_went_by_a_liars_other_version", Size(5, 1),
        "near,n,@AGG1,twin:4:AGG:3,+2,kill:3:3600", "removal",
    ),
    Known(
        "closed_by_a_message_that_no_view_shows_n5", Size(5, 2),
        "near,n,@COMMIT2,hold:3:COMMIT:012,trip:4:012,@VIEW2,hold:3:VIEW:012,hold:4:VIEW:012,bad:3:COMMIT:0", "halt",
    ),
    Known(
        "closed_by_a_message_that_no_view_shows_n6", Size(6, 2),
        "near,n,@COMMIT2,hold:4:COMMIT:0123,trip:5:0123,@VIEW2,hold:4:VIEW:0123,hold:5:VIEW:0123,bad:4:COMMIT:0",
        "halt",
    ),
    Known(
        "a_restart_forgets_a_freeze", Size(5, 1),
        "near,n,@REPORT1,hold:4:REPORT:3,@CLOSE1,hold:4:CLOSE:0123,+1,give:4:REPORT:3,>VIEW,kill:0:0,+1,give:4:CLOSE:0,"
        "view:4:123:1second", "fork",
    ),
    Known(
        "a_restart_forgets_a_freeze_after_the_last_close", Size(5, 1),
        "near,n,@REPORT1,hold:4:REPORT:3,@CLOSE1,hold:4:CLOSE:0123,+1,give:4:REPORT:3,>VIEW,give:4:CLOSE:0,+1,kill:0:0,"
        "+1,view:4:123:1second", "fork",
    ),
    Known(
        "a_view_that_came_before_with_a_shorter_chain", Size(5, 2),
        "near,n,+17,hold:4:CLOSE:01,+1,hold:4:COMMIT:01,+1,give:4:CLOSE:1,bad:4:COMMIT:01,+8,view:4:2:1second-,"
        "view:4:01:2second-,bad:4:COMMIT:1", "halt",
    ),
    Known(
        "the_last_close_by_another_than_its_sender", Size(5, 1),
        "odd,n,+45,hold:4:CLOSE:012,+5,kill:0:3600,+19,view:4:0123:1trip", "halt",
    ),
)  # fmt: skip


_DRAFTS = (
    ("a_trigger_of_the_step_before_as_the_rounds_end", "near,c,@COMMIT2,+1,trip:{1}:{2},<OUTCOME,trip:{1}:0-"),
    ("a_dispute_behind_a_frozen_peer", "near,c,@COMMIT2,+1,trip:{1}:0,+1,trip:{1}:{2}-"),
)
"""What halted or forked first drafts of the corrected rules; `{1}`: a puppet, `{2}`: all honest peers."""

KNOWN = (
    *KNOWN,
    *(
        Known(f"{name}_n{size.peers}", size,
              line.format("", size.peers - 1, "".join(map(str, range(size.peers - size.attackers)))), "draft")
        for name, line in _DRAFTS
        for size in (Size(4, 1), Size(5, 2), Size(6, 2))
    ),
)  # fmt: skip


def known(name: str) -> Known:
    """One by its name.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in KNOWN}[name]
