"""The language of scenarios: one line for each thing that happens to a run, checked before it starts.

at step 100 partition 0,1 | 2,3,4,5
from 30s to 60s delay 0->4 50ms jitter 10ms
from step 20 loss all 1%
at 90s kill 5
at 95s pause 3 for 2s          # as under a debugger, or a machine that swaps
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from btard.launcher.options import syntax
from btard.launcher.options.syntax import FIELDS, pairs
from btard.node.errors import ConfigError
from btard.node.netem.conditions import Change, Churn, Event, Window
from btard.node.netem.network import QUIET, changed

_TOKEN = re.compile(r"<->|->|[,|*]|-?[^\s,|*<>-]+(?:-(?!>)[^\s,|*<>-]+)*|\S")


class ScenarioError(ConfigError):
    """A mistake in a scenario, with its place."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word and where it begins, columns counting from 1."""

    text: str
    column: int


@dataclass(slots=True)
class Line:
    """The words of one line, taken from left to right."""

    source: str
    number: int
    text: str
    words: list[Word]
    place: int = 0

    def error(self, problem: str, word: Word | None = None) -> ScenarioError:
        """A mistake at a word (None: at the next one, or behind the end)."""
        at = word or (self.words[self.place] if self.place < len(self.words) else None)
        column = at.column if at is not None else len(self.text.rstrip()) + 1
        return ScenarioError(f"{self.source}:{self.number}:{column}: {problem}")

    def peek(self) -> str | None:
        """The next word, None at the end."""
        return self.words[self.place].text if self.place < len(self.words) else None

    def take(self, what: str) -> Word:
        """The next word, which must be there."""
        if self.place >= len(self.words):
            raise self.error(f"the line ends where {what} is expected")
        self.place += 1
        return self.words[self.place - 1]

    def skip(self, text: str) -> bool:
        """True, and past it, if the next word is this one."""
        found = self.peek() == text
        self.place += found
        return found

    def read(self, word: Word, parse: Callable[[str], float]) -> float:
        """A value, or the mistake in it at its place."""
        try:
            return parse(word.text)
        except ConfigError as error:
            raise self.error(str(error), word) from error


def scan(source: str, number: int, text: str) -> Line:
    """A line's words.

    Args:
        source: what to call its file.
        number: of the line, from 1.
        text: without a comment.
    """
    return Line(source, number, text, [Word(match[0], match.start() + 1) for match in _TOKEN.finditer(text)])


Action = Literal["kill", "restart", "pause", "continue"]
_ACTIONS: Mapping[str, Action] = {"kill": "kill", "restart": "restart", "pause": "pause", "continue": "continue"}


@dataclass(frozen=True, slots=True)
class Script:
    """A checked scenario: what happens to the links, what to processes, and what a user should be warned of."""

    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()
    churn: tuple[Churn, ...] = ()
    warnings: tuple[str, ...] = ()


def load(path: Path, peers: int, steps: int) -> Script:
    """Read and check a scenario.

    Args:
        path: the file.
        peers, steps: of the run.

    Raises:
        ConfigError: it cannot be read, or a mistake with its line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"--scenario {path} cannot be read: {reason}; name a scenario file") from error
    return parse(text, path.name, peers, steps)


def parse(text: str, source: str, peers: int, steps: int) -> Script:
    """A scenario from its text.

    Args:
        text: the lines.
        source: what to call them in a message.
        peers, steps: of the run.

    Raises:
        ScenarioError: a mistake, with its line and column.
    """
    found = _Parser(peers, steps)
    for number, content in enumerate(text.splitlines(), start=1):
        code = content.partition("#")[0]
        line = scan(source, number, code)
        if line.words:
            found.statement(line)
    return Script(tuple(found.changes), tuple(found.events), tuple(found.churn), tuple(found.warnings))


@dataclass(slots=True)
class _Parser:
    """Collects statements; knows who is still there, to refuse what cannot be done."""

    peers: int
    steps: int
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    churn: list[Churn] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    """Peers that may have ended by themselves: cut off from a quorum, or paused for a while."""

    def statement(self, line: Line) -> None:
        """One line."""
        first = line.words[0]
        window = self._window(line)
        verb = line.take("what happens")
        match verb.text:
            case "partition":
                self._partition(line, window, verb)
            case "cut":
                self._change(line, window, {}, self._links(line), cut=True)
            case "churn":
                self._come_and_go(line, window, first)
            case name if name in _ACTIONS and first.text == "at":
                self._event(line, window, verb)
            case name if name in _ACTIONS:
                raise line.error(f"{verb.text} happens at one moment; write `at` instead of `from`", first)
            case name if name in FIELDS:
                self._values(line, window, verb)
            case _:
                known = ["partition", "cut", *_ACTIONS, "churn", *FIELDS]
                raise line.error(f"{verb.text!r} is none of {', '.join(known)}", verb)
        if line.peek() is not None:
            raise line.error(f"nothing may follow here, and {line.peek()!r} does")

    def _window(self, line: Line) -> Window:
        first = line.take("`at` or `from`")
        if first.text not in ("at", "from"):
            raise line.error(f"a line begins with `at` or `from`, not with {first.text!r}", first)
        unit, start = self._moment(line)
        if first.text == "at" or not line.skip("to"):
            return Window(unit, start)
        ends = line.words[line.place] if line.place < len(line.words) else None
        unit_, stop = self._moment(line)
        if unit_ != unit:
            raise line.error("both ends must be steps, or both times", ends)
        if stop <= start:
            raise line.error("it ends before it begins", ends)
        return Window(unit, start, stop)

    def _moment(self, line: Line) -> tuple[Literal["s", "step"], float]:
        """`step 100` or `30s`."""
        if line.skip("step"):
            word = line.take("the number of a step")
            step = line.read(word, syntax.integer)
            if not 0 <= step <= self.steps:
                raise line.error(f"there is no step {word.text}; the run's are 0 to {self.steps}", word)
            return "step", step
        word = line.take("a time or a step")
        time_s = line.read(word, syntax.seconds)
        if time_s < 0:
            raise line.error(f"{word.text} is before the run; times count from its first step", word)
        return "s", time_s

    def _peer(self, line: Line, word: Word) -> int:
        if not word.text.isdecimal():
            raise line.error(f"{word.text!r} is not a peer; write its number", word)
        if int(word.text) >= self.peers:
            raise line.error(f"there is no peer {word.text}; the peers are 0 to {self.peers - 1}", word)
        return int(word.text)

    def _group(self, line: Line, taken: set[int]) -> tuple[int, ...]:
        """Peers joined by commas; each at most once in a statement."""
        found = []
        while True:
            word = line.take("a peer")
            peer = self._peer(line, word)
            if peer in taken:
                raise line.error(f"peer {peer} is named twice", word)
            taken.add(peer)
            found.append(peer)
            if not line.skip(","):
                return tuple(found)

    def _links(self, line: Line) -> tuple[tuple[int, int], ...] | None:
        """`all`, `0->4`, `0<->4`, `*->4`."""
        if line.skip("all"):
            return None
        sender = line.take("a link")
        if line.peek() not in ("->", "<->"):
            raise line.error("a link is written FROM->TO, FROM<->TO or all", sender)
        arrow, receiver = line.take("an arrow"), line.take("a peer")
        for word in (sender, receiver):
            if word.text != "*":
                self._peer(line, word)
        try:
            return pairs(sender.text, arrow.text, receiver.text, self.peers)
        except ConfigError as error:
            raise line.error(str(error), sender) from error

    def _change(
        self, line: Line, window: Window, values: dict[str, float], links: tuple[tuple[int, int], ...] | None,
        cut: bool = False,
    ) -> None:  # fmt: skip
        self.changes.append(Change(window, values, links, cut, line.text.strip()))

    def _values(self, line: Line, window: Window, verb: Word) -> None:
        """`delay 0->4 50ms jitter 10ms`: the link stands behind the first word."""
        links = self._links(line)
        values: dict[str, float] = {}
        word = verb
        while True:
            if word.text not in FIELDS:
                raise line.error(f"{word.text!r} is none of {', '.join(FIELDS)}", word)
            name, read = FIELDS[word.text]
            value = line.take(f"a {word.text}")
            values[name] = line.read(value, read)
            try:
                changed(QUIET, values)
            except ConfigError as error:
                raise line.error(str(error), value) from error
            if line.peek() is None:
                break
            word = line.take("a value")
        self._change(line, window, values, links)

    def _partition(self, line: Line, window: Window, verb: Word) -> None:
        taken: set[int] = set()
        sides = [self._group(line, taken)]
        while line.skip("|"):
            sides.append(self._group(line, taken))
        if len(sides) < 2:
            raise line.error("a partition has at least two sides; write 0,1 | 2,3,4,5")
        missing = sorted(set(range(self.peers)) - taken)
        if missing:
            raise line.error(f"peer {missing[0]} is on no side of this partition; name it", verb)
        cut = [(a, b) for one, other in combinations(sides, 2) for a in one for b in other]
        self._quorum(line, window, verb, max(map(len, sides)))
        self.doubtful.update(peer for side in sides for peer in side if 2 * len(side) <= self.peers)
        self._change(line, window, {}, tuple(sorted([*cut, *((b, a) for a, b in cut)])), cut=True)

    def _quorum(self, line: Line, window: Window, verb: Word, largest: int) -> None:
        quorum = self.peers // 2 + 1
        if largest >= quorum:
            return
        if window.unit == "step" and window.stop is not None:
            raise line.error(
                f"no side has a quorum ({quorum} of {self.peers}), so no step passes and step {window.stop:g} never "
                "comes; give it an end in time", verb,
            )  # fmt: skip
        self.warnings.append(
            f"{line.source}:{line.number}: no side has a quorum ({quorum} of {self.peers}): "
            "all peers halt if it outlasts the deadlines"
        )

    def _event(self, line: Line, window: Window, verb: Word) -> None:
        begun = line.place
        peers = self._group(line, set())
        for word, peer in zip(line.words[begun::2], peers, strict=False):
            self._check(line, verb.text, word, peer)
        action = _ACTIONS[verb.text]
        match action:
            case "kill":
                self.gone.update(peers)
            case "restart":
                self.gone.difference_update(peers)
            case "pause":
                self.paused.update(peers)
            case "continue":
                self._continue(peers)
        self.events.append(Event(window, action, peers, line.text.strip()))
        if action == "pause" and line.skip("for"):
            self._until(line, window, peers)
        left = self.peers - len(self.gone | self.paused)
        if left < self.peers // 2 + 1 and action in ("kill", "pause"):
            self.warnings.append(
                f"{line.source}:{line.number}: {left} of {self.peers} peers are left, which is no quorum: they halt"
            )

    def _come_and_go(self, line: Line, window: Window, first: Word) -> None:
        """`from step 50 churn 10%`."""
        if window.unit != "step" or first.text != "from":
            raise line.error("churn goes by steps; write `from step N churn SHARE`", first)
        word = line.take("a share")
        share = line.read(word, syntax.share)
        # Whoever is away when the others commit the last step finds nobody to tell it.
        stop = self.steps if window.stop is None else min(window.stop, self.steps)
        if stop <= window.start:
            raise line.error(f"there is no step left for it; the run's last is {self.steps}", first)
        self.churn.append(Churn(Window("step", window.start, stop), share, self.peers, line.text.strip()))

    def _until(self, line: Line, window: Window, peers: tuple[int, ...]) -> None:
        """`pause 3 for 2s`."""
        word = line.take("how long")
        lasting_s = line.read(word, syntax.seconds)
        if window.unit != "s" or lasting_s <= 0:
            problem = "must be positive" if window.unit == "s" else "needs a pause at a time, not at a step"
            raise line.error(f"`for {word.text}` {problem}", word)
        self.events.append(Event(Window("s", window.start + lasting_s), "continue", peers, line.text.strip()))
        self._continue(peers)

    def _continue(self, peers: tuple[int, ...]) -> None:
        self.paused.difference_update(peers)
        self.doubtful.update(peers)

    def _check(self, line: Line, action: str, word: Word, peer: int) -> None:
        if action == "restart" and peer not in self.gone | self.doubtful:
            raise line.error(f"peer {peer} has not been killed by an earlier line, nor paused or cut off", word)
        if action != "restart" and peer in self.gone:
            raise line.error(f"peer {peer} has been killed by an earlier line", word)
        if action == "continue" and peer not in self.paused:
            raise line.error(f"peer {peer} is not paused by an earlier line", word)
        if action == "pause" and peer in self.paused:
            raise line.error(f"peer {peer} is paused already", word)
