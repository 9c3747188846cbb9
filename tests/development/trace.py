"""How far a message travels through the code: modules and switches between them until it has completed a phase.

python -m tests.development.trace

Six honest peers, a quadratic task, the simulator. Measured is one call of `handle` of peer 0 in step 1, for the message
after which the peer enters the next phase: every Python function called meanwhile counts for the module that it is
written in, of `node` alone. A switch is a call into another module, or the return from one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType

from btard.node.config import Plugin, RunConfig
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Committed, Input, MessageArrived, Output, PhaseEntered
from btard.node.training.environment import pin
from tests.simulation.stage import set_up

PEER, STEP = 0, 1


@dataclass(frozen=True, slots=True)
class Crossing:
    """What one message went through.

    Args:
        entered: the phase that it let begin; `committed` for the last CLOSE.
        modules: that it crossed.
        switches: between them.
    """

    entered: str
    modules: tuple[str, ...]
    switches: int


class Traced:
    """A machine whose every input is followed.

    Args:
        inner: the machine.
    """

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.found: list[Crossing] = []

    def handle(self, event: Input, /) -> list[Output]:
        """As the inner one's."""
        if not isinstance(event, MessageArrived):
            outputs: list[Output] = self._inner.handle(event)  # type: ignore[attr-defined]
            return outputs
        seen: set[str] = set()
        stack: list[str] = []
        switches = 0

        def follow(frame: FrameType, kind: str, _: object) -> None:
            nonlocal switches
            if kind == "call":
                module = frame.f_globals.get("__name__", "")
                if not module.startswith("btard.node."):
                    module = stack[-1] if stack else ""
                switches += bool(stack) and module != stack[-1]
                stack.append(module)
                seen.add(module)
            elif kind == "return" and stack:
                left = stack.pop()
                switches += bool(stack) and left != stack[-1]

        sys.setprofile(follow)
        try:
            outputs = self._inner.handle(event)  # type: ignore[attr-defined]
        finally:
            sys.setprofile(None)
        if (entered := _entered(outputs)) is not None:
            self.found.append(Crossing(entered, tuple(sorted(seen - {""})), switches))
        return outputs


def _entered(outputs: list[Output]) -> str | None:
    for output in outputs:
        match output:
            case PhaseEntered(step=step, phase=phase) if step == STEP:
                return phase
            case Committed(step=step) if step == STEP:
                return "committed"
            case _:
                pass
    return None


def crossings() -> Iterator[Crossing]:
    """Of each message that completed a phase of one step at one peer, in their order."""
    run = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 24}), steps=2, batch_size=1,
                    delivery_bound_s=0.5, gradient_bound_s=1.0)  # fmt: skip
    stage = set_up(run, links=LinkModel(delay_s=0.01))
    nodes = stage.simulation.nodes
    traced = Traced(nodes[PEER].machine)
    nodes[PEER] = replace(nodes[PEER], machine=traced)
    for _ in stage.simulation.run():
        pass
    yield from traced.found


def main() -> int:
    """Print a line for each phase, and the widest."""
    pin("cpu")
    found = list(crossings())
    for each in found:
        print(f"{each.entered:10} {len(each.modules):3} modules  {each.switches:5} switches")
    widest = max(found, key=lambda each: len(each.modules))
    print(f"widest: {widest.entered}: {len(widest.modules)} modules, {widest.switches} switches")
    print("\n".join(f"  {module}" for module in widest.modules))
    return 0


if __name__ == "__main__":
    sys.exit(main())
