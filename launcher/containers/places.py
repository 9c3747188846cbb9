"""What lies where inside the containers, and who listens on which port. The compose file mounts accordingly."""

from __future__ import annotations

from pathlib import Path

from btard.node.config import Endpoint

ROOT = Path("/btard")
DATA = Path("/opt/data")
CONTROL_PORT, BULK_PORT, METRICS_PORT, TRUTH_PORT = 7400, 7401, 9464, 9465

OWN_SECRETS = ROOT / "secrets"
"""In a node: its keys, those of each run in a file of their own; no other container mounts this volume."""

OWN_RUN = ROOT / "run"
"""In a node: the volume it writes to, with its configuration (and role) from `roles`."""

CEREMONY = ROOT / "ceremony"
"""In all nodes, in `roles` and `observer`: proposals and approvals."""


def service(node: int) -> str:
    """The service, and the host name, of a node."""
    return f"node-{node}"


def own_directory(node: int) -> Path:
    """In a node: its directory, laid out as in a run directory."""
    return OWN_RUN / "nodes" / str(node)


def endpoint(node: int) -> Endpoint:
    """Where the others reach a node."""
    return Endpoint(f"tcp://{service(node)}:{CONTROL_PORT}", f"tcp://{service(node)}:{BULK_PORT}")


def listen() -> Endpoint:
    """What a node binds."""
    return Endpoint(f"tcp://0.0.0.0:{CONTROL_PORT}", f"tcp://0.0.0.0:{BULK_PORT}")


def written_by(root: Path, node: int) -> Path:
    """In `roles` and `observer`: what a node writes."""
    return root / "nodes" / str(node) / "nodes" / str(node)


def volume_of(root: Path, node: int) -> Path:
    """In `roles` and `observer`: where the volume that a node writes to is mounted."""
    return root / "nodes" / str(node)


def config_of(root: Path, node: int) -> Path:
    """In `roles`: a node's configuration."""
    return volume_of(root, node) / "config.json"


def ceremony(root: Path) -> Path:
    """In `roles` and `observer`: where the nodes meet."""
    return root / CEREMONY.name


def truth(root: Path) -> Path:
    """In `roles` and `observer`: run.json with the roles."""
    return root / "truth"


def targets(root: Path) -> Path:
    """In `roles` and Prometheus: what to scrape."""
    return root / "targets"


def grafana(root: Path) -> Path:
    """In `roles` and Grafana: the administrator's password."""
    return root / "grafana"


def runs(root: Path) -> Path:
    """In `observer`: the run directories."""
    return root / "runs"
