"""docs/monitoring.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from btard.launcher.assets import asset
from dashboards.parts import TITLES

RULES = yaml.safe_load(asset("deploy", "prometheus", "rules", "alerts.yml").read_text())["groups"][0]["rules"]
PAGE = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text()


def test_every_alert_and_dashboard_is_described() -> None:
    section = PAGE.partition("## Alerts")[2].partition("\n## ")[0]
    named = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert named[2:] == [rule["alert"] for rule in RULES]
    for name, title in TITLES.items():
        assert f"| {title} |" in PAGE
        assert f"/d/btard-{name}" in PAGE


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_line_of_the_runbook(rule: dict[str, Any]) -> None:
    line, _, where = rule["annotations"]["runbook"].partition(" More: ")
    assert where == f"docs/monitoring.md#{rule['alert'].lower()}"
    runbook = PAGE.partition("\n## Runbook\n")[2].partition("\n## ")[0]
    first = runbook.partition(f"\n### {rule['alert']}\n\n")[2].partition("\n\n")[0]
    assert " ".join(first.split()) == line


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == [rule["alert"] for rule in RULES]
