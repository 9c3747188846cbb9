"""All expressions of the committed dashboards, and those that not every run has data for, by name.

Tests ask a real Prometheus all others. Reads the JSON only, so it needs no development dependency.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LINK, GPU = "a modelled link", "a GPU"
EXEMPT: dict[tuple[str, str, str], str] = {
    ("network", "Requested and measured delay", "btard_emulated_delay_seconds"): LINK,
    ("network", "Requested and measured delay", "btard_measured_delay_seconds"): LINK,
    ("network", "Requested and measured loss", "btard_emulated_loss_ratio"): LINK,
    ("network", "Requested and measured loss", "btard_measured_loss_ratio"): LINK,
    ("network", "Requested and measured rate", "btard_emulated_rate_bytes_per_second"): LINK,
    ("network", "Requested and measured rate", "btard_measured_rate_bytes_per_second"): LINK,
    ("node", "Memory", "btard_gpu_memory_bytes"): GPU,
}
"""(dashboard, panel, metric): what a run needs to have data for it. Other expressions of the panel are not exempt."""


class Asked(NamedTuple):
    """One expression of one panel."""

    dashboard: str
    panel: str
    expression: str

    @property
    def needs(self) -> str | None:
        """What a run needs to have data for it; None: an attacked run is enough."""
        for (dashboard, panel, metric), needed in EXEMPT.items():
            if (dashboard, panel) == self[:2] and metric in self.expression:
                return needed
        return None


def expressions(folder: Path, variables: Mapping[str, str]) -> Iterator[Asked]:
    """Every expression of every panel, its variables replaced.

    Args:
        folder: with the dashboards' JSON.
        variables: values of `run_id`, `compare_run` and `node`; Grafana's own have defaults.

    Raises:
        KeyError: an expression uses a variable that has no value.
    """
    for path in sorted(folder.glob("*.json")):
        for panel in unfolded(json.loads(path.read_text())):
            for target in panel.get("targets", ()):  # rows have none
                yield Asked(path.stem, panel["title"], replaced(target["expr"], variables))


def unfolded(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A dashboard's rows and panels, in the order in which they stand; a folded row holds its own."""
    return [each for panel in content["panels"] for each in (panel, *panel.get("panels", ()))]


def annotations(folder: Path, variables: Mapping[str, str]) -> Iterator[Asked]:
    """The same for the annotations that Prometheus is asked for."""
    for path in sorted(folder.glob("*.json")):
        for each in json.loads(path.read_text())["annotations"]["list"]:
            if "expr" in each:
                yield Asked(path.stem, each["name"], replaced(each["expr"], variables))


def replaced(expression: str, variables: Mapping[str, str]) -> str:
    """An expression as Grafana sends it."""
    values = {"__rate_interval": "10s", "__range": "15m", "__interval": "1s", **variables}
    return re.sub(r"\$([a-z_]\w*)", lambda match: values[match[1]], expression)
