"""The ports on this machine that the pages of a cluster, Prometheus and Grafana, are published on."""

from __future__ import annotations

import os
from collections.abc import Mapping

from btard.launcher.run.plan import bind_problem
from btard.node.errors import BackendError


def check() -> None:
    """Refuse ports of the pages that something listens on here; a remote engine says so itself.

    Raises:
        BackendError: a port is in use, or is none.
    """
    for name, port in zip(("PROMETHEUS_PORT", "GRAFANA_PORT"), of(os.environ), strict=True):
        problem = bind_problem(port)
        if problem is not None:
            raise BackendError(f"port {port} cannot be bound ({problem}); set {name} to a free one, or 0 for any")


def of(environment: Mapping[str, str]) -> tuple[int, int]:
    """The ports on this machine that Prometheus and Grafana are published on (0: the engine chooses).

    Raises:
        BackendError: one of the variables is no port.
    """
    return _port(environment, "PROMETHEUS_PORT", 9090), _port(environment, "GRAFANA_PORT", 3000)


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise BackendError(f"{name}={text} is no port; use 0 to 65535, 0 for any")
    return int(text)
