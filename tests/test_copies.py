"""How often an honest step copies tensors: never, where the kernels are compiled."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from btard.node import kernels
from btard.node.config import Plugin, RunConfig
from btard.node.protocol.api import Input, Output
from btard.node.protocol.peer import Peer
from tests.simulation.stage import set_up

PEERS, SIZE, STEPS = 4, 400_000, 3
PART = SIZE // PEERS


class Large(TorchDispatchMode):
    """Counts every operation whose result is as large as a part."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = isinstance(result, torch.Tensor) and not func.is_view
        if fresh and result.numel() >= PART and func.overloadpacket.__name__ not in ("empty", "detach"):
            self.seen[func.overloadpacket.__name__] += 1
        return result


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler here: torch needs temporaries")
def test_an_honest_step_copies_nothing_of_a_parts_size(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunConfig(peers=PEERS, task=Plugin("quadratic", {"dimension": SIZE}), steps=STEPS, batch_size=1)
    stage = set_up(run, {}, 0)
    counted, honest = Large(), Peer.handle

    def handle(peer: Peer, event: Input) -> list[Output]:
        with counted:
            return honest(peer, event)

    monkeypatch.setattr(Peer, "handle", handle)
    assert len(list(stage.simulation.run())) > 0
    print(dict(counted.seen))
    # z is made from the randomness (to float32, scaled in place); the last step moves nothing.
    assert counted.seen == Counter(_to_copy=PEERS * STEPS, mul_=PEERS * STEPS)
