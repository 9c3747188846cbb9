"""What `btard-launch bench` does with its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from btard.launcher.bench import measure, show, training
from btard.node.errors import ConfigError

SCALING = (4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options; `task` and `scaling` exclude each other."""

    peers: int
    size: float
    pairs: int
    task: str | None = None
    steps: int = 100
    scaling: bool = False
    as_json: bool = False


def lines(wanted: Wanted) -> Iterator[str]:
    """Measure and tell; as JSON one object, or with `scaling` one array.

    Raises:
        ConfigError: options that cannot be run.
        BackendError: a process failed.
    """
    if not (wanted.size >= 1 and wanted.size == int(wanted.size)):
        raise ConfigError(f"--size {wanted.size:g} must be a whole number of floats, for example 1e7")
    if wanted.task is not None and wanted.scaling:
        raise ConfigError(f"--task {wanted.task} and --scaling measure different things; leave one out")
    if wanted.task is not None:
        share = training.share(wanted.task, wanted.peers, wanted.steps)
        yield from [_json(share)] if wanted.as_json else show.share_lines(share)
        return
    counts = SCALING if wanted.scaling else (wanted.peers,)
    found = []
    for count in counts:
        figures = measure.measure(count, int(wanted.size), wanted.pairs)
        found.append(figures)
        if not wanted.as_json:
            yield from show.lines(figures)
    if wanted.as_json:
        yield _json(found if wanted.scaling else found[0])


def _json(found: object) -> str:
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
