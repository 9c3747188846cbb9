"""Recording rules and alerts: each has a unit test that notices if it is gone, and names only what is declared."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from btard.launcher.assets import asset
from btard.node.metrics.declarations import METRICS
from tests.monitored import promtool

WHERE = asset("deploy", "prometheus")
RULES = [rule for path in sorted((WHERE / "rules").glob("*.yml"))
         for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]  # fmt: skip
NAMES = [rule.get("record") or rule["alert"] for rule in RULES]


def copy(where: Path) -> Path:
    shutil.copytree(WHERE, where / "prometheus", ignore=shutil.ignore_patterns("targets"))
    return where / "prometheus"


def test_configuration_and_rules_are_valid() -> None:
    assert promtool("check", "config", WHERE / "prometheus.yml")[0] == 0
    code, output = promtool("test", "rules", *sorted((WHERE / "tests").glob("*.yml")))
    assert code == 0, output


def changed(where: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """What promtool says of the unit tests after a change to every rule; they must fail."""
    where = copy(where)
    for path in (where / "rules").glob("*.yml"):
        table = yaml.safe_load(path.read_text())
        for group in table["groups"]:
            for rule in group["rules"]:
                change(rule)
        path.write_text(yaml.safe_dump(table))
    assert promtool("check", "rules", *(where / "rules").glob("*.yml"))[0] == 0
    code, output = promtool("test", "rules", *(where / "tests").glob("*.yml"))
    assert code != 0
    return output


def test_a_rule_that_never_holds_fails_its_unit_test(tmp_path: Path) -> None:
    def never(rule: dict[str, Any]) -> None:
        rule["expr"] = f"({rule['expr']}) and on () vector(1) == 2"

    output = changed(tmp_path, never)
    assert [name for name in NAMES if name not in output] == []


def test_an_alert_that_always_holds_fails_its_unit_test(tmp_path: Path) -> None:
    def always(rule: dict[str, Any]) -> None:
        if "alert" in rule:
            rule |= {"expr": "vector(1)", "for": "0s"}

    output = changed(tmp_path, always)
    silent = re.findall(r"alertname: (\w+), time: \S+\s+exp:\[\s*\]", output)
    assert sorted(set(silent)) == sorted(rule["alert"] for rule in RULES if "alert" in rule), output


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_rule_names_only_declared_metrics(rule: dict[str, Any]) -> None:
    declared = {name for each in METRICS for name in each.series}
    for name in re.findall(r"\bbtard_\w+", re.sub(r"[\w:]*:btard_[\w:]*", "", rule["expr"])):
        assert name in declared, name
    for name in re.findall(r"[\w:]*:btard_[\w:]*", rule["expr"]):
        assert name in NAMES, name


def test_a_missing_promtool_is_loud_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus"):
        promtool("--version")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        promtool("--version")
