"""docs/monitoring.md names what there is."""

from __future__ import annotations

from pathlib import Path

import yaml

from dashboards.parts import TITLES
from launcher.assets import asset

PAGE = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text()


def test_every_alert_and_dashboard_is_described() -> None:
    rules = yaml.safe_load(asset("deploy", "prometheus", "rules", "alerts.yml").read_text())["groups"][0]["rules"]
    section = PAGE.partition("## Alerts")[2].partition("\n## ")[0]
    named = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert named[2:] == [rule["alert"] for rule in rules]
    for name, title in TITLES.items():
        assert f"| {title} |" in PAGE
        assert f"/d/btard-{name}" in PAGE
