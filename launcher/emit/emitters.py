"""The emitters by name: each makes the files by which an existing engine starts a run of so many peers.

Each peer makes its own keys where it is to work, and signs by a rule what it was told to sign. Templates are in
launcher/templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from btard.launcher import templates
from btard.launcher.assets import asset
from btard.launcher.containers import emit as compose_files
from btard.launcher.containers import places
from btard.launcher.files import disk_error, write_atomically
from btard.launcher.run.experiment import gpu_share
from btard.node.errors import ConfigError

_MOUNTS = {"own": "/btard/own", "genesis": "/btard/genesis/genesis.json", "run": "/btard/run/run.toml"}
_PORTS = {"port": places.CONTROL_PORT, "metrics_port": places.METRICS_PORT}
_GPUS = {
    "gpu": ("nvidia.com/gpu", "Gradients on a GPU of its own for each peer, by NVIDIA's device plugin."),
    "gpu-shared": (
        "nvidia.com/gpu.shared",
        "Gradients on GPUs that several peers share. NVIDIA's device plugin is configured with\n"
        "# sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 6}]}}, or with\n"
        "# mps: in place of timeSlicing:, which limits each peer to its share of the memory; time-slicing does not.",
    ),
    "gpu-mig": ("nvidia.com/mig-1g.10gb", "Gradients on a slice of a GPU for each peer (MIG); all slices of one size."),
}
"""Overlay to the resource that a peer asks for, and what it is."""


@dataclass(frozen=True, slots=True)
class Emission:
    """What an emitter makes.

    Args:
        text: all that the engine has to read, as one file.
        name: of that file.
        files: by path relative to a directory, where an engine wants several.
    """

    text: str
    name: str
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, directory: Path, overwrite: bool) -> list[Path]:
        """Write the files, after a look at all of them; returns the paths of those that were not there like this.

        Raises:
            ConfigError: one is there with another content, and is not to be overwritten.
            BackendError: the directory cannot be written.
        """
        wanted = {directory / name: text for name, text in (self.files or {self.name: self.text}).items()}
        new = {path: text for path, text in wanted.items() if not _holds(path, text)}
        other = [path for path in new if path.exists() or path.is_symlink()]
        if other and not overwrite:
            raise ConfigError(
                f"{other[0]} is there with another content (and {len(other) - 1} more); use another --out, or "
                "--overwrite"
            )
        for path, text in new.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(error, path.parent, "--out") from error
            write_atomically(path, text.encode(), option="--out")
        return list(new)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def kubernetes(peers: int, dashboards: str | None = None) -> Emission:
    """A kustomize base, with monitoring and overlays beside it; as one file the base alone.

    Args:
        peers: of the run.
        dashboards: the folder of the dashboards, as monitoring/ sees it; None: a copy of them is among the files.
    """
    host = "$(POD_NAME).mesh.$(POD_NAMESPACE).svc"
    given = {"peers": peers, "claim": None, "host": host, "proposal": "/dev/termination-log", "stay": True, **_MOUNTS}
    folder, run_file = "kubernetes", _run_file(peers)
    names = ["kustomization", *(f"base/{name}" for name in ("kustomization", "network", "peers"))]
    files = {f"{name}.yaml": _filled(f"{folder}/{name}.yaml", **given) for name in names}
    files["base/run.toml"] = run_file
    for name in ("kustomization", "podmonitor", "rules"):
        files[f"monitoring/{name}.yaml"] = _filled(
            f"{folder}/monitoring/{name}.yaml", dashboards=dashboards or "../dashboards", rules=_rules()
        )
    if dashboards is None:
        for path in sorted(asset("dashboards").glob("*.[jy]*")):
            files[f"dashboards/{path.name}"] = path.read_text(encoding="utf-8")
    files["overlays/owner/kustomization.yaml"] = _filled(f"{folder}/overlays/owner.yaml")
    for name, (resource, says) in _GPUS.items():
        share = gpu_share(peers) if name == "gpu-shared" else None
        files[f"overlays/{name}/kustomization.yaml"] = _filled(
            f"{folder}/overlays/gpu.yaml", resource=resource, says=says, share=share, peers=peers
        )
        files[f"overlays/{name}/run.toml"] = run_file + 'device = "cuda"\n'
    options = _filled(f"{folder}/run.yaml", run_file=run_file)
    return Emission("---\n".join((files["base/network.yaml"], options, files["base/peers.yaml"])), "btard.yaml", files)


def jobset(peers: int) -> Emission:
    """A JobSet with a replicated job and a claim for each peer."""
    given = {"peers": peers, "run_file": _run_file(peers), "proposal": "/dev/termination-log", "stay": False, **_MOUNTS}
    return Emission(_filled("jobset.yaml", **given), "jobset.yaml")


def slurm(peers: int) -> Emission:
    """A batch script: a step for each peer, each on a node of its own."""
    return Emission(_filled("slurm.sbatch", peers=peers), "btard.sbatch")


def swarm(peers: int) -> Emission:
    """A Swarm stack with a service for each peer, kept on the node that has its volume."""
    where = {"own": places.OWN_RUN, "genesis": "/genesis.json", "run": "/run.toml", "proposal": "/tmp/proposal"}
    return Emission(_filled("swarm.yaml", peers=peers, stay=False, **where), "stack.yaml")


def hosts(peers: int) -> Emission:
    """What keeps one peer running on its owner's host, a unit of systemd or a Compose file, and the options of a run of
    so many owners, by which one of them assembles the genesis."""
    where = asset("deploy", "hosts")
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(where.iterdir()) if path.is_file()}
    return Emission(files["compose.yaml"], "compose.yaml", {**files, "run.toml": _run_file(peers)})


EMITTERS: Mapping[str, Callable[[int], Emission]] = {
    "compose": lambda peers: Emission(compose_files.compose(peers), "compose.yaml"),
    "compose-gpu": lambda peers: Emission(compose_files.gpu(peers), "compose.gpu.yaml"),
    "kubernetes": kubernetes,
    "jobset": jobset,
    "slurm": slurm,
    "swarm": swarm,
    "hosts": hosts,
}
"""By the name that `btard-launch plan --emit` takes."""


def _filled(template: str, **values: Any) -> str:
    return templates.write(template, **_PORTS, **values)


def _run_file(peers: int) -> str:
    # Engines start again what fails and move what stands in their way; with undo, the default, neither would come back.
    return f'peers = {peers}\nundo = "off"  # a peer that was away may come back\n'


def _rules() -> list[tuple[str, str]]:
    """Names of the files of Prometheus's rules, and their groups."""
    return [
        (path.stem, "groups:" + path.read_text(encoding="utf-8").partition("groups:")[2])
        for path in sorted(asset("deploy", "prometheus", "rules").glob("*.yml"))
    ]
