"""What the nodes of one process compute once for all of them: signature checks, the reading of messages and gradients
are pure functions."""

from __future__ import annotations

from torch import Tensor

from btard.node.build import Compute
from btard.node.protocol.settings import Decode, Verify
from btard.node.protocol.state.state import parameters_digest
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body
from btard.node.training.task import BatchTransform, Task


def remembering(verify: Verify) -> Verify:
    """A signature check that remembers its last answers: all nodes of a simulation check the same messages."""
    known: dict[tuple[bytes, bytes, bytes], bool] = {}

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        key = (public, message, signature)
        if key not in known:
            if len(known) > 4096:
                known.clear()
            known[key] = verify(public, message, signature)
        return known[key]

    return check


def remembering_bodies() -> Decode:
    """`decode_body` that remembers its last results: what n nodes keep of one message is one object, not n."""
    known: dict[bytes, Body] = {}

    def decode(data: bytes) -> Body:
        if data not in known:
            if len(known) > 4096:
                known.clear()
            known[data] = decode_body(data)
        return known[data]

    return decode


def remembering_gradients(task: Task, keep: int = 64) -> Compute:
    """Task.gradient that remembers honest results: a validator recomputes what a contributor has computed, and the
    function is pure, so the bits are the same."""
    known: dict[tuple[bytes, bytes], tuple[Tensor, float]] = {}

    def compute(parameters_D: Tensor, seed: bytes, transform: BatchTransform | None) -> tuple[Tensor, float]:
        if transform is not None:
            return task.gradient(parameters_D, seed, transform)
        key = (parameters_digest(parameters_D), seed)
        if key not in known:
            while len(known) >= keep:
                known.pop(next(iter(known)))
            known[key] = task.gradient(parameters_D, seed)
        return known[key]

    return compute
