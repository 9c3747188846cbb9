"""`--expect`: what can be asked, and how it is answered."""

from __future__ import annotations

import pytest

from btard.launcher.run.expectations import parse
from btard.node.errors import ConfigError

SUMMARY: dict[str, object] = {
    "outcome": "finished", "steps": 900, "honest_banned": 0, "agreement": True, "final_test_accuracy": 0.98,
    "final_train_loss": None, "bans": [{"step": 107, "peer": 5}, {"step": 110, "peer": 4}],
    "step_seconds": {"median": 0.1}, "detection_steps": {"4": 3}, "accuracy": [[0, 0.1], [50, 0.9]],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "honest_banned==0", " honest_banned == 0 ", "final_test_accuracy>=0.97", "final_test_accuracy<1e0",
        "outcome==finished", 'outcome == "finished"', "outcome!=failed", "agreement==true", "bans==2", "bans.0.peer==5",
        "bans.-1.peer==4", "step_seconds.median<=0.1", "detection_steps.4>2", "final_train_loss==null",
        "accuracy.1.1>0.5", "steps!=1", "agreement!=0",
    ],
)  # fmt: skip
def test_met(text: str) -> None:
    assert parse(text).problem(SUMMARY) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("honest_banned>0", "honest_banned>0: it is 0"),
        ("agreement==1", "agreement==1: it is true"),
        ("final_train_loss<1", "final_train_loss<1: it is null"),
        ("outcome<3", 'outcome<3: it is "finished"'),
        ("bans.2.peer==5", "bans.2.peer==5: there is no bans.2.peer"),
        ("step_seconds.p95<1", "step_seconds.p95<1: there is no step_seconds.p95"),
        ("bans==3", 'bans==3: it is [{"step": 107, "peer": 5}, {"step": 110, "peer": 4}]'),
        ("steps.0==1", "steps.0==1: there is no steps.0"),
    ],
)
def test_not_met(text: str, problem: str) -> None:
    assert parse(text).problem(SUMMARY) == problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not 'field op value'"), ("steps", "is not 'field op value'"), ("steps=1", "is not 'field op value'"),
        ("==1", "is not 'field op value'"), ("steps==", "is not 'field op value'"),
        ("__import__('os')==1", "is not 'field op value'"),
        ("honest_baned==0", "no field 'honest_baned'; did you mean 'honest_banned'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_before_the_run(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in str(caught.value)
