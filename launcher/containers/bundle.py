"""A run as the `roles` service hands it out: to each node its own configuration and role, to the observer the truth."""

from __future__ import annotations

import secrets as system_random
import shutil
from pathlib import Path

import msgspec

from btard.launcher.containers import places
from btard.launcher.files import as_json, disk_error, write_atomically
from btard.launcher.run.run_directory import RunDirectory, RunRecord, read_record
from btard.node.config import Endpoint, NodeConfig, Secrets
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis.ceremony import GIVEN
from btard.node.storage import process_lock

PASSWORD_FILE = "password"


class Bundle(msgspec.Struct, frozen=True):
    """A whole run but for the nodes' keys, which each makes itself.

    Args:
        record: run.json.
        configs: of the nodes.
        given: their keys, where a seed determines them; whoever knows it knows them anyway.
    """

    record: RunRecord
    configs: tuple[NodeConfig, ...]
    given: tuple[Secrets, ...] = ()


def pack(made: RunDirectory, monitored: bool) -> Bundle:
    """The bundle of a run directory that was made here, and keeps no keys that it was given.

    Args:
        monitored: every node serves metrics; without a Prometheus they would wait in vain to be scraped at the end.

    Raises:
        ConfigError: the directory is not complete.
    """
    files = [path for config in made.configs if (path := Path(config.directory) / GIVEN).exists()]
    given = tuple(map(keys.load, files))
    for path in files:
        path.unlink()
    return Bundle(read_record(made.path), tuple(contained(config, monitored) for config in made.configs), given)


def unpack(data: bytes) -> Bundle:
    """A bundle from its JSON.

    Raises:
        ConfigError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"what came on standard input is no bundle of a run: {error}") from error


def contained(config: NodeConfig, monitored: bool) -> NodeConfig:
    """A node's configuration with the paths and addresses that hold in its container."""
    ports = len(config.listen.urls)
    return msgspec.structs.replace(
        config,
        secrets_file=str(places.OWN_SECRETS / f"{config.run_id}.json"),
        directory=str(places.own_directory(config.node)),
        data_directory=str(places.DATA),
        listen=Endpoint(*places.listen().urls[:ports]),
        addresses={str(config.node): Endpoint(*places.endpoint(config.node).urls[:ports])},
        ceremony=str(places.CEREMONY),
        metrics=f"0.0.0.0:{places.METRICS_PORT}" if monitored else None,
    )


def lay_out(bundle: Bundle, root: Path) -> None:
    """Empty the volumes of an earlier run and put each part where only its owner sees it.

    Args:
        root: where the volumes are mounted, as in the `roles` service.

    Raises:
        BackendError: nodes of an earlier run are still working, or a volume cannot be written.
    """
    nodes = [config.node for config in bundle.configs]
    busy = [node for node in nodes if process_lock.alive(places.written_by(root, node))]
    if busy:
        raise BackendError(
            f"node {', '.join(map(str, busy))} still works on an earlier run; nothing was changed: "
            "stop it first (docker compose down)"
        )
    for node in nodes:
        _empty(places.volume_of(root, node))
    for place in (places.ceremony(root), places.truth(root), places.targets(root)):
        _empty(place)
    for config in bundle.configs:
        write_atomically(places.config_of(root, config.node), as_json(config), mode=0o600)
    for node, secrets in zip(nodes, bundle.given, strict=bool(bundle.given)):
        places.written_by(root, node).mkdir(parents=True)
        keys.write(places.written_by(root, node) / GIVEN, secrets)
    write_atomically(places.truth(root) / "run.json", as_json(bundle.record), mode=0o600)
    write_atomically(places.targets(root) / "btard.json", scrape_targets(bundle.record.run_id, nodes))
    password = places.grafana(root) / PASSWORD_FILE
    password.parent.mkdir(parents=True, exist_ok=True)
    if not password.exists():
        # Grafana runs as another user; its container and this one are the only ones that mount the volume.
        write_atomically(password, system_random.token_urlsafe(18).encode(), mode=0o644)


def scrape_targets(run_id: str, nodes: list[int]) -> bytes:
    """Prometheus's file_sd list: every node and the observer, labelled with run and node."""
    ends = [(f"{places.service(node)}:{places.METRICS_PORT}", str(node)) for node in nodes]
    ends.append((f"observer:{places.TRUTH_PORT}", "launcher"))
    groups = [{"targets": [address], "labels": {"run_id": run_id, "node": name}} for address, name in ends]
    return as_json(groups)


def _empty(place: Path) -> None:
    """Delete what lies in a volume; the volume's own root is not ours to delete."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        for entry in place.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise disk_error(error, place) from error
