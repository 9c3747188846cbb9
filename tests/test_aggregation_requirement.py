"""The condition of a rule against the run that asks for it."""

from __future__ import annotations

import pytest

from node.aggregation.requirement import check_strength
from node.config import Plugin, RunConfig
from node.errors import ConfigError

REFUSED = [
    ("f given", RunConfig(rule=Plugin("krum", {"f": 2})), 0,
     "rule 'krum' needs n >= 2f + 3: f=2 takes 7 rows, and --peers 6 with --validators 1 leaves 5; use f=1, --peers 8, "
     "or --allow-weak"),
    ("too few for any f", RunConfig(peers=3, rule=Plugin("krum")), 0,
     "rule 'krum' needs n >= 2f + 3: f=0 takes 3 rows, and --peers 3 with --validators 1 leaves 2; use --peers 4, or "
     "--allow-weak"),
    ("more attackers than it withstands", RunConfig(rule=Plugin("krum")), 2,
     "rule 'krum' (n >= 2f + 3) withstands f=1 of n=5 rows, and 2 of the peers attack; use --peers 8, another rule, or "
     "--allow-weak"),
    ("buckets count as rows", RunConfig(peers=11, rule=Plugin("krum", {"f": 2}), pre=(Plugin("bucketing"),)), 0,
     "f=2 takes 7 rows, and --peers 11 with --validators 1 leaves 5; use f=1, --peers 14"),
    ("bulyan", RunConfig(rule=Plugin("bulyan")), 1,
     "withstands f=0 of n=5 rows, and 1 of the peers attack; use --peers 8"),
    ("an unknown name in front", RunConfig(pre=(Plugin("nm"),)), 0,
     "unknown pre-aggregation 'nm'; did you mean 'nnm'?"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "attackers", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_run_that_the_rule_cannot_withstand_is_refused(run: RunConfig, attackers: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_strength(run, attackers)
    assert words in str(caught.value)


ALLOWED = [
    ("no condition", RunConfig(rule=Plugin("median")), 2),
    ("a majority is enough", RunConfig(rule=Plugin("trimmed_mean")), 2),
    ("as many as it withstands", RunConfig(rule=Plugin("krum")), 1),
    ("weakness is allowed", RunConfig(rule=Plugin("krum", {"f": 2}), allow_weak=True), 2),
    ("enough buckets", RunConfig(peers=14, rule=Plugin("krum", {"f": 2}), pre=(Plugin("bucketing"),)), 2),
    ("validators are never more than a third", RunConfig(peers=4, validators=3, rule=Plugin("krum")), 0),
]


@pytest.mark.parametrize(("run", "attackers"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_run_that_it_withstands_is_not(run: RunConfig, attackers: int) -> None:
    check_strength(run, attackers)
