"""What raw messages say and prove, worked out from their bytes alone: the checkers' second opinion.

Nothing of `node` is imported here: a mistake in what peers judge with must not hide from those who check them. Written
from PROTOCOL.md; only the wire's layout is shared (docs/protocol.md): a body is a MessagePack array of a tag, the slot,
the prefix and the message's own fields.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COMMIT, AGG, AGG2, REVEAL, CHECKSUMS, REPORT, CLOSE, SUSPECT, OUTCOME = 1, 2, 5, 6, 7, 8, 12, 13, 15
"""Phases by their number in a slot."""

_SAME = 1e-12
"""Relative difference of two float64 sums of the same terms in another order; no lie is worth less."""


# --- messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One signed body, taken apart.

    Args:
        run, roster, step, attempt, phase, sender: its slot.
        prefix: one hash per phase that its sender had finished.
        fields: what it says.
        body: its bytes.
    """

    run: bytes
    roster: bytes
    step: int
    attempt: int
    phase: int
    sender: int
    prefix: tuple[bytes, ...]
    fields: tuple[object, ...]
    body: bytes

    @property
    def place(self) -> tuple[object, ...]:
        """What one peer fills once; a SUSPECT's place includes the slot that it names."""
        slot = (self.run, self.roster, self.step, self.attempt, self.phase, self.sender)
        return (*slot, *self.fields) if self.phase == SUSPECT else slot


@lru_cache(maxsize=10_000)
def told(body: bytes) -> Told:
    """A body from its bytes."""
    _, slot, prefix, *fields = msgspec.msgpack.decode(body)
    return Told(*slot, tuple(prefix), tuple(fields), body)


def contradictory(first: Told, second: Told) -> bool:
    """True if no honest peer says both.

    It fills no place twice, remembers the same past of an attempt whenever it speaks, and is done after its CLOSE.
    """
    if first.place == second.place:
        return first.body != second.body
    attempts = {(each.run, each.roster, each.step, each.attempt, each.sender) for each in (first, second)}
    if len(attempts) > 1:
        return False
    if any(one != other for one, other in zip(first.prefix, second.prefix, strict=False)):
        return True
    later = max(first, second, key=lambda each: len(each.prefix))
    earlier = second if later is first else first
    return earlier.phase == CLOSE and len(later.prefix) > len(earlier.prefix)


def frame(domain: str, *fields: bytes) -> bytes:
    """What is hashed: the domain and each field after its length."""
    return b"".join(len(each).to_bytes(8, "little") + each for each in (domain.encode(), *fields))


def hashed(domain: str, *fields: bytes) -> bytes:
    """BLAKE3 of it."""
    return blake3(frame(domain, *fields)).digest()


def integer(value: int) -> bytes:
    """A number as a field."""
    return value.to_bytes(8, "little", signed=True)


@lru_cache(maxsize=10_000)
def signed_by(key: bytes, body: bytes, signature: bytes) -> bool:
    """True if a signature is the key's, of this very message."""
    said = told(body)
    slot = [said.run, said.roster, said.step, said.attempt, said.phase, said.sender]
    named = list(said.fields) if said.phase == SUSPECT else None
    return stub_signed_by(key, [slot, list(said.prefix), named], hashed("body", body), signature)


def stub_signed_by(key: bytes, place: object, body_digest: bytes, signature: bytes) -> bool:
    """The same where only the place of a message and the digest of its body are left."""
    text = b"btard/2/message\0" + hashed("message", msgspec.msgpack.encode(place), body_digest)
    try:
        VerifyKey(key).verify(text, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


# --- numbers ----------------------------------------------------------------------------------------------------


def bounds(dimension: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many contiguous parts begins and ends; sizes differ by at most one."""
    cuts = [dimension * part // parts for part in range(parts + 1)]
    return list(pairwise(cuts))


def vector_digest(domain: str, fields: Sequence[bytes], values_D: NDArray[np.float32]) -> bytes:
    """Digest of float32 numbers under their owner's name and their shape."""
    hasher = blake3(frame(domain, *fields, struct.pack("<Q", values_D.size)))
    hasher.update(np.ascontiguousarray(values_D, dtype="<f4").tobytes())
    return hasher.digest()


def order_by(r: bytes, peers: Iterable[int]) -> list[int]:
    """The permutation that r draws."""
    return sorted(peers, key=lambda peer: hashed("permutation", r, integer(peer)))


def genesis_r(data_seed: int) -> bytes:
    """The randomness before step 0."""
    return hashed("genesis r", integer(data_seed))


@dataclass(frozen=True, slots=True)
class World:
    """What everybody knows of a run.

    Args:
        dimension, peers, tau, data_seed: of the run.
        rule: name of the aggregation rule; `pre` is true if something comes in front of it.
        tolerance: relative, of claims about float64 sums: 0 on one platform.
        narrow: gradients and aggregates are rounded to bfloat16.
    """

    dimension: int
    peers: int
    tau: float
    data_seed: int
    rule: str
    pre: bool = False
    tolerance: float = 0.0
    narrow: bool = False

    def sent(self, values_P: NDArray[np.float32]) -> NDArray[np.float32]:
        """What becomes of a vector on its way: eight significant bits of each number, down to 2^-133; ties to even."""
        if not self.narrow:
            return values_P
        wide_P = values_P.astype(np.float64)
        unit_P = np.ldexp(1.0, np.maximum(np.frexp(wide_P)[1] - 8, -133))
        return (np.rint(wide_P / unit_P) * unit_P).astype(np.float32)

    def radius(self, size: int) -> float:
        """tau_j of a part with so many entries."""
        return self.tau * math.sqrt(size * self.peers / self.dimension)

    def clip_radius(self, size: int) -> float:
        """Where the checksum s of such a part clips."""
        return self.radius(size) if self.clips else math.inf

    @property
    def clips(self) -> bool:
        """The rule is CenteredClip alone."""
        return self.rule == "centered_clip" and not self.pre

    def aggregate(self, rows_NP: Floats, radius: float) -> Floats | None:
        """What the rule makes of the contributors' rows, in float64; None for rules that are not written down here."""
        if self.pre or self.rule not in ("centered_clip", "mean", "median"):
            return None
        if self.rule == "mean":
            return np.asarray(rows_NP.mean(axis=0))
        middle_P = np.asarray(np.median(rows_NP, axis=0))
        return middle_P if self.rule == "median" else clipped(rows_NP, middle_P, radius)


def clipped(rows_NP: Floats, start_P: Floats, radius: float, rounds: int = 20_000) -> Floats:
    """The v at which `sum_i min(1, radius / |x_i - v|) (x_i - v) = 0`, by repeated weighted averages."""
    value_P = start_P
    for _ in range(rounds):
        distances_N = np.sqrt(((rows_NP - value_P) ** 2).sum(axis=1))
        weights_N = np.minimum(1.0, radius / np.maximum(distances_N, 1e-300))
        new_P = (weights_N[:, None] * rows_NP).sum(axis=0) / weights_N.sum()
        moved = float(np.sqrt(((new_P - value_P) ** 2).sum()))
        value_P = new_P
        if moved <= 1e-9 * radius:
            break
    return value_P


# --- a committed attempt ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Account:
    """One attempt by the messages that an honest peer holds of it.

    Args:
        world: the run.
        step, number, active: of the attempt; the roster, ascending.
        before: the randomness of the step before.
        aggregates: by aggregator, as that peer holds them.
    """

    world: World
    step: int
    number: int
    active: tuple[int, ...]
    before: bytes
    aggregates: dict[int, NDArray[np.float32]]
    said: dict[tuple[int, int], Told] = field(default_factory=dict)

    def take(self, bodies: Iterable[bytes]) -> Account:
        """Note messages; of two for one slot the first, which is the one that counts."""
        for body in bodies:
            each = told(body)
            self.said.setdefault((each.phase, each.sender), each)
        return self

    @property
    def run(self) -> bytes:
        """The run's name in every slot."""
        return next(iter(self.said.values())).run

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The split."""
        return bounds(self.world.dimension, len(self.active))

    def fields(self, phase: int, peer: int) -> tuple[object, ...]:
        """What a peer said in a phase."""
        return self.said[phase, peer].fields

    @property
    def contributors(self) -> tuple[int, ...]:
        """Those that committed to a gradient."""
        return tuple(peer for peer in self.active if self.fields(COMMIT, peer)[0])

    @property
    def r(self) -> bytes:
        """The randomness: a hash of all that was revealed."""
        opened = (self.fields(REVEAL, peer)[0] for peer in self.active)
        return hashed("r", integer(self.step), integer(self.number), *opened)  # type: ignore[arg-type]

    def batch_seed(self, peer: int) -> bytes:
        """Where everything random in a peer's gradient comes from."""
        return hashed("batch", integer(self.world.data_seed), self.before, integer(self.step), integer(peer))

    def part_committed(self, owner: int, part: int, values_P: NDArray[np.float32]) -> bool:
        """True if these are the bytes that a contributor committed to."""
        digests = self.fields(COMMIT, owner)[0]
        assert isinstance(digests, list)
        return bool(digests) and self._digest("part", owner, part, values_P) == digests[part]

    def aggregate_committed(self, owner: int) -> bool:
        """True if the aggregate that is held here is the one its aggregator committed to."""
        value = self.fields(AGG, owner)[0]
        if not isinstance(value, bytes):
            value = self.fields(AGG2, owner)[0]
        return self._digest("aggregate", owner, self.active.index(owner), self.aggregates[owner]) == value

    def _digest(self, domain: str, owner: int, part: int, values_P: NDArray[np.float32]) -> bytes:
        name = (self.run, integer(self.step), integer(self.number), integer(owner), integer(part))
        return vector_digest(domain, name, values_P)

    def claim(self, owner: int, part: int) -> tuple[float, float]:
        """(s, norm) as a contributor claims them."""
        s, norms = self.fields(CHECKSUMS, owner)
        assert isinstance(s, list)
        assert isinstance(norms, list)
        return float(s[part]), float(norms[part])

    def truth(self, part: int, values_P: NDArray[np.float32]) -> tuple[float, float]:
        """(s, norm) as a contributor's bytes give them (equation 3 of the report); zeros against an aggregate that
        holds no number."""
        aggregate_P = self.aggregates[self.active[part]]
        if not np.isfinite(aggregate_P).all():
            return 0.0, 0.0
        stream = blake3(len(b"z").to_bytes(8, "little") + b"z" + self.r).digest(length=2 * values_P.size)
        z_P = np.frombuffer(stream, dtype="<i2").astype(np.float32) * np.float32(1 / math.sqrt((2.0**32 - 1) / 12))
        difference_P = values_P.astype(np.float64) - aggregate_P.astype(np.float64)
        norm = math.sqrt(math.fsum(difference_P**2))
        radius = self.world.clip_radius(values_P.size)
        shrunk = 1.0 if norm <= radius else radius / norm
        return math.fsum(difference_P * z_P.astype(np.float64)) * shrunk, norm

    def lies(self, owner: int, part: int, values_P: NDArray[np.float32]) -> bool:
        """True if a contributor's claim about a part is not what its bytes give."""
        (claimed_s, claimed_norm), (s, norm) = self.claim(owner, part), self.truth(part, values_P)
        if not (math.isfinite(claimed_s) and math.isfinite(claimed_norm)):  # what is granted would have no end
            return True
        granted = max(_SAME, self.world.tolerance)
        scale = max(abs(norm), abs(claimed_norm))
        # Terms of s may cancel: what the order of summation loses is measured by what was added.
        near_s = granted * 8.0 * max(min(scale, self.world.clip_radius(values_P.size)), abs(s))
        return not (abs(claimed_norm - norm) <= granted * scale and abs(claimed_s - s) <= near_s)

    def gradient_false(self, owner: int, true_D: NDArray[np.float32]) -> bool:
        """True if a contributor committed to other bytes than its gradient, or claimed what they do not give."""
        slices = [self.world.sent(true_D[start:stop]) for start, stop in self.parts]
        if not all(self.part_committed(owner, part, values_P) for part, values_P in enumerate(slices)):
            return True
        return any(self.lies(owner, part, values_P) for part, values_P in enumerate(slices))

    @property
    def verdicts(self) -> dict[int, list[tuple[int, bool]]]:
        """(target, called correct) by validator."""
        found = {}
        for peer in self.active:
            reported = self.fields(REPORT, peer)[1]
            assert isinstance(reported, list)
            found[peer] = [(target, correct) for target, correct in reported]
        return found

    def checkers(self, due: Sequence[tuple[int, int, int]], count: int) -> dict[int, list[tuple[int, int, int]]]:
        """Who recomputes which (step, attempt, owner) in an undo step: going round the permutation that the last r
        draws, `count` peers for each, none of them its owner."""
        shares: dict[int, list[tuple[int, int, int]]] = {}
        for place, item in enumerate(due):
            others = [peer for peer in order_by(self.before, self.active) if peer != item[2]]
            first = place * count
            for turn in range(min(count, len(others))):
                shares.setdefault(others[(first + turn) % len(others)], []).append(item)
        return shares

    @property
    def holds(self) -> dict[int, list[bool]]:
        """In an undo step: what each peer says of the contributions that are its to check."""
        found = {}
        for peer in self.active:
            bits = self.fields(REPORT, peer)[5]
            assert isinstance(bits, list)
            found[peer] = bits
        return found


# --- certificates -----------------------------------------------------------------------------------------------


def roster_digest(keys: Sequence[bytes], active: Sequence[int], founders: int | None = None) -> bytes:
    """The roster's name in every slot; of keys beyond the founders' those of active peers are part of it."""
    first = len(keys) if founders is None else founders
    joined = [keys[peer] for peer in active if peer >= first]
    return hashed("roster", *keys[:first], b"active", *map(integer, active), *joined)


def certified(
    messages: Sequence[tuple[bytes, bytes]], keys: Sequence[bytes], active: Sequence[int], founders: int | None = None
) -> object:
    """The value that signed messages (body, signature) certify for a roster: n CLOSEs equal in value and prefix, or
    equal OUTCOMEs of more than half.

    Raises:
        AssertionError: they certify nothing.
    """
    bodies = [told(body) for body, _ in messages]
    for each, (body, signature) in zip(bodies, messages, strict=True):
        assert each.sender in active, f"peer {each.sender} has no say"
        assert each.roster == roster_digest(keys, active, founders), f"peer {each.sender} speaks of another roster"
        assert signed_by(keys[each.sender], body, signature), f"the signature of peer {each.sender} is not valid"
    assert len({(each.run, each.step, each.attempt, each.phase) for each in bodies}) == 1, "of several attempts"
    senders = {each.sender for each in bodies}
    words = {msgspec.msgpack.encode(each.fields) for each in bodies}
    assert len(words) == 1, "they differ"
    if bodies[0].phase == OUTCOME:
        assert 2 * len(senders) > len(active), f"{sorted(senders)} are no majority of {active}"
    else:
        assert bodies[0].phase == CLOSE, f"messages of phase {bodies[0].phase} certify nothing"
        assert senders == set(active), f"CLOSEs of {sorted(senders)} instead of {active}"
        assert len({each.prefix for each in bodies}) == 1, "the CLOSEs end different transcripts"
    return bodies[0].fields[0]
