"""Writes compose files: the cluster for any number of nodes, and the overlay that gives it a GPU."""

from __future__ import annotations

from btard.launcher import templates
from btard.launcher.containers import places, roles
from btard.launcher.options.table import OPTIONS

PROMETHEUS_IMAGE, GRAFANA_IMAGE = "prom/prometheus:v2.53.3", "grafana/grafana:11.6.1"
_FIXED = frozenset({"peers", "backend", "base_port", "run_dir", "data_dir", "download", "expect", "timeout", "monitor",
                    "imports", "init"})  # fmt: skip
"""Options that the compose file decides, or that concern a launcher outside."""


def compose(peers: int, built: bool = False) -> str:
    """compose.yaml for a cluster of `peers` nodes, from its template in launcher/templates.

    Args:
        peers: how many nodes.
        built: the image is here, and nothing builds it.
    """
    return templates.write(
        "compose.yaml", peers=peers, nodes=range(peers), service=places.service, root=places.ROOT, built=built,
        variables=[option.variable for option in OPTIONS if option.field not in _FIXED],
        first_attack=roles.FIRST_ATTACK, truth_port=places.TRUTH_PORT,
        prometheus=PROMETHEUS_IMAGE, grafana=GRAFANA_IMAGE,
    )  # fmt: skip


def gpu(peers: int) -> str:
    """The overlay for a machine with an NVIDIA GPU."""
    return templates.write("compose.gpu.yaml", peers=peers, nodes=range(peers), service=places.service)


def image(device: str) -> str:
    """The image whose torch computes on `device`."""
    return f"btard:{device}"


def nodes(peers: int) -> list[str]:
    """The services of the nodes."""
    return [places.service(node) for node in range(peers)]
