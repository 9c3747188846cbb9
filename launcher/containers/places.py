"""What lies where inside the containers, and who listens on which port. The compose file mounts accordingly."""

from __future__ import annotations

from pathlib import Path

from btard.node.config import Endpoint

ROOT = Path("/btard")
DATA = Path("/opt/data")
CONTROL_PORT, BULK_PORT, METRICS_PORT, TRUTH_PORT = 7400, 7401, 9464, 9465

OWN_SECRETS = ROOT / "secrets"
"""In a node: its configuration (with its role) and its keys; no other node's container mounts this volume."""

OWN_RUN = ROOT / "run"
"""In a node: the volume it writes to."""


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


def secrets_of(root: Path, node: int) -> Path:
    """In `keys`: the volume that only this node mounts."""
    return root / "keys" / str(node)


def written_by(root: Path, node: int) -> Path:
    """In `keys` and `observer`: what a node writes; the directory appears with its first word."""
    return root / "nodes" / str(node) / "nodes" / str(node)


def volume_of(root: Path, node: int) -> Path:
    """In `keys` and `observer`: where the volume that a node writes to is mounted."""
    return root / "nodes" / str(node)


def truth(root: Path) -> Path:
    """In `keys` and `observer`: run.json with the roles, and genesis.json."""
    return root / "truth"


def targets(root: Path) -> Path:
    """In `keys` and Prometheus: what to scrape."""
    return root / "targets"


def grafana(root: Path) -> Path:
    """In `keys` and Grafana: the administrator's password."""
    return root / "grafana"


def runs(root: Path) -> Path:
    """In `observer`: the run directories."""
    return root / "runs"
