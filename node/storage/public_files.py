"""What of a run directory is for everybody: the genesis, the approvals, and each node's journal, evidence and end.

What a peer serves, and what is taken of what others serve, are names of this form and nothing else: no secrets, no
checkpoints, no configuration that says who attacks.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from btard.node.errors import DataError
from btard.node.storage.records import names, open_regular, shown

OF_A_RUN = ("genesis.json", "approvals.json")
OF_A_NODE = ("journal.jsonl", "parameters.f32", "certificate")
EVIDENCE = (".evidence", ".certificate")
"""How names in a node's folder `evidence` end."""
_OF_A_NODE = re.compile(
    r"nodes/(0|[1-9][0-9]{0,3})/(?:journal\.jsonl|parameters\.f32|certificate|"
    r"evidence/[a-z0-9-]{1,64}\.(?:evidence|certificate))"
)


class PublicFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file by its name in the run directory, and its size in bytes when it was looked at."""

    name: str
    size: int


def node_of(name: str) -> int | None:
    """Whose file a public name is; None: the run's.

    Raises:
        DataError: it is no public name.
    """
    match = _OF_A_NODE.fullmatch(name)
    if match is None and name not in OF_A_RUN:
        raise DataError(f"{shown(name)}: nothing of this name is public")
    return int(match[1]) if match is not None else None


@dataclass(frozen=True, slots=True)
class PublicFiles:
    """The public files of one node.

    Args:
        run_dir: the run directory.
        node: its genesis id.
    """

    run_dir: Path
    node: int

    def listed(self) -> list[PublicFile]:
        """Those that are there."""
        folder, found = f"nodes/{self.node}", []
        evidence = (f"{folder}/evidence/{name}" for name in names(self.run_dir, f"{folder}/evidence"))
        for name in (*OF_A_RUN, *(f"{folder}/{each}" for each in OF_A_NODE), *evidence):
            try:
                descriptor = self.open(name)
            except (FileNotFoundError, DataError):
                continue
            found.append(PublicFile(name, os.fstat(descriptor).st_size))
            os.close(descriptor)
        return found

    def open(self, name: str) -> int:
        """A descriptor to read one of them.

        Raises:
            FileNotFoundError: it is not there.
            DataError: it is not public, of another node, or no regular file.
        """
        if node_of(name) not in (None, self.node):
            raise DataError(f"{shown(name)}: it is another node's")
        return open_regular(self.run_dir, name)
