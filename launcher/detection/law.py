"""The exact law of detection: how long attackers last against the draw of node/protocol/attempt/verification.py.

The case: n peers, b of them Byzantine, m pairs wanted. From step `start` on, every active Byzantine peer contributes
a false gradient whenever it contributes; as validator it never accuses an accomplice and never accuses an honest
peer. A conviction removes its target (`--on-ban remove`) or reforms it (below).

How the draw works. Let c(t) be the contributors of step t. After step t, r orders c(t) uniformly at random; with
probability 1/k (`--validate-every k`) the first M of the order validate the next M in step t + 1, where M is
`min(allowed_pairs(roster of t + 1), |c(t)| // 2)`. Validators do not contribute (but see below). The verdict on a
gradient of step t is reported in t + 1 and acts at the end of t + 1. So a peer whose gradient of step t is convicted is
still active in t + 1; it contributes there, since a target is no validator; and it may be drawn at the end of t + 1: as
a validator it is replaced by the next active peer of the order, as a target it uses up a pair for nothing.

Why this is a Markov chain. Byzantine peers are exchangeable, so are honest ones, and every draw is a uniform order.
The state during a step needs four numbers:

    (B active Byzantine, V validators that serve instead of contributing, W of them Byzantine, Q doomed)

where a peer is doomed if an honest validator examines its false gradient in this step. The roster has
a = n - (b - B) peers; contributors are Q doomed, L = B - W - Q other Byzantine ("free") and H = (a - B) - (V - W)
honest ones. At the end of the step the doomed leave (B' = B - Q), and the order of the C = Q + L + H contributors
decides the next state. With x and y the numbers of doomed among the M drawn validators and the M targets:

    x ~ Hypergeometric(C, Q, M), y | x ~ Hypergeometric(C - M, Q - x, M)

a removed validator is replaced while active contributors are left in the rest of the order (R = C - 2M - (Q - x - y)
of them), so V' = M - x + min(x, R), and of the V' examined places

    U ~ Hypergeometric(M, M - y, V')

have an active target. Given x, y and U, the peers in all those places are a uniform sample without replacement of the
free and honest contributors, whence

    W' ~ Hypergeometric(H + L, L, V')                           Byzantine validators,
    w  | W' ~ Hypergeometric(V', W', U)                         of them with an active target,
    T  | W' ~ Hypergeometric(H + L - V', L - W', U)             free targets,
    Q' | w, T ~ Hypergeometric(U, U - w, T)                     free targets with an honest validator: doomed.

Where validators contribute too (`--validators-contribute`, the default for odd n), who serves changes nothing in a
step's draw: V = W = 0 in every state, C = a, and the rest is as above.

**Reform** (`--on-ban reform`). A convicted peer stays and is honest from the end of the next step on, so B counts the
attackers that are not reformed yet, a = n throughout, and M never changes. Nobody has to be replaced. A doomed peer
that is drawn serves as an honest validator, and as target it costs a pair, for it is not punished twice: it counts
among the H for the draw, and with M places, all with an active target, the last four lines above are the whole law.

Without doomed peers this is the plain formula of `per_step_probability`. A tagged attacker follows by
exchangeability: given the transition, a free one serves next with probability W'/L, is doomed with Q'/L, else stays
free; a serving one is free in the next step (it did not contribute, so it cannot be drawn); a doomed one is gone.

Attackers that withhold a REVEAL when r would convict an accomplice, and come back: variants.py beside this.

Source: Gorbunov et al. 2021, Algorithm 7 (validators); PROTOCOL sections 3 and 8. Derived for this implementation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Literal, NamedTuple, TypeAlias

from btard.launcher.detection.markov import Chain, Waiting, absorbed, chain
from btard.node.config import Contribute, validators_contribute
from btard.node.errors import ConfigError
from btard.node.protocol.attempt.verification import allowed_pairs


@dataclass(frozen=True, slots=True)
class Setting:
    """What the law depends on.

    Args:
        peers: n, the genesis roster.
        byzantine: b, attackers among them.
        validators: m, pairs wanted (`--validators`).
        validate_every: k; a draw happens with probability 1/k.
        start: the first attacked step; before it the attackers behave and take their turns as validators.
        contribute: validators contribute too (`--validators-contribute`; auto: for odd n).
        on_ban: what a conviction does to its target.

    Raises:
        ConfigError: a number that describes no run.
    """

    peers: int
    byzantine: int
    validators: int = 1
    validate_every: int = 1
    start: int = 0
    contribute: Contribute = "auto"
    on_ban: Literal["remove", "reform"] = "remove"

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        if not 1 <= self.byzantine < self.peers:
            raise ConfigError(f"{self.byzantine} attackers of {self.peers} peers; use 1 to {self.peers - 1}")
        if self.validators < 0 or self.validate_every < 1 or self.start < 0:
            raise ConfigError(f"{self} describes no run; use validators >= 0, validate_every >= 1, start >= 0")

    @property
    def everyone_contributes(self) -> bool:
        """True if validators contribute too."""
        return validators_contribute(self.contribute, self.peers)

    def pairs(self, roster: int, removed: int) -> int:
        """`allowed_pairs` of a roster after removals that count."""
        faults = (self.peers + 1) // 2 - 1
        return allowed_pairs(self.validators, roster, faults, removed, self.everyone_contributes)


@dataclass(frozen=True, slots=True)
class Detection:
    """How long attackers last, counted from the first attacked step.

    Args:
        last_steps: protocol steps in which any attacker was active, removed or reformed by none: the last ban falls in
            step `start + T - 1`.
        last_attacked: those of them in which at least one attacker contributed.
        tagged_steps: protocol steps in which one given attacker was active.
        tagged_contributed: those of them in which it contributed; its convicted gradient is the last but one.
    """

    last_steps: Waiting
    last_attacked: Waiting
    tagged_steps: Waiting
    tagged_contributed: Waiting

    @property
    def hazard(self) -> float:
        """Probability that a contributed false gradient is the one that convicts its sender, averaged over all of
        them, those of the doomed included: convictions by contributions, within the horizon."""
        return (1.0 - self.tagged_contributed.survival[-1]) / self.tagged_contributed.mean


def per_step_probability(contributors: int, byzantine: int, pairs: int, *, validate_every: int = 1) -> float:
    """Probability that one contributed false gradient is convicted, none of the contributors being doomed.

    It is a target with probability M/C, and its validator is one of the C - b honest ones of C - 1 others:
    `M/C (C - b)/(C - 1) / k`.

    Args:
        contributors: C, of the step of the gradient.
        byzantine: b, attackers among them, this one included.
        pairs: pairs allowed in the next step.
        validate_every: k.
    """
    count = min(pairs, contributors // 2)
    if count == 0:
        return 0.0
    return count / contributors * (contributors - byzantine) / (contributors - 1) / validate_every


def detection_distribution(setting: Setting, horizon: int) -> Detection:
    """The exact law of the waiting times, by running the chain for `horizon` attacked steps.

    Args:
        setting: the run.
        horizon: protocol steps after the first attacked one; what lasts longer is the tail of each Waiting.
    """
    before = _before_attack(setting)
    last, tagged = _last(setting, before), _tagged(setting, before)
    return Detection(
        last_steps=absorbed(last, lambda state: True, horizon),
        last_attacked=absorbed(last, lambda state: state.active > state.serving_byzantine, horizon),
        tagged_steps=absorbed(tagged, lambda tagged: True, horizon),
        tagged_contributed=absorbed(tagged, lambda tagged: tagged.role != "serving", horizon),
    )


def time_to_last(setting: Setting, horizon: int) -> Waiting:
    """`Detection.last_steps` alone, at a tenth of the cost of the whole.

    Args:
        setting: the run.
        horizon: protocol steps after the first attacked one; what lasts longer is the tail.
    """
    return absorbed(_last(setting, _before_attack(setting)), lambda state: True, horizon)


# --- the chain ------------------------------------------------------------------------------------------------


class _State(NamedTuple):
    """B, V, W and Q of the module's docstring."""

    active: int
    serving: int
    serving_byzantine: int
    doomed: int


_Role: TypeAlias = Literal["free", "serving", "doomed"]


class _Tagged(NamedTuple):
    """The chain and what one given attacker does in it."""

    state: _State
    role: _Role


def _hypergeometric(population: int, marked: int, drawn: int) -> Iterator[tuple[int, float]]:
    """(marked ones among the drawn, probability)."""
    for hit in range(max(0, drawn - (population - marked)), min(marked, drawn) + 1):
        yield hit, comb(marked, hit) * comb(population - marked, drawn - hit) / comb(population, drawn)


def _pairs(setting: Setting, active_byzantine: int) -> int:
    """`allowed_pairs` of the roster in which that many attackers are left."""
    removed = 0 if setting.on_ban == "reform" else setting.byzantine - active_byzantine
    return setting.pairs(setting.peers - removed, removed)


@lru_cache(maxsize=4096)
def _transitions(setting: Setting, state: _State, attacking: bool) -> tuple[tuple[_State, float], ...]:
    """Next states with their probabilities; `attacking`: the gradients of this step are false."""
    reformed = setting.byzantine - state.active if setting.on_ban == "reform" else 0
    honest = (setting.peers - setting.byzantine) + reformed - (state.serving - state.serving_byzantine)
    free = state.active - state.serving_byzantine - state.doomed
    left = state.active - state.doomed
    contributors = honest + free + state.doomed
    count = min(_pairs(setting, left), contributors // 2)
    happens = 1.0 / setting.validate_every if count else 0.0
    result: dict[_State, float] = defaultdict(float)
    result[_State(left, 0, 0, 0)] += 1.0 - happens
    if not count:
        return tuple(result.items())
    if setting.on_ban == "reform":
        for byzantine, doomed, chance in _fill(honest + state.doomed, free, count, count):
            idle = (0, 0) if setting.everyone_contributes else (count, byzantine)
            result[_State(left, *idle, doomed if attacking else 0)] += happens * chance
        return tuple((after, chance) for after, chance in result.items() if chance > 0.0)
    for x, p_x in _hypergeometric(contributors, state.doomed, count):
        for y, p_y in _hypergeometric(contributors - count, state.doomed - x, count):
            spare = contributors - 2 * count - (state.doomed - x - y)
            serving = count - x + min(x, spare)
            for examined, p_u in _hypergeometric(count, count - y, serving):
                places = happens * p_x * p_y * p_u
                for byzantine, doomed, chance in _fill(honest, free, serving, examined):
                    idle = (0, 0) if setting.everyone_contributes else (serving, byzantine)
                    after = _State(left, *idle, doomed if attacking else 0)
                    result[after] += places * chance
    return tuple((after, chance) for after, chance in result.items() if chance > 0.0)


def _fill(honest: int, free: int, serving: int, examined: int) -> Iterator[tuple[int, int, float]]:
    """(Byzantine validators W', doomed targets Q', probability) of a uniform sample into the places."""
    for byzantine, p_w in _hypergeometric(honest + free, free, serving):
        for lenient, p_l in _hypergeometric(serving, byzantine, examined):
            for targets, p_t in _hypergeometric(honest + free - serving, free - byzantine, examined):
                for doomed, p_q in _hypergeometric(examined, examined - lenient, targets):
                    yield byzantine, doomed, p_w * p_l * p_t * p_q


def _before_attack(setting: Setting) -> dict[_State, float]:
    """The law of the state in step `start`: nobody is doomed, validators took their turns since step 0."""
    law = {_State(setting.byzantine, 0, 0, 0): 1.0}
    for _ in range(setting.start):
        following: dict[_State, float] = defaultdict(float)
        for state, probability in law.items():
            for after, chance in _transitions(setting, state, False):
                following[after] += probability * chance
        law = following
    return law


# --- waiting times --------------------------------------------------------------------------------------------


def _last(setting: Setting, before: Mapping[_State, float]) -> Chain[_State]:
    """The chain while any attacker is active, from the law of the state in step `start`."""

    def moves(state: _State) -> Iterator[tuple[_State | None, float]]:
        for after, chance in _transitions(setting, state, True):
            yield (after if after.active else None), chance

    return chain(before, moves)


def _tagged(setting: Setting, before: Mapping[_State, float]) -> Chain[_Tagged]:
    """The chain while one given attacker is active, from the law of the state in step `start`."""
    law: dict[_Tagged, float] = {}
    for state, probability in before.items():
        serves = state.serving_byzantine / state.active
        law |= {_Tagged(state, "serving"): probability * serves, _Tagged(state, "free"): probability * (1 - serves)}

    def moves(tagged: _Tagged) -> Iterator[tuple[_Tagged | None, float]]:
        if tagged.role == "doomed":
            yield None, 1.0
            return
        for after, chance in _transitions(setting, tagged.state, True):
            for role, share in _next_roles(tagged, after):
                yield _Tagged(after, role), chance * share

    law = {place: probability for place, probability in law.items() if probability}
    return chain(law, moves)


def _next_roles(tagged: _Tagged, after: _State) -> tuple[tuple[_Role, float], ...]:
    """What becomes of a tagged attacker that is not doomed, given the transition."""
    if tagged.role == "serving":
        return (("free", 1.0),)
    state = tagged.state
    free = state.active - state.serving_byzantine - state.doomed
    numbers: tuple[tuple[_Role, int], ...] = (
        ("serving", after.serving_byzantine),
        ("doomed", after.doomed),
        ("free", free - after.serving_byzantine - after.doomed),
    )
    return tuple((role, count / free) for role, count in numbers if count)
