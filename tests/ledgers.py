"""What is in a node's ledger, and ways to damage it."""

from __future__ import annotations

from pathlib import Path

from btard.node.storage.checkpoint import Name, names
from btard.node.storage.disk import SUFFIX
from btard.node.storage.wal import ATTEMPT, Record, contents


def files(directory: Path) -> list[Path]:
    """The files of a ledger, in order."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def records(directory: Path, kind: int) -> list[Record]:
    """All records of a kind, in order."""
    return [record for path in files(directory) for record in contents(path).records if record.kind == kind]


def attempts(directory: Path) -> list[Name]:
    """Step and number of the attempts that were saved, in order."""
    return list(names(records(directory, ATTEMPT)))


def entries(path: Path) -> list[tuple[int, int, bytes]]:
    """All records of a file: kind, neighbour and content.

    Raises:
        CheckpointError: some of it is damaged.
    """
    found = contents(path)
    for _, error in found.damage:
        raise error
    return [(record.kind, record.via, record.content) for record in found.records]


def spoil(record: Record, place: int) -> None:
    """Flip a bit of what goes with a record: of the byte at a place, from its end if it is negative."""
    attached = record.attached
    assert -attached.size <= place < attached.size
    with attached.path.open("r+b") as file:
        file.seek(attached.start + place % attached.size)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def parts(directory: Path) -> list[tuple[Path, list[int]]]:
    """What a ledger consists of, by step: its file, and the places of its bytes there. A checkpoint is a part, so are
    the tensors of an attempt, and what stands in between from one checkpoint to the next."""
    found = []
    for path in files(directory):
        rest, between, end = 0, list[int](), path.stat().st_size
        tensors: list[tuple[Path, list[int]]] = []
        for record in contents(path).records:
            # What the disk never got lies behind its end.
            start, size = record.attached.start, max(0, min(record.attached.size, end - record.attached.start))
            if record.kind == ATTEMPT:
                found += [*tensors, *([(path, between)] if between else ())]
                tensors, between = [], []
                found += [(path, list(range(start, start + size)))] if size else []
            elif size:
                tensors.append((path, list(range(start, start + size))))
            between += range(rest, start)
            rest = max(rest, start + size)
        between += range(rest, end)
        found += [*tensors, *([(path, between)] if between else ())]
    return found
