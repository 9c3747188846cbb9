"""Lines for people: broken between words on a terminal, whole everywhere else, for grep and for pasting."""

from __future__ import annotations

import os
import sys
import textwrap

import click

_LEAST = 20
"""Columns that a line has beside its indent, however narrow the terminal is."""


def hanging(text: str, indent: int, width: int | None) -> list[str]:
    """A line as it fits a terminal, what goes on further down indented.

    Words that are longer than a line, as paths are, stay whole.

    Args:
        text: the line.
        indent: of all pieces but the first.
        width: of the terminal; None: there is none.
    """
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text, max(width, indent + _LEAST), subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def echo(text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr, as it fits there."""
    for part in hanging(text, indent, _width(err)):
        click.echo(part, err=err)


def _width(err: bool) -> int | None:
    stream = sys.stderr if err else sys.stdout
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):  # a stream without a descriptor
        return None
