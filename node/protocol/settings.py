"""What a Peer is built with: the run's agreed numbers and the functions that the core is given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from torch import Tensor

from btard.node.limits import Wire
from btard.node.protocol.attempt.verification import Arithmetic
from btard.node.protocol.rule import Rule
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body
from btard.node.protocol.wire.precision import PRECISIONS, Precision

CROSS_PLATFORM_TOLERANCE = 1e-9
"""Relative tolerance of s and norm between machines whose float64 sums round differently."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers all peers agree on (node/config.py gives their meaning and defaults).

    Args:
        run: digest of the run's genesis, the first field of every slot.
        validators_contribute: a validator computes a gradient of its own too.
        shards: xi names its peer too, whose examples it draws from.
        optimiser_entries: of the optimiser's state (None: as many as parameters).
        fingerprint: this machine's environment; peers compare it in HELLO.
        delivery_bound_s, gradient_bound_s: D and T_g; where they are measured (`measure_...`), at most these.
        budget_delivery_s, budget_gradient_s: D and T_g as budgets and reminders go by them (None: as deadlines do);
            agreed on after step 0 with `tight_budgets`.
        wire: what the entries of parts and aggregates travel as.
    """

    run: bytes
    fingerprint: bytes
    dimension: int
    steps: int
    tau: float
    validators: int
    validate_every: int
    delta_max: float | None
    audit_share: float
    reform: bool
    data_seed: int
    delivery_bound_s: float
    gradient_bound_s: float
    minimum_rate: float
    recompute_tolerance: float
    validators_contribute: bool = False
    shards: bool = False
    optimiser_entries: int | None = None
    probation: int = 0
    roster: Literal["closed", "sponsored", "open"] = "closed"
    members: int = 0
    admit_every: int = 30
    undo: int = 0
    measure_delivery: bool = False
    measure_gradient: bool = False
    tight_budgets: bool = False
    budget_delivery_s: float | None = None
    budget_gradient_s: float | None = None
    wire: Wire = "float32"
    precision: Precision = field(init=False, repr=False, compare=False)
    """How the entries of parts and aggregates travel."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", PRECISIONS[self.wire])

    @property
    def claim_tolerance(self) -> float:
        """How far a claimed checksum may lie from ours: nothing on one platform."""
        return CROSS_PLATFORM_TOLERANCE if self.recompute_tolerance > 0 else 0.0

    def bounded(self, bounds: Sequence[int]) -> Settings:
        """These settings with the bounds in milliseconds that were agreed on; as stated before there are any."""
        if not bounds:
            return self
        delivery_s, gradient_s, budget_delivery_s, budget_gradient_s = (bound / 1000 for bound in bounds)
        return replace(
            self,
            delivery_bound_s=delivery_s,
            gradient_bound_s=gradient_s,
            budget_delivery_s=budget_delivery_s if self.tight_budgets else None,
            budget_gradient_s=budget_gradient_s if self.tight_budgets else None,
        )


class Optimiser(Protocol):
    """The agreed update; returns new tensors, since peers keep the old ones for judging."""

    def initial_state(self, dimension: int) -> Tensor:
        """Optimiser state before step 0."""

    def apply(
        self, parameters_D: Tensor, state_D: Tensor, gradient: Sequence[Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """(parameters, state) after a step with the aggregate, given in parts."""


Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> valid; strict, never raises on a peer's bytes."""

Decode = Callable[[bytes], Body]
"""Canonical bytes -> the message body; raises WireError on all others."""


def _unexplained(_here: bytes, _there: bytes) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions given to a Peer: the aggregation rule, the update, the signature check, the passes over vectors,
    what differs between two fingerprints, in words, and the reading of a message body."""

    rule: Rule
    optimiser: Optimiser
    verify: Verify
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    explained: Callable[[bytes, bytes], str] = _unexplained
    decode: Decode = decode_body
