"""What a light cluster is made of: settings, a signature scheme that costs one hash, a task of one line.

Everything here reaches a `Peer` from outside, through the arguments that any driver gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from blake3 import blake3
from torch import Tensor

from btard.node.protocol.attempt.verification import Arithmetic
from btard.node.protocol.peer import Peer
from btard.node.protocol.roster import Roster
from btard.node.protocol.rule import Aggregated, Nearest, Rows, itself
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.wire.encoding import decode_body, encode_body, endorsement_bytes, signing_bytes
from btard.node.protocol.wire.messages import Body, Endorsed, Signed

SECOND = 1_000_000
"""Ticks of virtual time in a second: whole numbers, so that equal instants are equal."""

D = 1 * SECOND
FINGERPRINT = b"adversary"


def key_of(peer: int) -> bytes:
    """The key of a peer, which signs and verifies: puppets sign for themselves alone."""
    return blake3(b"key" + peer.to_bytes(2, "big")).digest()


@lru_cache(maxsize=200_000)
def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """A keyed hash of signature length; takes the place of Ed25519."""
    return blake3(message, key=public).digest(length=64) == signature


def sign(peer: int, body: Body) -> Signed:
    """A body with a peer's signature."""
    data = encode_body(body)
    return Signed(data, blake3(signing_bytes(body, data), key=key_of(peer)).digest(length=64))


def endorse(peer: int, endorsed: Endorsed) -> Endorsed:
    """A relayed view with a peer's endorsement added."""
    before = tuple(other for other, _ in endorsed.endorsements)
    message = endorsement_bytes(endorsed.view.body, decode_body(endorsed.view.body).slot.sender, before)
    signature = blake3(message, key=key_of(peer)).digest(length=64)
    return Endorsed(endorsed.view, (*endorsed.endorsements, (peer, signature)))


class Mean:
    """The mean, as the protocol asks for a rule."""

    audited = False

    def aggregate(self, inputs_NP: Rows, radius: float) -> Aggregated:
        """See Rule."""
        rows_NP = inputs_NP if isinstance(inputs_NP, Tensor) else torch.stack(list(inputs_NP))
        return Aggregated(rows_NP.double().mean(0).float() + 0.0, 1)

    def clip_radius(self, radius: float) -> float:
        """See Rule."""
        return float("inf")

    def slack(self, norms: Sequence[float], radius: float) -> float:
        """See Rule."""
        return 1e-6 * (1.0 + max(norms, default=0.0))

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float, nearest: Nearest = itself) -> bool:
        """See Rule."""
        return bool((inputs_NP.double().mean(0) - value_P.double()).abs().max() <= 1e-5)


class Descent:
    """Plain gradient descent."""

    def initial_state(self, dimension: int) -> Tensor:
        """See Optimiser."""
        return torch.zeros(dimension)

    def apply(
        self, parameters_D: Tensor, state_D: Tensor, gradient: Sequence[Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """See Optimiser."""
        return parameters_D - 0.1 * torch.cat(list(gradient)), state_D


def _sums(gradient_P: Tensor, aggregate_P: Tensor, direction_P: Tensor) -> tuple[float, float]:
    differences = [a - b for a, b in zip(gradient_P.tolist(), aggregate_P.tolist(), strict=True)]
    directions = direction_P[: len(differences)].tolist()
    return sum(a * a for a in differences), sum(a * b for a, b in zip(differences, directions, strict=True))


def _squares(values_P: Tensor) -> float:
    return float(sum(value * value for value in values_P.tolist()))


TOOLS = Tools(Mean(), Descent(), verify, Arithmetic(_sums, _squares))


@lru_cache(maxsize=4096)
def gradient(seed: bytes, dimension: int) -> Tensor:
    """A gradient that is a function of xi alone: whose digest differs wherever xi does."""
    noise = blake3(b"gradient" + seed).digest(length=dimension)
    return torch.tensor([value / 128.0 - 1.0 for value in noise], dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a cluster is, and how long it trains.

    Args:
        peers: n; the last `attackers` ids are puppets.
        attackers: at most f_0.
        steps: with gradients; one more without them ends a run.
        gradient_ms: T_g.
    """

    peers: int
    attackers: int
    steps: int = 3
    gradient_ms: int = 500

    @property
    def settings(self) -> Settings:
        """The protocol's numbers."""
        return Settings(
            run=blake3(b"adversary").digest(), fingerprint=FINGERPRINT, dimension=self.peers, steps=self.steps,
            tau=1.0, validators=1, validate_every=1, delta_max=None, audit_share=0.1, reform=False, data_seed=7,
            delivery_bound_s=D / SECOND, gradient_bound_s=self.gradient_ms / 1000, minimum_rate=1e9,
            recompute_tolerance=0.0,
        )  # fmt: skip

    def peer(self, me: int) -> Peer:
        """A fresh honest peer."""
        roster = Roster.genesis(key_of(other) for other in range(self.peers))
        secret = blake3(b"secret" + me.to_bytes(2, "big")).digest()
        return Peer(self.settings, TOOLS, roster, me, secret, torch.zeros(self.peers))
