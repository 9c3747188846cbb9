"""Data sets: reading the prepared files (workers) and preparing them (`btard-launch data`)."""

from __future__ import annotations

import shlex
from pathlib import Path


def repair(name: str, data_directory: Path) -> str:
    """What makes a data set whole again, for the end of an error: the command fills the directory that was read."""
    return f"run `btard-launch data {name} --data-dir {shlex.quote(str(data_directory))}`"
