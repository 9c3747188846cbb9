"""How many functions a peer calls in an honest step.

python -m tests.development.calls [--peers 6] [--by 40]

Honest peers with the real rule and signatures, a quadratic task, the simulator. Counted is what one peer calls in
`handle`, for all inputs of its middle steps, and in signing: Python functions, and those written in C that they call.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from types import FrameType

from btard.node.config import Plugin, RunConfig
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Committed, Input, Output
from btard.node.training.environment import pin
from tests.simulation.stage import set_up

PEER, FIRST, STEPS = 0, 3, 8
"""Whose calls are counted, from which step on and in how many: the first ones have no validators or past yet."""


@dataclass
class Calls:
    """Calls by function, and how many of them are of functions written in Python."""

    by: Counter[str] = field(default_factory=Counter)
    python: int = 0
    native: int = 0
    on: bool = False

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """For `sys.setprofile`."""
        if event == "call":
            self.python += 1
            code = frame.f_code
            self.by[f"{code.co_filename.partition('/btard/')[2] or code.co_filename}:{code.co_qualname}"] += 1
        elif event == "c_call":
            self.native += 1
            self.by[f"({getattr(argument, '__qualname__', argument)})"] += 1


class _Counted:
    """A machine, or a signer, whose calls are counted.

    Args:
        inner: it.
        calls: where.
    """

    def __init__(self, inner: object, calls: Calls) -> None:
        self._inner, self._calls = inner, calls

    def handle(self, event: Input, /) -> list[Output]:
        """As the inner one's."""
        return self._counted("handle", event)  # type: ignore[return-value]

    def sign(self, message: bytes) -> bytes:
        """As the inner one's."""
        return self._counted("sign", message)  # type: ignore[return-value]

    def _counted(self, name: str, argument: object) -> object:
        method, calls = getattr(self._inner, name), self._calls
        if not calls.on:
            return method(argument)
        sys.setprofile(calls.note)
        try:
            return method(argument)
        finally:
            sys.setprofile(None)


def counted(peers: int = 6) -> Calls:
    """The calls of one peer in all counted steps."""
    run = RunConfig(
        peers=peers,
        task=Plugin("quadratic", {"dimension": 16 * peers}),
        steps=FIRST + STEPS + 1,
        batch_size=1,
        tau=5.0,
        validators=1,
        validate_every=1,
    )
    stage, calls = set_up(run, links=LinkModel(delay_s=0.01, jitter_s=0.002, seed=1)), Calls()
    nodes = stage.simulation.nodes
    nodes[PEER] = replace(nodes[PEER], machine=_Counted(nodes[PEER].machine, calls))
    for seen in stage.simulation.run():
        if seen.node == PEER and isinstance(seen.output, Committed):
            calls.on = FIRST <= seen.output.step + 1 < FIRST + STEPS
    return calls


def main(arguments: list[str]) -> int:
    """Print the counts a step, and the functions that are called most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=6)
    parser.add_argument("--by", type=int, default=0, help="how many functions to list")
    given = parser.parse_args(arguments)
    pin("cpu")
    calls = counted(given.peers)
    print(f"{calls.python / STEPS:.0f} calls of Python functions a step, {calls.native / STEPS:.0f} of functions in C")
    for name, number in calls.by.most_common(given.by):
        print(f"{number / STEPS:8.1f} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
