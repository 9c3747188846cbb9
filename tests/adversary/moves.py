"""The choice language: what the adversary may do at an instant, each move a word, a run a line of words.

near,c            links and outcomes of the run (see Style); `slow0=5000`: peer 0 computes 5000 ms;
                  `block0=5000`: and is deaf meanwhile
+7                seven instants pass
@CLOSE1           until a puppet has a fresh message of that phase and step
<Suspected        until just before the timer that makes an honest peer report this
>Suspected        until an honest peer has reported it
hold:5:CLOSE:01   puppet 5 keeps its fresh message from honest peers 0 and 1
give:5:CLOSE:0    a kept message goes to peer 0
twin:5:CLOSE:01   they get another valid one instead; `both`: both; `bad`: a malformed one; `odd`: another prefix
trip:5:01         a trigger of peer 0's attempt (two COMMITs of 5) reaches 0 and 1; `trip:5:01-`: of the one before;
                  `trip:5:01:3`: of peer 3's attempt
susp:4:01         all other puppets suspect 4 in peer 0's phase, toward 0 and 1
view:5:01:2full   5 shows a view of peer 0's attempt, endorsed to a chain of 2: `full`, `bare` (no CLOSE), `second`
                  (with a second COMMIT), `trip` (only two COMMITs of 5); `-` at the end: of the attempt before
fate:4:23:silent  all puppets sign, for peer 2's attempt, the OUTCOME that removes 4 as silent, toward 2 and 3; a
                  number behind the reason names another peer whose attempt it is
votes:1:23        each puppet signs four times, under other prefixes, the OUTCOME that removes 1 from peer 2's attempt,
                  toward 2 and 3
kill:0:2000       honest peer 0 is killed, and starts again after 2000 ms
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed
from itertools import combinations

import msgspec

from btard.node.protocol.api import MessageArrived, ViewArrived
from btard.node.protocol.wire.messages import Endorsed, Phase
from tests.adversary import craft
from tests.adversary.cluster import SECOND, endorse, sign
from tests.adversary.craft import crafted
from tests.adversary.snapshot import Snapshot
from tests.adversary.world import Style, Utterance, Where, World

CONTENTS = ("full", "bare", "second", "trip")
LINKS = ("near", "far", "slow0", "camp2", "odd")
REASONS = ("equivocation", "malformed", "silent")
KILLS_MS = (0, 500, 3600)
_MS = SECOND // 1000


def style_of(words: list[str]) -> Style:
    """The style that the first words of a line give."""
    style = Style()
    for word in words:
        kind = next((kind for kind in ("block", "slow") if word.startswith(kind) and "=" in word), "")
        if kind:
            peer, _, ms = word[len(kind) :].partition("=")
            style = changed(style, computing=int(peer), busy=int(ms) * _MS, deaf=kind == "block")
        elif word in LINKS:
            style = changed(style, links=word)
        elif word[:2] != "tg":
            style = changed(style, outcomes=word)
    return style


def is_style(word: str) -> bool:
    """True for words that describe a whole run."""
    timed = word.startswith(("block", "slow")) and "=" in word
    return word in LINKS or word in ("c", "r", "n") or timed or word.startswith("tg")


def _digits(peers: tuple[int, ...]) -> str:
    return "".join(map(str, peers))


def _named(text: str) -> tuple[int, ...]:
    return tuple(int(digit) for digit in text)


# --- what there is to choose ------------------------------------------------------------------------------------------


def subsets(world: World, among: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Sets of honest peers, one of each kind: those that were treated alike so far are interchangeable.

    They differ still in their places and, as validators, in what they compute; the search keeps validators apart.
    """
    classes: dict[object, list[int]] = {}
    for peer in among:
        classes.setdefault((world.treated[peer], world.place[peer], _validates(world, peer)), []).append(peer)
    groups = list(classes.values())

    def choose(place: int, taken: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if place == len(groups):
            if taken:
                yield tuple(sorted(taken))
            return
        for count in range(len(groups[place]) + 1):
            yield from choose(place + 1, (*taken, *groups[place][:count]))

    yield from choose(0, ())


def all_subsets(among: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every set of honest peers."""
    for count in range(1, len(among) + 1):
        yield from combinations(among, count)


def _validates(world: World, peer: int) -> bool:
    attempt = world.peers[peer].attempt
    return attempt is not None and peer not in attempt.contributors


def menu(world: World, kills: bool = False, everything: bool = False) -> list[str]:
    """The words of all moves that make sense now.

    Args:
        kills: restarts too.
        everything: without symmetry reduction.
    """
    words: list[str] = []
    honest = tuple(peer for peer in world.honest if not world.peers[peer].stopped and peer not in world.away)

    def sets(among: tuple[int, ...]) -> list[tuple[int, ...]]:
        alive = tuple(peer for peer in among if peer in honest)
        return list(all_subsets(alive) if everything else subsets(world, alive))

    for said in world.pool:
        name = said.body.slot.phase.name
        made = [kind for kind in craft.KINDS if crafted(kind, said.body) is not None]
        verbs = ("give", *made)
        if said.fresh:
            verbs = ("hold", *made, *(("both",) if "twin" in made else ()))
        words += [f"{verb}:{said.sender}:{name}:{_digits(some)}" for verb in verbs for some in sets(said.waiting)]
    for puppet in world.puppets:
        for some in sets(honest):
            for back in ("", "-") if len(world.attempts[some[0]]) > 1 else ("",) if world.attempts[some[0]] else ():
                words.append(f"trip:{puppet}:{_digits(some)}{back}")
                for content in CONTENTS:
                    for chain in range(1, len(world.puppets) + 1):
                        words.append(f"view:{puppet}:{_digits(some)}:{chain}{content}{back}")
            if world.attempts[some[0]]:
                named = puppet if len(world.puppets) > 1 else next(peer for peer in world.honest if peer != some[0])
                words.append(f"susp:{named}:{_digits(some)}")
                words += [f"fate:{puppet}:{_digits(some)}:{reason}" for reason in REASONS]
                if puppet == min(world.puppets):  # all of them vote
                    other = next(peer for peer in reversed(world.honest) if peer != some[0])
                    words.append(f"votes:{other}:{_digits(some)}")
    if kills:
        # Whoever is away counts as faulty: one peer of a run is.
        once = tuple(peer for peer in honest if not world.restarted or peer in world.restarted)
        words += [f"kill:{some[0]}:{ms}" for some in sets(once) if len(some) == 1 for ms in KILLS_MS]
    return words


# --- doing it ---------------------------------------------------------------------------------------------------------


def act(world: World, word: str) -> bool:
    """Do one move; false, and nothing happens, if it makes no sense now."""
    verb, *rest = word.split(":")
    match verb, rest:
        case (("hold" | "give" | "twin" | "both" | "bad" | "odd"), [puppet, phase, some]):
            targets = _named(some)
            done = _utter(world, verb, int(puppet), phase, targets)
        case "trip", [puppet, some, *whose]:
            targets = _named(some.rstrip("-"))
            peer = int(whose[0]) if whose else targets[0]
            done = _trip(world, int(puppet), targets, _where(world, peer, some.endswith("-")))
        case "susp", [peer, some]:
            targets = _named(some)
            done = _suspect(world, int(peer), targets)
        case "view", [puppet, some, what]:
            targets = _named(some)
            done = _view(world, int(puppet), targets, int(what[0]), what[1:].rstrip("-"), what.endswith("-"))
        case "fate", [peer, some, reason]:
            targets = _named(some)
            done = _fate(world, int(peer), targets, reason)
        case "votes", [peer, some]:
            targets = _named(some)
            done = _votes(world, int(peer), targets)
        case "kill", [peer, ms]:
            targets = (int(peer),)
            done = _kill(world, int(peer), int(ms) * _MS)
        case _:
            raise ValueError(f"{word!r} is no move")
    if done:
        label = f"{verb}:{word.split(':')[1]}:{word.split(':')[2] if verb in ('hold', 'give', 'twin') else ''}"
        for target in targets:
            world.treated[target] = (*world.treated[target], label)
            world.deviated.add(world.place[target][:2])
        world.settle()
    return done


def _found(world: World, verb: str, puppet: int, phase: str, targets: tuple[int, ...]) -> Utterance | None:
    """The newest that fits: a fresh one, or one that was kept."""
    fits = {"give": (False,), "hold": (True,), "both": (True,)}.get(verb, (True, False))
    found = [said for said in world.pool if said.fresh in fits and said.sender == puppet
             and said.body.slot.phase.name == phase and set(targets) <= set(said.waiting)]  # fmt: skip
    return found[-1] if found else None


def _utter(world: World, verb: str, puppet: int, phase: str, targets: tuple[int, ...]) -> bool:
    said = _found(world, verb, puppet, phase, targets)
    if said is None:
        return False
    if verb == "give":
        world.learn(said.body.slot.where, said.signed)
        world.tell(puppet, targets, said.signed)
        said.waiting = tuple(peer for peer in said.waiting if peer not in targets)
        return True
    if verb == "hold":
        world.hold(said, targets)
        return True
    other = crafted("twin" if verb == "both" else verb, said.body)
    if other is None:
        return False
    signed = sign(puppet, other)
    world.learn(other.slot.where, signed)
    if verb == "both":
        world.tell(puppet, targets, signed, after=2_000)
        return True
    if said.fresh:
        world.hold(said, targets)
        world.tell(puppet, targets, signed, after=1_000)
    else:
        world.tell(puppet, targets, signed)
    return True


def _where(world: World, peer: int, back: bool) -> Where | None:
    attempts = world.attempts[peer]
    if len(attempts) < 1 + back:
        return None
    return attempts[-2] if back else attempts[-1]


def _trip(world: World, puppet: int, targets: tuple[int, ...], where: Where | None) -> bool:
    if where is None:
        return False
    for body in craft.equivocation(where, puppet):
        world.tell(puppet, targets, sign(puppet, body))
    return True


def _suspect(world: World, peer: int, targets: tuple[int, ...]) -> bool:
    where, phase = _where(world, targets[0], False), world.place[targets[0]][2]
    if where is None or not Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value:
        return False
    signers = [puppet for puppet in world.puppets if puppet != peer]
    for puppet in signers:
        world.tell(puppet, targets, sign(puppet, craft.suspicion(where, puppet, phase, peer)))
    return bool(signers)


def _fate(world: World, peer: int, targets: tuple[int, ...], reason: str) -> bool:
    whose = int(reason[-1]) if reason[-1].isdigit() else targets[0]
    where = _where(world, whose, False)
    if where is None:
        return False
    for puppet in world.puppets:
        world.tell(puppet, targets, sign(puppet, craft.fate(where, puppet, peer, reason.rstrip("0123456789"))))
    return True


def _votes(world: World, peer: int, targets: tuple[int, ...]) -> bool:
    where = _where(world, targets[0], False)
    if where is None:
        return False
    for puppet in world.puppets:
        once = craft.fate(where, puppet, peer, "silent")
        for prefix in ((), *((bytes([number]) * 32,) for number in range(3))):
            world.tell(puppet, targets, sign(puppet, msgspec.structs.replace(once, prefix=prefix)))
    return True


def _view(world: World, puppet: int, targets: tuple[int, ...], chain: int, content: str, back: bool) -> bool:
    where = _where(world, targets[0], back)
    if where is None:
        return False
    two = tuple(sign(puppet, body) for body in craft.equivocation(where, puppet))
    known = () if content == "trip" else tuple(world.known.get(where, ()))
    extra = two if content == "trip" else two[:1] if content == "second" else ()
    endorsed = Endorsed(sign(puppet, craft.view(where, puppet, known, extra, content != "bare")), ())
    others = [other for other in world.puppets if other != puppet]
    for other in others[: chain - 1]:
        endorsed = endorse(other, endorsed)
    event = ViewArrived(puppet, endorsed) if endorsed.endorsements else MessageArrived(puppet, endorsed.view)
    for peer in targets:
        world.push(1, peer, event)
    return True


def _kill(world: World, peer: int, after: int) -> bool:
    if world.restarted - {peer}:
        return False  # one peer alone restarts: while it is away it counts as faulty
    if peer not in world.disks or peer in world.away or world.peers[peer].stopped:
        return False
    world.restart(peer, after)
    return True


# --- waiting ----------------------------------------------------------------------------------------------------------


def wait(world: World, word: str) -> World:
    """Let instants pass as a word says; the world that follows (perhaps another copy)."""
    if word.startswith("+"):
        for _ in range(int(word[1:])):
            if world.over:
                break
            world.go()
        return world
    if word.startswith("@"):
        phase, step = word[1:].rstrip("0123456789"), int(word[1:].lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
        while not world.over and not any(
            said.fresh and (said.body.slot.phase.name, said.body.slot.step) == (phase, step) for said in world.pool
        ):
            world.go()
        return world
    before, name = word[0] == "<", word[1:]
    name = f"says {name}" if name.isupper() else name
    while not world.over:
        seen = len(world.notices)
        last = Snapshot.of(world) if before else None
        world.go()
        if any(name in (type(notice).__name__, notice) for _, _, notice in world.notices[seen:]):
            return last.world() if last is not None else world
    return world


def is_wait(word: str) -> bool:
    """True for words that let time pass."""
    return word[0] in "+@<>"
