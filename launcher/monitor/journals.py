"""What one node's journal tells the launcher: records of this node and this run, whatever a hostile node wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from btard.launcher.monitor.state import Record
from btard.node.errors import DataError
from btard.node.storage.records import (
    Banned,
    Evaluated,
    Finished,
    JournalReader,
    Line,
    Returned,
    open_regular,
    shown,
)

_PLAIN = (str, int, float, type(None))


class NodeJournal:
    """Reads the records of one node that can be believed to be its own words.

    Args:
        run_dir: the run directory; nothing outside the node's folder in it is opened.
        node: whose journal, by its folder.
        peers: of the roster.
        steps: of the run; a record of a later step is refused.
        plays: the node journals the events of the scenario: a simulated one does; of processes the launcher does.
    """

    def __init__(self, run_dir: Path, node: int, peers: int, steps: int, *, plays: bool = False) -> None:
        self._run_dir, self._node, self._steps, self._plays = run_dir, node, steps, plays
        self._reader = JournalReader(run_dir, f"nodes/{node}/journal.jsonl", node, peers)
        self._told = 0

    @property
    def refused(self) -> int:
        """Records that were refused so far."""
        return self._reader.refused

    def look(self) -> Iterator[Record]:
        """The records since the last look, in their order; what breaks the rules is left out and counted."""
        for line in self._reader.look():
            try:
                self._check(line)
            except DataError as error:
                self._reader.refuse(line, str(error))
                continue
            yield _plain(line)

    def problems(self) -> list[str]:
        """One line for each refusal since the last time that this was asked."""
        new, self._told = self._reader.problems[self._told :], len(self._reader.problems)
        return new

    def _check(self, line: Line) -> None:
        """Refuse what the launcher would have to take on trust.

        Raises:
            DataError: why.
        """
        step, where = line.record.get("step"), f"nodes/{self._node}"
        if isinstance(step, int) and step > self._steps + 1:
            raise DataError(f"it is of step {shown(step)}, and the run has {self._steps}")
        match line.entry:
            case Banned(step=at, attempt=attempt, peer=peer, path=path):
                self._own(path, f"{where}/evidence/ban-{at}-{attempt}-{peer}.evidence")
            case Returned(step=at, peer=peer, path=path):
                self._own(path, f"{where}/evidence/return-{at}-{peer}.certificate")
            case Finished(path=path):
                self._own(path, f"{where}/parameters.f32")
            case Evaluated(correct=correct, count=count) if correct > count:
                raise DataError(f"it has {correct} correct answers of {count}")
            case _:
                if line.event == "scenario" and not self._plays:
                    raise DataError("events of the scenario are not a node's to tell")

    def _own(self, path: str, expected: str) -> None:
        """The file of a record is the one that this node keeps for it."""
        if path != expected:
            raise DataError(f"its file is {shown(path)} instead of {expected}")
        try:
            os.close(open_regular(self._run_dir, path))
        except FileNotFoundError as error:
            raise DataError(f"its file {path} is not there") from error


def _plain(line: Line) -> Record:
    """A record without what has no type here and might be nested: nobody asked for it."""
    known = type(line.entry).__struct_fields__
    return {name: value for name, value in line.record.items() if name in known or isinstance(value, _PLAIN)}
