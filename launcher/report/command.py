"""`btard-launch report` and `compare`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from btard.launcher.files import write_atomically
from btard.launcher.report import compare, run_page, sweep_page
from btard.launcher.run import control


def report(path: Path) -> Path:
    """Write the page of a run, of peers' own files, or of a sweep; returns where it is.

    Raises:
        ConfigError: it is neither, or has not ended.
        DataError: a file is damaged.
    """
    if not control.of_peers(path) and compare.kind(path, "; name one below runs/") == "sweep":
        return sweep_page.write(path)
    return run_page.write(path)


def show_comparison(console: Console, a: Path, b: Path, out: Path) -> None:
    """Print what differs, and write the page.

    Raises:
        ConfigError: they cannot be compared.
        DataError: a file is damaged.
        BackendError: the page cannot be written.
    """
    lines, html = compare.make(a, b)
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(3)]
    console.print(f"A: {a}\nB: {b}", soft_wrap=True, markup=False)
    for what, ours, theirs, apart in lines:
        words = f"{what:{widths[0]}}  {ours:{widths[1]}}  {theirs:{widths[2]}}  {apart}".rstrip()
        console.print(words, soft_wrap=True, markup=False)
    write_atomically(out, html.encode())
    console.print(f"page: {out}", soft_wrap=True, markup=False)
