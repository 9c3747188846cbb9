"""Who attacks, when, and with whom."""

from __future__ import annotations

import pytest

from btard.launcher.run.roles import assign, describe, majority_limit
from btard.node.config import Plugin, Role, Schedule
from btard.node.errors import ConfigError


def roles(
    attack: str | None = None, byzantine: int = 0, role: tuple[str, ...] = (), schedule: Schedule | None = None,
    peers: int = 6, allow_majority: bool = False, last: int | None = None,
) -> dict[int, Role]:  # fmt: skip
    when = schedule or Schedule()
    return assign(
        attack, byzantine, role, when, peers=peers, attack_seed=11, allow_majority=allow_majority, steps=900, last=last
    )


def test_the_short_form_takes_the_highest_ids() -> None:
    assigned = roles("noise:variant=small", 2)
    assert sorted(assigned) == [4, 5]
    assert assigned[4] == Role((Plugin("noise", {"variant": "small"}),), Schedule(), (4, 5), 11)


def test_the_long_form_sets_one_peer() -> None:
    assigned = roles(role=("1=sign_flip:scale=10.0,start=300,every=5,stop=400,probability=0.5+lie_checksum",))
    assert assigned[1].attacks == (Plugin("sign_flip", {"scale": 10.0}), Plugin("lie_checksum"))
    assert assigned[1].schedule == Schedule(300, 5, 400, 0.5)


def test_the_last_steps_are_counted_from_the_end() -> None:
    assert roles("noise", 1, last=30)[5].schedule == Schedule(870)
    assert roles("noise", 1, last=900)[5].schedule == Schedule(100), "not before the first step that may be attacked"
    own = roles(role=("3=noise:last=10", "4=noise:start=20"), last=30)
    assert {peer: role.schedule.start for peer, role in own.items()} == {3: 890, 4: 20}


def test_both_forms_together() -> None:
    assigned = roles("noise", 1, ("5=label_flip:start=3",))
    assert {peer: each.attacks[0].name for peer, each in assigned.items()} == {4: "noise", 5: "label_flip"}
    assert assigned[4].accomplices == assigned[5].accomplices == (4, 5)


def test_one_that_does_not_collude_is_alone() -> None:
    assigned = roles(role=("3=noise:collude=false", "4=noise")) | {}
    assert assigned[3].accomplices == (3,)
    assert assigned[4].accomplices == (4,)


def test_nobody_attacks_by_default() -> None:
    assert roles() == {}


@pytest.mark.parametrize(("peers", "limit"), [(2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (16, 7)])
def test_an_honest_majority(peers: int, limit: int) -> None:
    assert majority_limit(peers) == limit


def test_a_majority_of_attackers_is_refused_in_the_words_of_the_catalogue() -> None:
    with pytest.raises(ConfigError) as caught:
        roles("noise", 3)
    expected = "--byzantine 3 of 6 leaves no honest majority; use at most 2, or --allow-majority"
    assert str(caught.value) == expected
    assert sorted(roles("noise", 3, allow_majority=True)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": "nois", "byzantine": 1}, "unknown attack 'nois'; did you mean 'noise'"),
        ({"attack": "noise:variant=loud", "byzantine": 1}, "variant='loud' must be one of"),
        ({"attack": "noise:volume=3", "byzantine": 1}, "attack 'noise' has no parameter 'volume'"),
        ({"attack": "noise"}, "--attack noise has no attacker; add --byzantine 1"),
        ({"byzantine": 1}, "--byzantine 1 has no attack; add --attack NAME"),
        ({"attack": "noise", "byzantine": -1}, "--byzantine -1 must lie between 0 and --peers 6"),
        ({"attack": "noise", "byzantine": 7}, "--byzantine 7 must lie between 0 and --peers 6"),
        ({"role": ("6=noise",)}, "there is no peer 6; ids run from 0 to 5"),
        ({"role": ("-1=noise",)}, "--role -1=noise is not ID=ATTACK"),
        ({"role": ("noise",)}, "--role noise is not ID=ATTACK"),
        ({"role": ("4=noise", "4=noise")}, "peer 4 has a role already"),
        ({"role": ("2=noise", "3=noise", "4=noise")}, "3 attackers (--byzantine and --role) of 6"),
        ({"role": ("4=noise:start=-5",)}, "--role 4=...:start=-5 is too small"),
        ({"role": ("4=noise:start=soon",)}, "start=soon"),
        ({"role": ("4=noise:every=0",)}, "--role 4=...:every=0 is too small"),
        ({"role": ("4=noise:collude=2",)}, "collude=2 must be true or false"),
        ({"schedule": Schedule(every=0)}, "--attack-every 0 is too small"),
        ({"schedule": Schedule(start=-1)}, "--attack-start -1 is too small"),
        ({"schedule": Schedule(start=5, stop=5)}, "--attack-stop 5 must lie after the first attack at 5"),
        ({"schedule": Schedule(probability=0.0)}, "--attack-probability 0.0 must lie above 0"),
        ({"schedule": Schedule(probability=1.01)}, "--attack-probability 1.01 must lie above 0"),
        ({"schedule": Schedule(when="togethr")}, "--attack-when togethr: unknown condition 'togethr'; did you mean"),
        ({"schedule": Schedule(when="together&")}, "there are always, together, beyond_undo"),
        ({"schedule": Schedule(when="always&together")}, "--attack-when always&together: unknown condition 'always'"),
        ({"role": ("4=noise:when=soon",)}, "--role 4=...:when=soon: unknown condition 'soon'"),
        ({"attack": "noise", "byzantine": 1, "last": 0}, "--attack-last 0 must lie between 1 and --steps 900"),
        ({"last": 901}, "--attack-last 901 must lie between 1 and --steps 900"),
        ({"role": ("4=noise:last=1000",)}, "--role 4=...:last=1000 must lie between 1 and --steps 900"),
        ({"role": ("4=noise:last=few",)}, "last=few"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        roles(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_role_in_words() -> None:
    role = roles(role=("4=noise:variant=small,start=7,every=5,stop=90,probability=0.5+lie_checksum",))[4]
    assert describe(role) == "noise:variant=small+lie_checksum from 7 every 5 before 90 with probability 0.5"
    assert describe(roles(role=("4=drop:when=together&beyond_undo",))[4]) == "drop from 100 when together&beyond_undo"
