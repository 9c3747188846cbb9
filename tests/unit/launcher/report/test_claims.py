"""The report's claims: what each verdict takes, on hand-made rows of the paper's plan under nine draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from btard.launcher.report import claims, sweep_page
from btard.launcher.report.claims import Claim
from btard.launcher.report.inference import CONTRADICTED, SUPPORTED, UNDECIDED
from btard.launcher.report.sweep_data import SweepData, attack_of
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep.rows import Curves, Row
from tests.sweeping import CLEAN_ACCURACY, curves, plan, row, swept

AGREES = {
    "noise (aggressive)": -0.001, "label_shuffle (aggressive)": -0.001, "sign_flip (aggressive)": -0.002,
    "label_flip (aggressive)": -0.003, "constant_direction (aggressive)": -0.004, "noise (mild)": -0.0002,
    "label_shuffle (mild)": 0.0003, "sign_flip (mild)": -0.0001, "label_flip (mild)": -0.0004,
    "constant_direction (mild)": -0.0005,
}  # fmt: skip
"""Final accuracy less clean: with these every claim is supported that can be beside the others."""
DRAWS = 9
SPREAD = 1e-5
"""Between the differences of one draw and those of the next."""
BANS, SPEED, FINAL, FLIPS = "BTARD bans", "The speed of convergence", "the final accuracy", "label flipping"
CONSTANT, MILDER, MILD, SMALL = "the Constant Direction", "the newly added", "nearly indisting", "illustrate how"
ALL = (BANS, SPEED, FINAL, FLIPS, CONSTANT, MILDER, MILD, SMALL)
MILD_ONES = tuple(name for name in AGREES if "mild" in name)


def _name(made: Row) -> str:
    return "clean" if made.labels["scheme"] == "clean" else f"{attack_of(made)} ({made.labels['scheme']})"


def paper(
    *, apart: Mapping[str, float | None] | None = None, without: tuple[str, ...] = (),
    late: Mapping[str, int] | None = None, given: Mapping[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, str] | None = None,
) -> SweepData:  # fmt: skip
    """The paper's quick plan under `DRAWS` protocol seeds.

    Args:
        apart: final accuracy less clean by name, instead of those of `AGREES`; None: not known.
        without: names of runs that are not there.
        late: how many evaluations since the attack are 0.02 below clean.
        given: fields of rows by name.
        options: of the command line, which replace the plan's.
    """
    rows, drawn = [], {}
    for made in plan("paper", True, **({"protocol_seed": f"1..{DRAWS}"} | dict(options or {}))):
        name = _name(made)
        if name in without:
            continue
        difference = ({"clean": 0.0} | AGREES | dict(apart or {})).get(name, 0.0)
        off = SPREAD * (made.options["protocol_seed"] - DRAWS // 2) if made.byzantine_peers else 0.0
        final = None if difference is None else CLEAN_ACCURACY + difference * (1 + off / 0.001)
        made = msgspec.structs.replace(made, final_test_accuracy=final, **(given or {}).get(name, {}))
        rows.append(made)
        drawn[made.cell] = _slowed(made, (late or {}).get(name, 0))
    return swept(rows, drawn)


def _slowed(made: Row, count: int) -> Curves:
    plain = curves(made)
    since = [step for step, _ in plain.accuracy if made.attacked_from is not None and step >= made.attacked_from]
    points = [(step, value - 0.02 * (step in since[:count])) for step, value in plain.accuracy]
    return msgspec.structs.replace(plain, accuracy=points)


def claim(sweep: SweepData, about: str) -> Claim:
    """The one claim whose quote begins like that."""
    (found,) = (each for each in claims.judge(sweep) if each.quote.startswith(about))
    return found


FREE = {"undetected": 1, "bans": 1, "detection_steps": [4]}
CONSTANT_FAR = {"constant_direction (aggressive)": -0.02}
FAR = {"constant_direction (aggressive)": -0.06}
HIGHER = {name: -value for name, value in AGREES.items() if "aggressive" in name}
FAST = tuple(name for name in AGREES if "aggressive" in name)
FEW = {"protocol_seed": "1..3", "seed": "0..2"}
"""Nine runs of each kind, of three draws."""
NOTHING = dict.fromkeys([*AGREES, "clean"], None)


@pytest.mark.parametrize(
    ("about", "world", "verdict"),
    [
        (BANS, {}, SUPPORTED),
        (BANS, {"given": {name: {"last_ban": 100 + 32 - 1} for name in FAST}}, SUPPORTED),
        (BANS, {"given": {name: {"last_ban": 100 + 33 - 1} for name in FAST}}, UNDECIDED),
        (BANS, {"given": {name: {"last_ban": 100 + 34 - 1} for name in FAST}}, CONTRADICTED),
        (BANS, {"given": {"noise (mild)": {"honest_banned": 1}}}, CONTRADICTED),
        (BANS, {"given": {"noise (aggressive)": FREE}}, CONTRADICTED),
        (BANS, {"given": {"noise (mild)": FREE}}, CONTRADICTED),
        (BANS, {"given": {"noise (aggressive)": FREE}, "options": {"steps": "110"}}, UNDECIDED),
        (BANS, {"given": {"noise (mild)": FREE}, "options": {"steps": "130"}}, UNDECIDED),
        (BANS, {"given": {"noise (mild)": FREE}, "options": {"attack_stop": "110"}}, UNDECIDED),
        (BANS, {"options": {"validators": "0"}}, UNDECIDED),
        (BANS, {"options": {"attack_every": "2"}}, UNDECIDED),
        (BANS, {"options": FEW}, UNDECIDED),
        (BANS, {"without": ("noise (mild)",)}, UNDECIDED),
        (SPEED, {}, SUPPORTED),
        (SPEED, {"late": {"sign_flip (mild)": 1}}, SUPPORTED),
        (SPEED, {"late": {"sign_flip (mild)": 2}}, UNDECIDED),
        (SPEED, {"late": {"sign_flip (mild)": 3}}, CONTRADICTED),
        (SPEED, {"late": {"sign_flip (mild)": 3}, "without": ("noise (mild)",)}, CONTRADICTED),
        (SPEED, {"late": {"sign_flip (mild)": 3}, "options": FEW}, UNDECIDED),
        (SPEED, {"without": ("noise (mild)",)}, UNDECIDED),
        (SPEED, {"without": ("clean",)}, UNDECIDED),
        (SPEED, {"options": {"eval_every": "1000"}}, UNDECIDED),
        (SPEED, {"options": {"eval_every": "800"}}, UNDECIDED),
        (SPEED, {"options": FEW}, UNDECIDED),
        (FINAL, {}, SUPPORTED),
        (FINAL, {"apart": FAR}, CONTRADICTED),
        (FINAL, {"apart": HIGHER}, CONTRADICTED),
        (FINAL, {"apart": {"constant_direction (aggressive)": 0.007}}, UNDECIDED),
        (FINAL, {"apart": NOTHING}, UNDECIDED),
        (FINAL, {"without": ("clean",)}, UNDECIDED),
        (FINAL, {"without": ("noise (mild)",)}, UNDECIDED),
        (FINAL, {"without": ("noise (mild)",), "apart": FAR}, CONTRADICTED),
        (FINAL, {"options": FEW}, UNDECIDED),
        (FLIPS, {}, SUPPORTED),
        (FLIPS, {"apart": {"label_flip (mild)": 0.0, "sign_flip (mild)": -0.001}}, CONTRADICTED),
        (FLIPS, {"apart": {"label_flip (aggressive)": -0.002}}, UNDECIDED),
        (FLIPS, {"apart": {"label_flip (aggressive)": -0.0019}}, CONTRADICTED),
        (FLIPS, {"without": MILD_ONES}, UNDECIDED),
        (FLIPS, {"apart": NOTHING}, UNDECIDED),
        (FLIPS, {"options": FEW}, UNDECIDED),
        (CONSTANT, {"apart": CONSTANT_FAR}, SUPPORTED),
        (CONSTANT, {}, CONTRADICTED),
        (CONSTANT, {"apart": CONSTANT_FAR, "without": ("noise (aggressive)",)}, UNDECIDED),
        (CONSTANT, {"without": ("constant_direction (aggressive)",)}, UNDECIDED),
        (CONSTANT, {"apart": NOTHING}, UNDECIDED),
        (CONSTANT, {"apart": CONSTANT_FAR, "options": FEW}, UNDECIDED),
        (MILDER, {}, SUPPORTED),
        (MILDER, {"apart": {"noise (aggressive)": -0.0025}}, CONTRADICTED),
        (MILDER, {"apart": {"noise (aggressive)": 0.0025}}, CONTRADICTED),
        (MILDER, {"without": ("noise (aggressive)",)}, UNDECIDED),
        (MILDER, {"options": {"attack": "noise:variant=small,label_shuffle,sign_flip,label_flip"}}, UNDECIDED),
        (MILDER, {"options": FEW}, UNDECIDED),
        (MILD, {}, SUPPORTED),
        (MILD, {"apart": {"sign_flip (mild)": -0.006}}, CONTRADICTED),
        (MILD, {"apart": {"sign_flip (mild)": 0.006}}, CONTRADICTED),
        (MILD, {"without": ("sign_flip (mild)",)}, UNDECIDED),
        (MILD, {"without": ("clean",)}, UNDECIDED),
        (MILD, {"options": FEW}, UNDECIDED),
        (SMALL, {}, CONTRADICTED),
        (SMALL, {"options": {"tau": "1e6"}}, UNDECIDED),
        (SMALL, {"options": {"rule": "mean"}}, UNDECIDED),
        (SMALL, {"options": {"task": "quadratic"}}, UNDECIDED),
        (SMALL, {"options": {"attack": "noise:variant=small,sign_flip"}}, UNDECIDED),
    ],
)
def test_verdicts(about: str, world: dict[str, Any], verdict: str) -> None:
    found = claim(paper(**world), about)
    assert found.verdict == verdict, found.words
    assert f"{found.reason} {found.words}".strip().endswith("."), "every verdict has its reason"


def test_what_too_few_draws_leave_open_is_said() -> None:
    found = claim(paper(options=FEW), FLIPS)
    assert found.reason == "3 draws; no interval can exclude anything with fewer than 7."
    assert [part.effect and (part.effect.runs, len(part.effect.by_draw)) for part in found.parts] == [(9, 3), (9, 3)]
    assert claim(paper(), FLIPS).reason == "2 of 2 intervals lie where the claim says."
    mixed = claim(paper(apart={"label_flip (aggressive)": -0.0019}), FLIPS).reason
    assert mixed == "1 of 2 intervals lie where the claim says; 1 of 2 intervals lie elsewhere."


def test_whatever_is_missing_nothing_holds_and_all_claims_are_told() -> None:
    sweep = paper(without=tuple(name for name in AGREES if name != "noise (mild)"), apart=NOTHING)
    judged = claims.judge(sweep)
    assert [each.verdict for each in judged if not each.quote.startswith(SMALL)] == [UNDECIDED] * (len(ALL) - 1)
    assert all(any(each.quote.startswith(about) for each in judged) for about in ALL)
    assert claims.judge(paper(without=tuple(AGREES))) == []


def test_words_name_what_is_missing() -> None:
    words = claim(paper(without=("noise (mild)", "sign_flip (aggressive)")), FINAL).words
    assert "a final accuracy beside a clean run of the same seed: sign_flip (aggressive), noise (mild)." in words
    assert "all attacks" in claim(paper(without=("clean",)), FINAL).words


def test_attackers_that_are_left_had_time_or_had_not() -> None:
    left = {"noise (mild)": FREE}
    assert "9 of the runs with attackers left went on for longer" in claim(paper(given=left), BANS).words
    assert "too short" in claim(paper(given=left, options={"steps": "130"}), BANS).words


def test_numbers_follow_the_options() -> None:
    assert "out after 10.9 steps on average, 33 in 99 of 100" in claim(paper(), BANS).words
    assert "out after 10.1 steps on average, 29 in 99 of 100" in claim(paper(options={"on_ban": "remove"}), BANS).words
    other = claim(paper(options={"validate_every": "2"}), BANS).words
    assert " in 99 of 100" in other
    assert "10.9" not in other
    assert "one in 50 steps, 17 from the attack on" in claim(paper(), SPEED).words
    assert "one in 100 steps, 5 from the attack on" in claim(
        paper(options={"eval_every": "100", "attack_start": "500"}), SPEED
    ).words  # fmt: skip
    assert "tau 5) leaves 12 of it" in claim(paper(), SMALL).words
    assert "tau 1) leaves 4 of it" in claim(paper(options={"tau": "1", "peers": "16"}), SMALL).words


CLEAN = Experiment(byzantine=0, steps=200, eval_every=50)
ATTACKED = Experiment(byzantine=2, attack="noise", steps=200, eval_every=50)


def test_a_run_is_compared_to_the_clean_run_of_its_seed_and_defence() -> None:
    def with_(base: Experiment, accuracy: float | None, **options: Any) -> Row:
        return row(msgspec.structs.replace(base, **options), final_test_accuracy=accuracy)

    clean = [with_(CLEAN, 0.90), with_(CLEAN, 0.80, seed=1), with_(CLEAN, 0.70, tau=1.0), with_(CLEAN, None, seed=2)]
    attacked = [
        with_(ATTACKED, 0.85), with_(ATTACKED, 0.85, seed=1), with_(ATTACKED, 0.85, tau=1.0, on_ban="reform"),
        with_(ATTACKED, 0.85, seed=2), with_(ATTACKED, 0.85, seed=3), with_(ATTACKED, None),
    ]  # fmt: skip
    sweep = swept([*attacked, *clean])
    assert [sweep.clean_of(made) for made in attacked] == [*clean, None, clean[0]]
    found = [sweep.difference(made) for made in attacked]
    assert found == [pytest.approx(-0.05), pytest.approx(0.05), pytest.approx(0.15), None, None, None]


@pytest.mark.parametrize(
    ("points", "behind", "compared"),
    [
        ([(0, 0.1), (50, 0.1), (100, 0.1), (150, 0.1), (200, 0.1)], 3, 3),
        ([(0, 0.1), (100, 0.895), (150, 0.88), (200, 0.95)], 1, 3),
        ([(0, 0.1), (50, 0.1)], None, 0),
        ([(99, 0.1), (101, 0.1)], None, 0),
        ([], None, 0),
    ],
    ids=["all", "one", "before the attack", "at other steps", "none"],
)
def test_evaluations_behind_the_clean_run(
    points: list[tuple[int, float]], behind: int | None, compared: int
) -> None:  # fmt: skip
    clean, attacked = row(CLEAN), row(ATTACKED)
    sweep = swept([clean, attacked], {clean.cell: curves(clean, 0.9), attacked.cell: Curves([], points, [])})
    assert (sweep.behind(attacked), sweep.compared(attacked)) == (behind, compared)
    assert sweep.behind(clean) is None, "nobody attacks there"
    assert swept([attacked]).behind(attacked) is None, "no clean run"


def test_runs_of_several_settings_decide_nothing() -> None:
    """The same keys give other draws where validators contribute: a mean over both would be of neither."""
    both = paper(options={"validators_contribute": "on,off"})
    assert claims.judge(both) == [] and claims.mixed(both) == ["validators_contribute"]
    page = sweep_page.render(both)
    assert "these runs have several values of --validators-contribute: nothing is decided" in page
    assert 'id="figure4"' not in page and "Finals beside" not in page
    assert claims.mixed(paper(options={"validators_contribute": "on"})) == []
    assert claims.mixed(swept(plan("contribute", False))) == [], "a control stands beside it"
