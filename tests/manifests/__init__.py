"""What the emitters write for three peers, kept to be compared, and the same for six below deploy/.

`python -m tests.manifests` (`make manifests`) writes all of it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from btard.launcher.emit import emitters

ROOT = Path(__file__).parents[2]
PEERS = 3


def kept() -> Iterator[tuple[Path, str]]:
    """Every file that is kept, and what it should hold."""
    for name in ("kubernetes", "jobset", "slurm", "swarm"):
        emission = emitters.EMITTERS[name](PEERS)
        yield Path(__file__).parent / f"{name}{Path(emission.name).suffix}", emission.text
    for name, text in emitters.kubernetes(6, dashboards="../../../dashboards").files.items():
        yield ROOT / "deploy" / "kubernetes" / name, text
    yield ROOT / "deploy" / "slurm" / "btard.sbatch", emitters.slurm(6).text
