"""`btard-launch sweep`: make the cells, run them, say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from btard.launcher import exits
from btard.launcher.run import data, plan
from btard.launcher.sweep import engine, rows
from btard.launcher.sweep.engine import Outcome, Wish
from btard.launcher.sweep.grid import Cell, describe, varied
from btard.launcher.sweep.progress import Bar
from btard.launcher.sweep.spec import Sweep
from btard.launcher.sweep.store import CELLS, RESULTS, Store
from btard.node.errors import ConfigError

_PASSING = ("--retry-failed", "--dry-run")
_PASSING_VALUES = ("--only", "--limit")


def extended(sweep: Sweep, out: Path) -> Sweep:
    """The sweep with the cells that follow from its own, once all of those are finished in its directory; else itself.

    Raises:
        ConfigError: nothing follows from what they came to.
        DataError: a cell is damaged.
    """
    where = [out / CELLS / cell.id for cell in sweep.cells]
    if sweep.after is None or not all((cell / rows.ROW).exists() for cell in where):
        return sweep
    more = sweep.after([rows.load(cell).final_test_accuracy for cell in where])
    return Sweep(sweep.name, (*sweep.cells, *more))


def run(sweep: Sweep, wish: Wish, out: Path, dry_run: bool, console: Console, argv: Sequence[str]) -> int:
    """Run the sweep, and what follows from it; returns the exit code.

    Args:
        sweep: its cells.
        wish: how they are to be run.
        out: the sweep's directory.
        dry_run: list the cells, start nothing.
        console: for people.
        argv: the command line that asks for it.

    Raises:
        ConfigError: an option, name or value that cannot be run, named with its cell.
        BackendError: the directory cannot be written.
    """
    _check_all(sweep.cells)
    names = varied(sweep.cells)
    if dry_run:
        for cell in sweep.cells:
            click.echo(f"{cell.id}  {describe(cell, names)}")
        # The list itself is what --only reads.
        click.echo(_count(len(sweep.cells), "cell") + _followed(sweep, "when they are finished"), err=True)
        return exits.OK
    store = Store(out)
    others = store.enlist(sweep.name, sweep.cells, lasting(argv))
    runs = f"{_count(len(sweep.cells), 'run')} in {out}, {_count(wish.cores, 'core')}"
    console.print(f"sweep {sweep.name}: {runs}{_followed(sweep, 'then')}", highlight=False, soft_wrap=True)
    if others:
        told = f"{out} lists {_count(others, 'cell')} of other calls, which stay in table and page; a plan that has"
        console.print(f"{told} changed takes another --out", highlight=False, soft_wrap=True)
    with Bar(console, engine.due(store, sweep.cells, wish.retry_failed), wish.cores, names) as bar:
        outcome = engine.run(store, sweep.cells, wish, bar)
    rest = None if wish.limit is None else wish.limit - len(outcome.done)
    if outcome.signum is None and rest != 0 and (whole := extended(sweep, out)) is not sweep:
        return run(whole, replace(wish, limit=rest, retry_failed=False), out, False, console, argv)
    _tell(outcome, out, names, console)
    if sweep.after is not None:
        more = sweep.following
        told = f"{_count(more, 'run')} that follow{'s is' if more == 1 else ' are'} made when all of these are finished"
        console.print(f"{told}: go on with the same command", highlight=False, soft_wrap=True)
    if store.rows() and outcome.signum is None:
        from btard.launcher.report import sweep_page

        console.print(f"report: {sweep_page.write(out)}", highlight=False, soft_wrap=True)
    if outcome.signum is not None:
        return exits.SIGNALLED + outcome.signum
    return exits.FAILED if outcome.failed else exits.OK


def lasting(argv: Sequence[str]) -> list[str]:
    """The command line that stands for the whole sweep: without the options that were meant for one call of it."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        name, joined, _ = word.partition("=")
        if name in _PASSING_VALUES:
            if not joined:
                next(words, None)
        elif word not in _PASSING:
            kept.append(word)
    return kept


def _check_all(cells: Sequence[Cell]) -> None:
    """Refuse what cannot be run before anything is started.

    Raises:
        ConfigError: the first such cell, with what is wrong.
        BackendError: a device that a cell asks for is not here.
        DataError: a data set that a cell may not fetch is not here.
    """
    names = varied(cells)
    found = set()
    for cell in cells:
        try:
            made = plan.make(cell.experiment)
        except ConfigError as error:
            raise ConfigError(f"cell {describe(cell, names)!r}: {error}") from error
        wanted = (made.run.task.name, made.data_directory)
        if not cell.experiment.download and wanted not in found:
            data.provide(made.run, made.data_directory, False, lambda _: None)
            found.add(wanted)


def _followed(sweep: Sweep, when: str) -> str:
    return f", and {when} {sweep.following} that follow from their results" if sweep.after is not None else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tell(outcome: Outcome, out: Path, names: Sequence[str], console: Console) -> None:
    counts = [
        (len(outcome.done), "run"), (len(outcome.skipped), "finished before"), (len(outcome.failed), "failed"),
        (len(outcome.elsewhere), "in another sweep's hands"), (len(outcome.left), "left"),
    ]  # fmt: skip
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    console.print(f"{said}; table: {out / RESULTS}", highlight=False, soft_wrap=True)
    for ended in outcome.failed:
        console.print(
            f"failed: {describe(ended.cell, names)}: {ended.problem}; see {ended.where}",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.failed:
        console.print("run them again with --retry-failed", highlight=False)
    if outcome.left:
        console.print("go on with the same command", highlight=False)
