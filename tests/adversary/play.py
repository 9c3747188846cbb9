"""Plays a line of the choice language, and tells it as a story."""

from __future__ import annotations

from dataclasses import dataclass, replace

from btard.node.protocol.api import Committed, PhaseEntered
from tests.adversary.cluster import Size
from tests.adversary.moves import act, is_style, is_wait, style_of, wait
from tests.adversary.oracle import violation
from tests.adversary.world import World


@dataclass(frozen=True, slots=True)
class Played:
    """One run, over.

    Args:
        world: as it ended.
        broken: see `violation`.
        ignored: words that made no sense when their turn came.
    """

    world: World
    broken: str | None
    ignored: tuple[str, ...]


def advance(world: World) -> str | None:
    """One instant on; the promise that it broke, if any."""
    seen = len(world.notices)
    world.go()
    news = any(not isinstance(notice, PhaseEntered | str) for _, _, notice in world.notices[seen:])
    return violation(world, world.over) if news or world.over else None


def new(size: Size, words: list[str], kills: bool = False) -> World:
    """A world in the style that a line gives; its peers keep what a restart needs if the line, or `kills`, asks it."""
    for word in words:
        if word[:2] == "tg":
            size = replace(size, gradient_ms=int(word[2:]))
    return World(
        size, style_of([word for word in words if is_style(word)]), kills or any(word[:4] == "kill" for word in words)
    )


def after(size: Size, words: list[str], kills: bool = False) -> World:
    """A world in which all words of a line have been done; none may make no sense.

    Raises:
        ValueError: one does not.
    """
    world = new(size, words, kills)
    for word in words:
        if is_wait(word):
            world = wait(world, word)
        elif not is_style(word) and not act(world, word):
            raise ValueError(f"{word!r} makes no sense at {world.now / 1e6:.6f} s")
    return world


def play(size: Size, line: str) -> Played:
    """From the start to the end, judged at every instant."""
    words = [word.strip() for word in line.split(",") if word.strip()]
    world, ignored = new(size, words), list[str]()
    for word in words:
        if is_style(word):
            continue
        if is_wait(word):
            world = wait(world, word)
        elif not act(world, word):
            ignored.append(word)
        else:
            world.notices.append((world.now, -1, word))
    broken = violation(world, False)
    while broken is None and not world.over:
        broken = advance(world)
    return Played(world, broken or violation(world, True), tuple(ignored))


def story(played: Played) -> str:
    """What happened, a line an event."""
    lines = []
    for now, me, notice in played.world.notices:
        who = f"peer {me}" if me >= 0 else "ADVERSARY"
        match notice:
            case str():
                text = notice
            case PhaseEntered(step=step, attempt=attempt, phase=phase):
                text = f"enters {phase} of step {step}.{attempt}"
            case Committed():
                text = f"commits step {notice.step}.{notice.attempt}, roster {notice.active}"
            case _:
                text = str(notice).partition(", evidence=")[0][:160]
        lines.append(f"{now / 1e6:10.6f}  {who:9}  {text}")
    lines += [f"ignored: {', '.join(played.ignored)}"] if played.ignored else []
    lines.append(f"{played.world.now / 1e6:10.6f}  VERDICT    {played.broken or 'every promise held'}")
    return "\n".join(lines)
