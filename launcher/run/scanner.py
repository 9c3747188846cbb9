"""The words of a scenario's line, each with its column, so that a mistake can be pointed at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from btard.node.errors import ConfigError

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
