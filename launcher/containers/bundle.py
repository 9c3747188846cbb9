"""A run as the `keys` service hands it out: to each node its own keys and role, to the observer the truth."""

from __future__ import annotations

import secrets as system_random
import shutil
from pathlib import Path

import msgspec

from btard.launcher.containers import places
from btard.launcher.files import as_json, disk_error, write_atomically
from btard.launcher.run.run_directory import RunDirectory, RunRecord, read_record
from btard.node.config import NodeConfig, Secrets
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis.genesis import Genesis
from btard.node.storage import process_lock

PASSWORD_FILE = "password"


class Parcel(msgspec.Struct, frozen=True):
    """What one node gets."""

    config: NodeConfig
    secrets: Secrets


class Bundle(msgspec.Struct, frozen=True):
    """A whole run; whoever holds it knows everything."""

    record: RunRecord
    genesis: Genesis
    parcels: tuple[Parcel, ...]


def pack(made: RunDirectory, monitored: bool) -> Bundle:
    """The bundle of a run directory that was made here.

    Args:
        monitored: every node serves metrics; without a Prometheus they would wait in vain to be scraped at the end.

    Raises:
        ConfigError: the directory is not complete.
    """
    genesis = msgspec.json.decode((made.path / "genesis.json").read_bytes(), type=Genesis)
    parcels = tuple(
        Parcel(contained(config, monitored), keys.load(Path(config.secrets_file))) for config in made.configs
    )
    return Bundle(read_record(made.path), genesis, parcels)


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
    return msgspec.structs.replace(
        config,
        secrets_file=str(places.OWN_SECRETS / "secrets.json"),
        directory=str(places.own_directory(config.node)),
        data_directory=str(places.DATA),
        listen=places.listen(),
        addresses={str(member.id): places.endpoint(member.id) for member in config.members},
        metrics=f"0.0.0.0:{places.METRICS_PORT}" if monitored else None,
    )


def lay_out(bundle: Bundle, root: Path) -> None:
    """Empty the volumes of an earlier run and put each part where only its owner sees it.

    Args:
        root: where the volumes are mounted, as in the `keys` service.

    Raises:
        BackendError: nodes of an earlier run are still working, or a volume cannot be written.
    """
    nodes = [parcel.config.node for parcel in bundle.parcels]
    busy = [node for node in nodes if process_lock.alive(places.written_by(root, node))]
    if busy:
        raise BackendError(
            f"node {', '.join(map(str, busy))} still works on an earlier run; nothing was changed: "
            "stop it first (docker compose down)"
        )
    for node in nodes:
        _empty(places.volume_of(root, node))
        _empty(places.secrets_of(root, node))
    for place in (places.truth(root), places.targets(root)):
        _empty(place)
    for parcel in bundle.parcels:
        place = places.secrets_of(root, parcel.config.node)
        write_atomically(place / "config.json", as_json(parcel.config), mode=0o600)
        keys.write(place / "secrets.json", parcel.secrets)
    write_atomically(places.truth(root) / "run.json", as_json(bundle.record), mode=0o600)
    write_atomically(places.truth(root) / "genesis.json", as_json(bundle.genesis))
    write_atomically(places.targets(root) / "btard.json", scrape_targets(bundle.genesis.run_id, nodes))
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
