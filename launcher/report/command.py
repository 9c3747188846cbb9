"""`btard-launch report`, `compare` and `figures`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from btard.launcher.figures import printed
from btard.launcher.figures.svg import Figure
from btard.launcher.files import write_atomically
from btard.launcher.report import compare, run_data, run_page, sweep_data, sweep_page
from btard.launcher.report.run_figures import FIGURES
from btard.launcher.report.sweep_data import SweepData
from btard.launcher.run import control
from btard.launcher.sweep import rows
from btard.launcher.sweep.grid import Cell
from btard.node.errors import BackendError, ConfigError

CAPTIONS = "captions.md"


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
    write_atomically(out, html.encode(), option="--out")
    console.print(f"page: {out}", soft_wrap=True, markup=False)


def figures(paths: Sequence[Path], out: Path | None) -> list[Path]:
    """Write figures for print: a run's, a sweep's, or those of several runs together, grouped by what they differ in.

    Args:
        paths: one run, peers' own files or a sweep; or several runs.
        out: the directory; None: `figures` in that of the run or sweep, or here for several runs or an archive.

    Returns:
        The files, their captions last.

    Raises:
        ConfigError: matplotlib is missing, a path is none of these, or nothing can be drawn of them.
        DataError: a file is damaged.
        BackendError: a file cannot be written.
    """
    found, made_by = _figures(paths)
    if not found:
        raise ConfigError(f"{paths[0]}: there is no figure: no evaluation, no loss, no ban; has anything been trained?")
    where = out or (paths[0] if len(paths) == 1 and paths[0].is_dir() else Path()) / "figures"
    try:
        where.mkdir(parents=True, exist_ok=True)
        made = [
            file for each in found for file in printed.write(each, where, f"{each.caption} Made by: {made_by}".strip())
        ]
        captions = [f"## {each.key}\n\n{each.title}. {each.caption}".strip() for each in found]
        (where / CAPTIONS).write_text("\n\n".join([*captions, f"Made by: `{made_by}`"]) + "\n", encoding="utf-8")
    except OSError as error:
        raise BackendError(f"{where}: figures cannot be written: {error.strerror}; use --out") from error
    return [*made, where / CAPTIONS]


def _figures(paths: Sequence[Path]) -> tuple[list[Figure], str]:
    """Figures, and the command that what they show was made by."""
    if len(paths) > 1:
        together = _together(paths)
        return sweep_page.figures(together), "; ".join(together.argv)
    (path,) = paths
    if not control.of_peers(path) and compare.kind(path, "; name one below runs/") == "sweep":
        sweep = sweep_data.load(path)
        return sweep_page.figures(sweep), shlex.join(["btard-launch", *sweep.argv[1:]])
    run = run_data.load_either(path)
    drawn = [figure for each in FIGURES.values() for draw in each if (figure := draw(run)) is not None]
    return drawn, "btard-node run" if run.record is None else shlex.join(run_page.repeat(run.record.experiment))


def _together(paths: Sequence[Path]) -> SweepData:
    """Runs as the rows of a sweep that nobody planned; its command line is that of all of them."""
    made, curves, commands = [], {}, []
    for path in paths:
        if control.of_peers(path) or compare.kind(path, "; name runs, or one sweep") == "sweep":
            raise ConfigError(f"{path} is no launcher's run; name several of those, or one sweep or peer alone")
        run = run_data.load(path)
        assert run.record is not None  # a launcher's
        row, curves[str(path)] = rows.score(Cell(run.record.experiment), path, run.summary, None)
        made.append(msgspec.structs.replace(row, cell=str(path)))  # equal configurations stay apart
        commands.append(shlex.join(run_page.repeat(run.record.experiment)))
    return SweepData(Path(), "together", list(dict.fromkeys(commands)), len(made), made, curves)
