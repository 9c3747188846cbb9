"""The file of golden runs: digests, the environment in which they hold, and what differs from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from btard.node.training.environment import Environment, encoded, environment
from tests.golden.told import KINDS, Cells

FILE = Path(__file__).parent / "golden.json"
_NOTHING = "-"


class Golden(msgspec.Struct, frozen=True):
    """The file's content.

    Args:
        environment: of the machine that recorded it.
        runs: by run, peer and step the digests in the order of KINDS.
    """

    environment: Environment
    runs: dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that a run does otherwise than it was recorded; `portable`: on any processor."""

    run: str
    peer: str
    step: str
    kind: str
    portable: bool

    def __str__(self) -> str:
        return f"{self.run}: peer {self.peer}, step {self.step}: {self.kind} differs"


def load(file: Path = FILE) -> Golden:
    """The record as it was committed."""
    return msgspec.json.decode(file.read_bytes(), type=Golden)


def save(runs: dict[str, Cells], file: Path = FILE) -> None:
    """Write the record of this machine."""
    lines = {run: {peer: {step: _line(kinds) for step, kinds in steps.items()} for peer, steps in cells.items()}
             for run, cells in runs.items()}  # fmt: skip
    data = msgspec.json.encode(Golden(environment("cpu"), lines))
    file.write_bytes(msgspec.json.format(data, indent=1) + b"\n")


def here(golden: Golden) -> bool:
    """True where bits are promised to be those of the record."""
    return encoded(golden.environment) == encoded(environment("cpu"))


def first(golden: Golden, run: str, cells: Cells) -> Difference | None:
    """The first difference of a run, by step; within a step what happened comes before the bits that follow from it."""
    found = list(_differences(golden.runs[run], cells))
    if not found:
        return None
    step, _, peer, kind = min(found, key=lambda each: (each[0], each[1], int(each[2])))
    return Difference(run, peer, str(step), kind, portable=kind == KINDS[0])


def portable(golden: Golden, run: str, cells: Cells) -> Difference | None:
    """The first difference that no other processor explains."""
    found = [each for each in _differences(golden.runs[run], cells) if each[3] == KINDS[0]]
    if not found:
        return None
    step, _, peer, kind = min(found, key=lambda each: (each[0], int(each[2])))
    return Difference(run, peer, str(step), kind, portable=True)


def _line(kinds: dict[str, str]) -> str:
    return " ".join(kinds.get(kind, _NOTHING) for kind in KINDS)


def _differences(recorded: dict[str, dict[str, str]], cells: Cells) -> Iterator[tuple[int, int, str, str]]:
    """(step, place of the kind, peer, kind) of each digest that is not the recorded one."""
    for peer in sorted({*recorded, *cells}):
        steps, then = cells.get(peer, {}), recorded.get(peer, {})
        for step in {*steps, *then}:
            was = then.get(step, " ".join(_NOTHING for _ in KINDS)).split(" ")
            now = _line(steps.get(step, {})).split(" ")
            for place, kind in enumerate(KINDS):
                if was[place] != now[place]:
                    yield int(step), place, peer, kind
