"""Writes compose files: the cluster for any number of nodes, and the overlay that gives it a GPU."""

from __future__ import annotations

from btard.launcher.containers import keys, places
from btard.launcher.options.table import OPTIONS

PROMETHEUS_IMAGE, GRAFANA_IMAGE = "prom/prometheus:v2.53.3", "grafana/grafana:11.6.1"
_FIXED = frozenset(
    {
        "peers",
        "backend",
        "base_port",
        "run_dir",
        "data_dir",
        "download",
        "expect",
        "timeout",
        "monitor",
        "imports",
        "init",
    }
)
"""Options that the compose file decides, or that concern a launcher outside."""

_HEAD = """\
# The cluster: {peers} nodes, the keys they need, the observer that scores them, Prometheus and Grafana.
# Written by `btard-launch plan -n {peers} --emit compose`; change launcher/containers/emit.py, not this file.
#
#   docker compose up                        two of the nodes lie; http://127.0.0.1:3000 shows it, without a login
#   docker compose run --rm verify           checks the last run, in the image that computed it
#   docker compose cp observer:/btard/runs . fetches the run directories
#   docker compose down -v                   leaves nothing behind
#
# Settings: cp .env.example .env
"""

_COMMON = """
x-logging: &logging
  driver: json-file
  options: {max-size: 10m, max-file: "3"}

x-hardened: &hardened
  read_only: true
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  init: true
  restart: "no"
  tmpfs: ["/tmp:size=64m,mode=1777"]
  logging: *logging

x-btard: &btard
  <<: *hardened
  image: "btard:${TORCH:-cpu}"
  pull_policy: never  # it is in no registry: `keys` builds it

x-node: &node
  <<: *btard
  networks: [mesh]
  depends_on:
    keys: {condition: service_completed_successfully}
  stop_grace_period: 15s
  deploy:
    resources:
      limits: {cpus: "${NODE_CPUS:-0}", memory: "${NODE_MEMORY:-2g}", pids: 256}
"""

_SERVICES_AROUND = """\

  # The only one that knows who attacks, once the keys are made. It reads what the nodes write and runs no node.
  observer:
    <<: *btard
    command: [python, -m, btard.launcher.containers.observer]
    cpu_shares: 256  # the nodes go first
    healthcheck:
      test: [CMD, python, -S, -c, "import socket; socket.create_connection(('127.0.0.1', @truth@), 3)"]
      interval: 3s
      timeout: 30s  # the nodes go first
      start_period: 300s
    networks: [watch]
    dns_opt: ["timeout:1", "attempts:1"]  # it asks for Grafana's name, which may not be there
    depends_on:
      keys: {condition: service_completed_successfully}
    stop_grace_period: 30s
    deploy:
      resources:
        limits: {cpus: "${NODE_CPUS:-0}", memory: "${NODE_MEMORY:-2g}", pids: 256}
    volumes:
      - truth:/btard/truth:ro
      - runs:/btard/runs
      - grafana-password:/btard/grafana:ro
@observed@

  # docker compose run --rm verify [runs/NAME]: recomputes where the run computed; the last run if none is named.
  verify:
    <<: *btard
    profiles: [verify]
    entrypoint: [btard-launch, verify]
    healthcheck: {disable: true}
    network_mode: none
    deploy:
      resources:
        limits: {memory: "${NODE_MEMORY:-2g}", pids: 256}
    volumes:
      - runs:/btard/runs:ro

  prometheus:
    <<: *hardened
    image: @prometheus@
    attach: false  # its log is its own
    command:
      - --config.file=/etc/prometheus/prometheus.yml
      - --storage.tsdb.path=/prometheus
      - --storage.tsdb.retention.time=15d
    networks: [mesh, watch]
    ports: ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]
    depends_on:
      keys: {condition: service_completed_successfully}
    healthcheck:
      test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:9090/-/ready"]
      interval: 5s
      timeout: 5s
      start_period: 30s
    stop_grace_period: 15s
    deploy:
      resources:
        limits: {memory: 1g, pids: 256}
    volumes:
      - ./deploy/prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro
      - ./deploy/prometheus/rules:/etc/prometheus/rules:ro
      - targets:/etc/prometheus/targets:ro
      - prometheus:/prometheus

  grafana:
    <<: *hardened
    image: @grafana@
    attach: false
    networks: [watch]
    ports: ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]
    depends_on:
      keys: {condition: service_completed_successfully}
      prometheus: {condition: service_started}
    environment:
      GF_SECURITY_ADMIN_PASSWORD__FILE: /btard/grafana/password
      GF_AUTH_ANONYMOUS_ENABLED: "true"
      GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: /var/lib/grafana/dashboards/overview.json
      GF_ANALYTICS_REPORTING_ENABLED: "false"
      GF_ANALYTICS_CHECK_FOR_UPDATES: "false"
    healthcheck:
      test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:3000/api/health"]
      interval: 5s
      timeout: 5s
      start_period: 60s
    stop_grace_period: 15s
    deploy:
      resources:
        limits: {memory: 1g, pids: 256}
    volumes:
      - ./deploy/grafana/provisioning:/etc/grafana/provisioning:ro
      - ./dashboards:/var/lib/grafana/dashboards:ro
      - grafana-password:/btard/grafana:ro
      - grafana:/var/lib/grafana
"""

_NETWORKS = """
networks:
  mesh: {internal: true}  # the nodes' own: no way out, and no way to the observer
  watch: {}
"""

_GPU = """\
# Gradients on the GPU: docker compose -f compose.yaml -f deploy/compose.gpu.yaml up --build
# Written by `btard-launch plan -n {peers} --emit compose-gpu`. The engine needs NVIDIA's container toolkit; without a
# GPU nothing starts.

x-gpu: &gpu
  image: btard:cuda
  deploy:
    resources:
      reservations:
        devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]

services:
  keys:
    <<: *gpu
    build:
      args: {{TORCH: cuda}}
    environment: [BTARD_DEVICE=cuda]
  observer: *gpu
  verify: *gpu
"""


def compose(peers: int, built: bool = False) -> str:
    """compose.yaml for a cluster of `peers` nodes.

    Args:
        peers: how many nodes.
        built: the image is here, and nothing builds it.
    """
    observed = "\n".join(f"      - run-{node}:{places.ROOT}/nodes/{node}:ro" for node in range(peers))
    around = _SERVICES_AROUND.replace("@observed@", observed)
    around = (
        around.replace("@truth@", str(places.TRUTH_PORT))
        .replace("@prometheus@", PROMETHEUS_IMAGE)
        .replace("@grafana@", GRAFANA_IMAGE)
    )
    own = "".join(_node(node) for node in range(peers))
    services = _keys(peers, built) + own + around
    return f"{_HEAD.format(peers=peers)}{_COMMON}\nservices:\n{services}{_NETWORKS}{_volumes(peers)}"


def gpu(peers: int) -> str:
    """The overlay for a machine with an NVIDIA GPU."""
    return _GPU.format(peers=peers) + "".join(f"  {places.service(node)}: *gpu\n" for node in range(peers))


def image(device: str) -> str:
    """The image whose torch computes on `device`."""
    return f"btard:{device}"


def nodes(peers: int) -> list[str]:
    """The services of the nodes."""
    return [places.service(node) for node in range(peers)]


_BUILD = """\
    pull_policy: build  # at every `up`: seconds where nothing has changed
    build:
      context: .
      args: {TORCH: "${TORCH:-cpu}"}
"""


def _keys(peers: int, built: bool) -> str:
    """The one-shot service that hands out keys and roles; the only one that sees the settings."""
    settings = "\n".join(f"      - {option.variable}" for option in OPTIONS if option.field not in _FIXED)
    volumes = "\n".join(
        f"      - secrets-{node}:{places.ROOT}/keys/{node}\n      - run-{node}:{places.ROOT}/nodes/{node}"
        for node in range(peers)
    )
    return f"""\
  # Runs once: decides who attacks and gives each node its own keys and role in a volume that no other node mounts.
  keys:
    <<: *btard
{"" if built else _BUILD}\
    command: [python, -m, btard.launcher.containers.keys]
    healthcheck: {{disable: true}}
    network_mode: none
    environment:  # without BTARD_ATTACK and BTARD_ROLE {keys.FIRST_ATTACK}, by at most two; empty: no attack
      - BTARD_PEERS={peers}
{settings}
    volumes:
      - truth:/btard/truth
      - targets:/btard/targets
      - grafana-password:/btard/grafana
{volumes}
"""


def _node(node: int) -> str:
    return f"""
  {places.service(node)}:
    <<: *node
    volumes:
      - secrets-{node}:/btard/secrets:ro
      - run-{node}:/btard/run
"""


def _volumes(peers: int) -> str:
    own = "".join(f"  secrets-{node}:\n  run-{node}:\n" for node in range(peers))
    return f"\nvolumes:\n{own}  truth:\n  runs:\n  targets:\n  grafana-password:\n  grafana:\n  prometheus:\n"
