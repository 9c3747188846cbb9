"""Lines on a terminal: no word is cut in two, and nothing is broken where no terminal is."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from btard.launcher.wrap import hanging
from tests.launching import LAUNCH, environment


def on_terminal(columns: int, where: Path, *arguments: str) -> list[str]:
    """What a command shows on a terminal of so many columns, line by line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([*LAUNCH, *arguments], cwd=where, env=environment(), stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    return shown.decode().splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side has closed
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("attacks",), ("rules",), ("--batch-size", "x" * 30, "--attack", "sing")])
def test_a_terminal_gets_whole_words_and_a_pipe_whole_lines(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shown = on_terminal(60, tmp_path, *arguments)
    piped = subprocess.run([*LAUNCH, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    lines = (piped.stdout + piped.stderr).splitlines()
    assert " ".join(shown).split() == " ".join(lines).split()
    assert any(len(line) > 60 for line in lines)
    assert all(len(line) <= 60 for line in shown if len(line.split()) > 1)


@pytest.mark.parametrize(
    ("width", "pieces"),
    [
        (None, ["one two three-four five"]),
        (23, ["one two three-four five"]),
        (22, ["one two three-four", "  five"]),
        (3, ["one two three-four", "  five"]),
    ],
)
def test_what_goes_on_is_indented(width: int | None, pieces: list[str]) -> None:
    assert hanging("one two three-four five", 2, width) == pieces


def test_a_path_stays_whole() -> None:
    path = "nodes/" + "x" * 60
    assert hanging(f"evidence {path} here", 2, 30) == ["evidence", f"  {path}", "  here"]
