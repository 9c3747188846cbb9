"""`btard-launch export --public`: a run directory for others: it verifies as the run does, and holds no private key."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from btard.launcher.files import as_json, disk_error, write_atomically
from btard.launcher.run import run_directory
from btard.launcher.run.experiment import IMPORTS
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.scoring import MODEL
from btard.node.errors import ConfigError, DataError
from btard.node.genesis.files import read
from btard.node.genesis.genesis import read_genesis
from btard.node.genesis.identity import GENESIS, PROPOSAL
from btard.node.genesis.proposal import PROPOSAL_BYTES, decode_proposal
from btard.node.storage import records
from btard.node.storage.public_files import EVIDENCE, OF_A_NODE, OF_A_RUN

_FILES = (*OF_A_RUN, "summary.json", "events.jsonl", "metrics.jsonl", MODEL)
_LARGEST_BYTES = 1 << 34
_CHUNK_BYTES = 1 << 20


def write(run_dir: Path, target: Path | None = None) -> tuple[Path, list[str]]:
    """Copy what is public of a run; everything else, secrets first of all, stays where it is.

    Only named files are taken: genesis and summary, the collected events, the model, the run's own Python files, and of
    each node its journal, evidence and final state. run.json loses what keys could be derived from and what only
    concerns this machine.

    Args:
        run_dir: the run directory.
        target: where to; None: beside the run, with `-public` added to its name.

    Returns:
        Where it lies, and what was left out because it is no regular file.

    Raises:
        ConfigError: no run directory, or the target exists and is not empty, or lies inside the run.
        BackendError: it cannot be written; nothing is left behind.
    """
    genesis = read_genesis(run_dir)
    target = _target(run_dir, target)
    left_out: list[str] = []
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        made.mkdir(parents=True)
        for name in _names(run_dir, genesis.run.capacity):
            problem = _copy(run_dir, name, made / name)
            if problem is not None:
                left_out.append(problem)
        if (run_dir / "run.json").exists():
            record = _public(run_directory.read_record(run_dir))
            write_atomically(made / "run.json", as_json(record))
        if target.exists():
            target.rmdir()
        made.rename(target)
    except OSError as error:
        raise disk_error(error, target, "DEST") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target, left_out


def _target(run_dir: Path, target: Path | None) -> Path:
    run_dir = run_dir.absolute()
    target = target.absolute() if target is not None else run_dir.with_name(f"{run_dir.name}-public")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty; name another DEST")
    if target.resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(f"{target} lies inside the run directory; name another DEST")
    return target


def _names(run_dir: Path, peers: int) -> Iterator[str]:
    """Everything that is public, where it is."""
    yield from _FILES
    yield from (f"{IMPORTS}/{name}" for name in records.names(run_dir, IMPORTS) if name.endswith(".py"))
    for node in range(peers):
        yield from (f"nodes/{node}/{name}" for name in _of_a_node(run_dir, f"nodes/{node}/evidence"))


def _of_a_node(run_dir: Path, evidence: str) -> Iterator[str]:
    """Everything that is public of a node, where it is in its own directory; `evidence` is where its evidence lies."""
    yield from OF_A_NODE
    yield from (f"evidence/{name}" for name in records.names(run_dir, evidence) if name.endswith(EVIDENCE))


@contextmanager
def whole(directory: Path) -> Iterator[Path]:
    """A run directory: this one, or one with nothing but a node, where it is that node's own (`RUN/nodes/3`).

    Raises:
        ConfigError: it is a node's own, and its files are damaged or of two peers.
        BackendError: the disk is full.
    """
    if not all((directory / name).exists() for name in (GENESIS, PROPOSAL, OF_A_NODE[0])):
        yield directory
        return
    owner = decode_proposal(read(directory / PROPOSAL, PROPOSAL_BYTES) or b"", str(directory / PROPOSAL)).signing_key
    keys = [member.signing_key for member in read_genesis(directory).members]
    if owner not in keys:
        raise ConfigError(f"{directory}: {GENESIS} does not name who made its {PROPOSAL}; copy both from one peer")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        try:
            for name in OF_A_RUN:
                _copy(directory, name, made / name)
            for name in _of_a_node(directory, "evidence"):
                _copy(directory, name, made / f"nodes/{keys.index(owner)}" / name)
        except OSError as error:
            raise disk_error(error, made, "TMPDIR") from error
        yield made


def _copy(run_dir: Path, name: str, target: Path) -> str | None:
    """Copy one file; returns why not, None also where there is none."""
    try:
        descriptor = records.open_regular(run_dir, name)
    except FileNotFoundError:
        return None
    except DataError as error:
        return str(error)
    target.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(descriptor, "rb") as source, target.open("xb") as copy:
        left = _LARGEST_BYTES
        while left > 0 and (piece := source.read(min(left, _CHUNK_BYTES))):
            # A hole stays one: a sparse file of a node must not fill the disk.
            if piece.strip(b"\0"):
                copy.write(piece)
            else:
                copy.seek(len(piece), os.SEEK_CUR)
            left -= len(piece)
        copy.truncate(copy.tell())
    return None


def _public(record: RunRecord) -> RunRecord:
    """run.json without the seed of keys, the command line and this machine's paths."""
    put = msgspec.structs.replace
    asked = record.experiment
    names = tuple(Path(name).name for name in asked.imports)
    asked = put(asked, protocol_seed=None, run_dir=None, data_dir=None, imports=names)
    model = put(record.link_model, seed=0) if record.link_model is not None else None  # its draws have the keys' seed
    seeds = put(record.seeds, protocol=None)
    return put(record, argv=(), experiment=asked, seeds=seeds, link_model=model, data_directory="")
