"""The condition of a rule against the run that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from btard.node.aggregation.registry import RULES, pre_aggregation
from btard.node.aggregation.resilience import rule_for
from btard.node.aggregation.strength import Condition
from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError

REFUSED = [
    ("f given", RunConfig(rule=Plugin("krum", {"f": 2})), 0,
     "rule 'krum' needs n >= 2f + 3: f=2 takes 7 rows, and --peers 6 with --validators 1 leaves 5; use f=1, --peers 7, "
     "or --allow-weak"),
    ("too few for any f", RunConfig(peers=3, rule=Plugin("krum"), validators_contribute="off"), 0,
     "rule 'krum' needs n >= 2f + 3: f=0 takes 3 rows, and --peers 3 with --validators 1 leaves 2; use --peers 4, or "
     "--allow-weak"),
    ("more attackers than it withstands", RunConfig(rule=Plugin("krum")), 2,
     "rule 'krum' (n >= 2f + 3) withstands f=1 of n=5 rows, and 2 of the peers attack; use --peers 7, another rule, or "
     "--allow-weak"),
    ("buckets count as rows", RunConfig(peers=11, rule=Plugin("krum", {"f": 2}), pre=(Plugin("bucketing"),)), 0,
     "f=2 takes 7 rows, and --peers 11 with --validators 1 leaves 6; use f=1, --peers 13"),
    ("bulyan", RunConfig(rule=Plugin("bulyan")), 1,
     "withstands f=0 of n=5 rows, and 1 of the peers attack; use --peers 7"),
    ("no roster is large enough", RunConfig(rule=Plugin("krum", {"f": 1000})), 0,
     "f=1000 takes 2003 rows, and --peers 6 with --validators 1 leaves 5; use f=1, or --allow-weak"),
    ("an unknown name in front", RunConfig(pre=(Plugin("nm"),)), 0,
     "unknown pre-aggregation 'nm'; did you mean 'nnm'?"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "attackers", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_run_that_the_rule_cannot_withstand_is_refused(run: RunConfig, attackers: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rule_for(run, attackers)
    assert words in str(caught.value)


ALLOWED = [
    ("no condition", RunConfig(rule=Plugin("median")), 2),
    ("a majority is enough", RunConfig(rule=Plugin("trimmed_mean")), 2),
    ("as many as it withstands", RunConfig(rule=Plugin("krum")), 1),
    ("weakness is allowed", RunConfig(rule=Plugin("krum", {"f": 2}), allow_weak=True), 2),
    ("enough buckets", RunConfig(peers=14, rule=Plugin("krum", {"f": 2}), pre=(Plugin("bucketing"),)), 2),
    ("validators of three contribute", RunConfig(peers=3, rule=Plugin("krum")), 0),
    ("where asked for, those of six too", RunConfig(rule=Plugin("bulyan"), validators_contribute="on"), 0),
    ("validators are never more than a third", RunConfig(peers=4, validators=3, rule=Plugin("krum")), 0),
]


@pytest.mark.parametrize(("run", "attackers"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_run_that_it_withstands_is_not(run: RunConfig, attackers: int) -> None:
    rule_for(run, attackers)


SUBSETS = [
    ("all peers contribute where nobody validates", RunConfig(peers=24, rule=Plugin("mda")), 0,
     "rule 'mda' looks at all 2496144 subsets of 13 of 24 rows (f=11), more than the 200000 it may; use f=6, "
     "--peers 20, or another rule"),
    ("f given", RunConfig(peers=24, rule=Plugin("mda", {"f": 7})), 2,
     "rule 'mda' looks at all 346104 subsets of 17 of 24 rows (f=7), more than the 200000 it may; use f=6, --peers 22, "
     "or another rule"),
    ("only another rule withstands so many", RunConfig(peers=24, rule=Plugin("smea")), 10,
     "rule 'smea' looks at all 2496144 subsets of 13 of 24 rows (f=11), more than the 200000 it may; use another rule"),
    ("weakness makes no subsets fewer", RunConfig(peers=24, rule=Plugin("smea"), allow_weak=True), 0,
     "looks at all 2496144 subsets"),
    ("rows after a pre-aggregation", RunConfig(peers=24, rule=Plugin("mda"), pre=(Plugin("nnm"),)), 0,
     "looks at all 2496144 subsets"),
    ("a number with many digits", RunConfig(peers=256, rule=Plugin("mda")), 0,
     "looks at about 10^75 subsets of 129 of 256 rows (f=127), more than the 200000 it may; use f=2, --peers 20, or"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "attackers", "words"), [row[1:] for row in SUBSETS], ids=[row[0] for row in SUBSETS])
def test_more_subsets_than_can_be_looked_at_are_refused(run: RunConfig, attackers: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rule_for(run, attackers)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["mda", "smea"])
def test_what_a_refusal_suggests_is_accepted(name: str) -> None:
    for smaller in (
        RunConfig(peers=24, rule=Plugin(name, {"f": 6})),
        RunConfig(peers=20, rule=Plugin(name)),
        RunConfig(peers=40, rule=Plugin(name), pre=(Plugin("bucketing"),)),
    ):
        rule_for(smaller)


def test_every_rule_with_such_a_limit_says_so() -> None:
    """The limit itself is met by 24 rows, whoever asks: no other rule raises there."""
    raising = set()
    for entry in RULES:
        try:
            entry.target(torch.zeros(24, 1))
        except ValueError as error:
            assert "subsets" in str(error)
            raising.add(entry.name)
    assert raising == {entry.name for entry in RULES if entry.facts["exhaustive"]}


CLAIMS = [
    ("none", lambda rows, parameters: 0, "says that it makes 0 rows of 5, not 1 to 65536"),
    ("fewer than none", lambda rows, parameters: -rows, "says that it makes -5 rows of 5"),
    ("a flood", lambda rows, parameters: 10**12, "says that it makes 1000000000000 rows of 5"),
    ("never more than one", lambda rows, parameters: 1,
     "f=1 takes 5 rows, and --peers 6 with --validators 1 leaves 1; use --allow-weak"),
]  # fmt: skip


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(("claim", "words"), [row[1:] for row in CLAIMS], ids=[row[0] for row in CLAIMS])
def test_a_plug_in_may_say_anything_of_its_rows(claim: Callable[[int, Mapping[str, object]], int], words: str) -> None:
    @pre_aggregation("odd", source="this test", rows=claim)
    def odd(inputs_NP: torch.Tensor) -> torch.Tensor:
        return inputs_NP

    with pytest.raises(ConfigError) as caught:
        rule_for(RunConfig(rule=Plugin("krum", {"f": 1}), pre=(Plugin("odd"),)))
    assert words in str(caught.value)


def test_a_condition_that_always_holds_admits_no_more_than_all_rows() -> None:
    always = Condition("n >= 0", lambda f: 0)
    assert (always.most(5), always.lowered(None, 5, False), always.lowered(9, 5, False)) == (5, 5, 5)
    assert always.lowered(None, 5, True) == 2
