"""The commands on many runs and on finished ones: sweep, report, compare, export."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from btard.launcher.cli.flags import GroupedCommand, table_options
from btard.node.errors import ConfigError


@click.command(cls=GroupedCommand)
@click.argument("which", metavar="[PLAN|FILE]", required=False)
@table_options
@click.option("--quick", is_flag=True, help="the plan's short form")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="the sweep's directory [sweeps/NAME]")
@click.option("--cores", metavar="N", type=click.IntRange(1), help="cores to keep busy [all]")
@click.option("--only", metavar="FILE", help="run the cells that it lists, as --dry-run does; -: standard input")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="stop after N runs")
@click.option("--retry-failed", is_flag=True, help="run cells again that failed")
@click.option("--slim", is_flag=True, help="keep of each run only what tables and figures need")
@click.option("--no-check", is_flag=True, help="do not verify the evidence of every run")
@click.option("--dry-run", is_flag=True, help="list the cells, start nothing")
def sweep(
    which: str | None, quick: bool, out: Path | None, cores: int | None, only: str | None, limit: int | None,
    retry_failed: bool, slim: bool, no_check: bool, dry_run: bool, **options: Any,
) -> None:  # fmt: skip
    """Run a grid of clusters; go on where it stopped.

    Every option takes several values: `a,b`, `0..4`, or `a|b` where values contain commas. Plans that ship: `paper`
    (the report's), `rules` (every rule against every attack), `starts`, `mixed`, `aggregation` and `sixteen` (its
    future work), `careers` (sign flip and undo, from short careers of attackers to long ones). A TOML or JSON file
    holds `[[grid]]` tables of options.
    """
    from rich.console import Console

    from btard.launcher.options import sources
    from btard.launcher.sweep import command, spec
    from btard.launcher.sweep.engine import Wish

    config = options.pop("config", None)
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if which is None and not given and config is None and not quick:
        from btard.launcher.sweep.plans import PLANS

        raise ConfigError(f"nothing to sweep; name a plan ({', '.join(PLANS)}), a file, or an option with its values")
    base = sources.resolve({}, os.environ, config).experiment
    wanted = spec.make(which, quick, base, given)
    if only is not None:
        wanted = spec.only(wanted, only)
    wish = Wish(cores or len(os.sched_getaffinity(0)), limit, retry_failed, slim, not no_check)
    raise SystemExit(command.run(wanted, wish, out, dry_run, Console(highlight=False), sys.argv))


@click.command(short_help="Write report.html of a run or a sweep.")
@click.argument("path", metavar="RUN|SWEEP", type=click.Path(path_type=Path))
def report(path: Path) -> None:
    """Write report.html of a run or a sweep: one self-contained page."""
    from btard.launcher.report import command

    click.echo(f"report: {command.report(path)}")


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), default="compare.html", show_default=True,
              help="the page")  # fmt: skip
def compare(a: Path, b: Path, out: Path) -> None:
    """Compare two runs, or two sweeps cell by cell."""
    from rich.console import Console

    from btard.launcher.report import command

    command.show_comparison(Console(highlight=False), a, b, out)


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("target", metavar="[DEST]", required=False, type=click.Path(path_type=Path))
@click.option("--onnx", is_flag=True, help="model.onnx, for Netron (the default)")
@click.option("--tensorboard", is_flag=True, help="TensorBoard event files")
@click.option("--public", is_flag=True, help="a run directory for others, without secrets, in DEST [RUN-public]")
def export(run_dir: Path, target: Path | None, onnx: bool, tensorboard: bool, public: bool) -> None:
    """Write a run's model, its curves, or all but its secrets.

    What `--public` writes holds no private key, and `verify` checks it as it checks the run.
    """
    if public:
        if onnx or tensorboard:
            raise ConfigError("--public writes a directory of its own; leave out --onnx and --tensorboard")
        from btard.launcher.export import public as directory

        made, left_out = directory.write(run_dir, target)
        for name in left_out:
            click.echo(f"left out: {name}", err=True)
        click.echo(f"written: {made}; check it with: btard-launch verify {made}")
        return
    if target is not None:
        raise ConfigError(f"DEST {target} is for --public; the other formats are written into the run directory")
    from btard.launcher.export import command

    for path in command.export(run_dir, onnx or not tensorboard, tensorboard):
        click.echo(f"written: {path}")
