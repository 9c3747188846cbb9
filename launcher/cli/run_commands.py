"""The commands on runs that are there already: verify, status, logs, stop, clean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command(short_help="Check a finished run and all that it says of itself.")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="where data sets lie [the run's folder, or this machine's]",
)
@click.option("--import", "imports", metavar="FILE.py", multiple=True, type=click.Path(path_type=Path),
              help="file that the run was made with, if you trust it (repeatable)")  # fmt: skip
@click.option("--explain", is_flag=True, help="tell the story of every ban and dispute in words")
def verify(run_dir: Path | None, data_dir: Path | None, imports: Sequence[Path], explain: bool) -> None:
    """Check a finished run and all that it says of itself [the latest run under runs/].

    Public keys and public data suffice; whoever received the directory can do it. What is not proven is listed as
    not checked; exit code 1 if anything contradicts what is signed, or was struck. The last line says how many findings
    were made or judged again here, and how many are believed because a majority or everybody signed them.
    """
    from rich.console import Console

    from btard.launcher.run import control
    from btard.launcher.verify import verification

    raise SystemExit(
        verification.show(Console(highlight=False), run_dir or control.latest(), data_dir, explain, imports)
    )


@click.command(short_help="Show how a run stands.")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
def status(run_dir: Path | None) -> None:
    """Show how a run stands, whatever its backend [the latest under runs/]."""
    from btard.launcher.run import control

    for line in control.status(run_dir or control.latest()):
        click.echo(line)


@click.command(short_help="Show the ends of the workers' logs.")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--node", metavar="ID", type=int, help="only this node's")
@click.option("--lines", metavar="N", type=click.IntRange(1), default=40, show_default=True, help="of each node")
def logs(run_dir: Path | None, node: int | None, lines: int) -> None:
    """Show the ends of the workers' logs, whatever the backend [the latest run under runs/]."""
    from btard.launcher.run import control

    for line in control.logs(run_dir or control.latest(), node, lines):
        click.echo(line)


@click.command(short_help="End a run in order.")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
def stop(run_dir: Path | None) -> None:
    """End a run in order; remove what a killed launcher left [the latest run under runs/]."""
    from btard.launcher.run import control

    control.stop(run_dir or control.latest(), click.echo)


@click.command(short_help="Show what runs take of the disk, and remove old ones.")
@click.argument("where", metavar="[DIR]", default=Path("runs"), type=click.Path(path_type=Path))
@click.option("--older-than", metavar="TIME", help="only runs not written to for so long, e.g. 36h")
@click.option("--larger-than", metavar="MB", type=click.FloatRange(0), help="only runs of so many MB or more")
@click.option("--delete", is_flag=True, help="remove what is listed, but for runs that are running")
def clean(where: Path, older_than: str | None, larger_than: float | None, delete: bool) -> None:
    """Show the runs in DIR [runs] with their age and what each part of them takes; --delete removes them.

    Checkpoints are what `resume` needs, evidence what `verify` does. Without --older-than or --larger-than nothing is
    removed.
    """
    from btard.launcher.options import syntax
    from btard.launcher.run import cleaning

    if delete and older_than is None and larger_than is None:
        raise click.UsageError("--delete needs --older-than or --larger-than; --older-than 0s means every run")
    age_s = 0.0 if older_than is None else syntax.latency(older_than)
    found = cleaning.chosen(cleaning.find(where), age_s, 1e6 * (larger_than or 0.0))
    if delete:
        found = [kept for kept in found if not kept.running]
    for line in cleaning.lines(found):
        click.echo(line)
    if delete:
        cleaning.remove(found)
        click.echo(f"removed {len(found)}")
