"""The commands on runs that are there already, on many runs, on dashboards, and on what can be chosen.

Each imports what it needs when it is called.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from btard.launcher import exits, wrap
from btard.launcher.assets import asset
from btard.launcher.cli.flags import GroupedCommand, table_options
from btard.node.errors import ConfigError
from btard.node.plugins import extensions

_PATH = click.Path(path_type=Path)


class RunPath(click.Path):
    """A run directory, or its name below `runs/`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The directory; whether it is a run's is for its reader to say."""
        path, below = Path(value), Path("runs") / value
        return below if not path.exists() and below.is_dir() else path


_run_dir = click.argument("run_dir", metavar="[RUN]", required=False, type=RunPath())
data_dir_option = click.option("--data-dir", metavar="DIR", help="where data sets lie [~/.cache/btard/data]")

_PUBLIC_DATA = "private data cannot be used: gradients are recomputed from public data"

_ON_PARTS = "on parts it differs from the rule on the whole vector: each aggregator chooses for itself"

_import_option = click.option(
    "--import", "imports", metavar="FILE.py", multiple=True, type=_PATH,
    help="file with own attacks, rules or tasks (repeatable)",
)  # fmt: skip


@click.command(short_help="Check a finished run and all that it says of itself.")
@_run_dir
@click.option("--data-dir", metavar="DIR", type=_PATH, help="where data sets lie [the run's folder, or this machine's]")
@click.option("--import", "imports", metavar="FILE.py", multiple=True, type=_PATH,
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
@_run_dir
def status(run_dir: Path | None) -> None:
    """Show how a run stands, whatever its backend [the latest under runs/]."""
    from btard.launcher.run import control

    for line in control.status(run_dir or control.latest()):
        click.echo(line)


@click.command(short_help="Fetch the public files of peers, to verify them.")
@click.argument("peers", metavar="HOST:PORT...", nargs=-1, required=True)
@click.option("--into", metavar="DIR", type=_PATH, required=True, help="a new directory, or an earlier collection")
@click.option("--limit", metavar="SIZE", default="1GB", show_default=True, help="of all files of one peer")
@click.option("--timeout", metavar="TIME", default="10m", show_default=True, help="longest time for one peer")
def collect(peers: Sequence[str], into: Path, limit: str, timeout: str) -> None:
    """Fetch journals, evidence and final parameters of peers that serve them (`btard-node run --http`), for `verify`.

    A collection goes on where an earlier one ended. With a majority's files `verify` proves the final state. Exit code
    1 if a peer does not answer, or with what is not in order; the others are collected all the same.
    """
    from btard.launcher.options import syntax
    from btard.launcher.run import collecting

    with syntax.naming("--limit"):
        size = syntax.size(limit)
    with syntax.naming("--timeout"):
        bounds = collecting.Bounds(size, syntax.seconds(timeout))
    failed = collecting.collect(peers, into, bounds, lambda line: wrap.echo(line, 8))
    if failed < len(peers):
        click.echo(f"check it with: btard-launch verify {shlex.quote(str(into))}")
    raise SystemExit(exits.FAILED if failed else exits.OK)


@click.command(short_help="Show the ends of the workers' logs.")
@_run_dir
@click.option("--node", metavar="ID", type=int, help="only this node's")
@click.option("--lines", metavar="N", type=click.IntRange(1), default=40, show_default=True, help="of each node")
def logs(run_dir: Path | None, node: int | None, lines: int) -> None:
    """Show the ends of the workers' logs, whatever the backend [the latest run under runs/]."""
    from btard.launcher.run import control

    for line in control.logs(run_dir or control.latest(), node, lines):
        click.echo(line)


@click.command(short_help="End a run in order.")
@_run_dir
def stop(run_dir: Path | None) -> None:
    """End a run in order; remove what a killed launcher left [the latest run under runs/]."""
    from btard.launcher.run import control

    control.stop(run_dir or control.latest(), click.echo)


@click.command(short_help="Show what runs take of the disk, and remove old ones.")
@click.argument("where", metavar="[DIR]", default=Path("runs"), type=_PATH)
@click.option("--older-than", metavar="TIME", help="only runs not written to for so long, e.g. 36h or 7d")
@click.option("--larger-than", metavar="SIZE", help="only runs that take so much or more, e.g. 500MB")
@click.option("--delete", is_flag=True, help="remove what is listed, but for runs that are running")
def clean(where: Path, older_than: str | None, larger_than: str | None, delete: bool) -> None:
    """Show the runs in DIR [runs] with their age and what each part of them takes; --delete removes them.

    Checkpoints are what `resume` needs, evidence what `verify` does. With both --older-than and --larger-than a run has
    to be both; --delete needs one of them.
    """
    from btard.launcher.options import syntax
    from btard.launcher.run import cleaning

    if delete and older_than is None and larger_than is None:
        raise click.UsageError("--delete needs --older-than or --larger-than; --older-than 0s means every run")
    with syntax.naming("--older-than"):
        age_s = 0.0 if older_than is None else syntax.latency(older_than)
    with syntax.naming("--larger-than"):
        size = 0.0 if larger_than is None else syntax.size(larger_than)
    found = cleaning.chosen(cleaning.find(where), age_s, size)
    if delete:
        found = [kept for kept in found if not kept.running]
    for line in cleaning.lines(found):
        wrap.echo(line, 20)
    if found and not delete:
        wrap.echo("nothing is removed; with --older-than or --larger-than, --delete removes what is listed")
    if delete:
        cleaning.remove(found)
        click.echo(f"removed {len(found)}")


@click.command(cls=GroupedCommand)
@click.argument("which", metavar="[PLAN|FILE]", required=False)
@table_options
@click.option("--quick", is_flag=True, help="the plan's short form")
@click.option("--out", metavar="DIR", type=_PATH, help="the sweep's directory [sweeps/NAME]")
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
    future work), `careers` (sign flip and undo, from short careers of attackers to long ones),
    `heterogeneity` (number of attackers by how unlike the peers' data are), `tuned` (rules under attacks as strong as
    hurts each most, in two phases). A TOML or JSON file holds `[[grid]]` tables
    of options.
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
    out = out or Path("sweeps") / wanted.name
    wanted = command.extended(wanted, out)
    if only is not None:
        wanted = spec.only(wanted, only)
    wish = Wish(cores or len(os.sched_getaffinity(0)), limit, retry_failed, slim, not no_check)
    raise SystemExit(command.run(wanted, wish, out, dry_run, Console(highlight=False), sys.argv))


@click.command(short_help="Write report.html of a run or a sweep.")
@click.argument("path", metavar="RUN|SWEEP", type=_PATH)
def report(path: Path) -> None:
    """Write report.html of a run, of a peer's own directory or a collection, or of a sweep: one self-contained page."""
    from btard.launcher.report import command

    click.echo(f"report: {command.report(path)}")


@click.command(short_help="Write figures for print, as SVG and PDF.")
@click.argument("paths", metavar="RUN...|SWEEP", nargs=-1, required=True, type=RunPath())
@click.option("--out", metavar="DIR", type=_PATH, help="where to [figures, in the run's directory or here]")
def figures(paths: Sequence[Path], out: Path | None) -> None:
    """Write the figures of a run or a sweep, or of several runs together, as SVG and PDF, with their captions.

    Several runs that differ in their seeds alone are one curve with a band over their draws. Needs matplotlib, which is
    the extra `print`. The files hold no date: the same runs give the same bytes.
    """
    from btard.launcher.report import command

    for path in command.figures(paths, out):
        click.echo(f"written: {path}")


@click.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@click.option("--out", metavar="FILE", type=_PATH, default="compare.html", show_default=True,
              help="the page")  # fmt: skip
def compare(a: Path, b: Path, out: Path) -> None:
    """Compare two runs, or two sweeps cell by cell."""
    from rich.console import Console

    from btard.launcher.report import command

    command.show_comparison(Console(highlight=False), a, b, out)


@click.command()
@click.argument("run_dir", metavar="RUN", type=RunPath())
@click.argument("target", metavar="[DEST]", required=False, type=_PATH)
@click.option("--onnx", is_flag=True, help="model.onnx, for Netron (the default)")
@click.option("--tensorboard", is_flag=True, help="TensorBoard event files")
@click.option("--perfetto", is_flag=True, help="trace.json, for ui.perfetto.dev: steps, phases, accusations, bans")
@click.option("--public", is_flag=True, help="a run directory for others, without secrets, in DEST [RUN-public]")
@click.option(
    "--import",
    "imports",
    metavar="FILE.py",
    multiple=True,
    type=_PATH,
    help="a file of the run's own model, for --onnx",
)
def export(
    run_dir: Path,
    target: Path | None,
    onnx: bool,
    tensorboard: bool,
    perfetto: bool,
    public: bool,
    imports: Sequence[Path],
) -> None:
    """Write a run's model, curves, trace, or all but secrets.

    What `--public` writes holds no private key, and `verify` checks it as it checks the run.
    """
    if public:
        if onnx or tensorboard or perfetto:
            raise ConfigError("--public writes a directory of its own; leave out --onnx, --tensorboard and --perfetto")
        from btard.launcher.export import public as directory
        from btard.launcher.monitor.summary_table import check_command
        from btard.launcher.run.run_directory import read_record

        made, left_out = directory.write(run_dir, target)
        for name in left_out:
            click.echo(f"left out: {name}", err=True)
        words = check_command(made, read_record(made).experiment.imports)
        click.echo(f"written: {made}; check it with: {shlex.join(words)}")
        return
    if target is not None:
        raise ConfigError(f"DEST {target} is for --public; the other formats are written into the run directory")
    from btard.launcher.export import command

    wanted = {"tensorboard": tensorboard, "perfetto": perfetto}
    for path in command.export(run_dir, onnx=onnx or not any(wanted.values()), **wanted, imports=imports):
        click.echo(f"written: {path}")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dashboards() -> None:
    """The Grafana dashboards: list them, or push them to a Grafana."""


@dashboards.command("list")
def show() -> None:
    """Name the dashboards, their files, and the panels below the questions that they answer."""
    for path in files():
        made = json.loads(path.read_text())
        click.echo(f"{made['title']}: /d/{made['uid']}  {path}")
        for panel in (
            each for row in made["panels"] for each in (row, *row.get("panels", ()))
        ):  # folded rows hold theirs
            click.echo(("    " if panel["type"] == "row" else "        ") + panel["title"])


@dashboards.command()
@click.option("--grafana", metavar="URL", default="http://127.0.0.1:3000", show_default=True, help="where Grafana is")
def push(grafana: str) -> None:
    """Write all dashboards to a Grafana, into its folder BTARD.

    GRAFANA_AUTH holds a service account's token, or USER:PASSWORD. What is there already is replaced.
    """
    from btard.launcher.monitor.grafana import AUTH_VARIABLE
    from btard.launcher.monitor.grafana import push as push_to

    for url in push_to(grafana, os.environ.get(AUTH_VARIABLE), files()):
        click.echo(url)


def files() -> list[Path]:
    """The dashboards' JSON, Overview first.

    Raises:
        BackendError: this installation lacks them.
    """
    return [asset("dashboards", f"{name}.json") for name in ("overview", "protocol", "network", "node")]


@click.command()
@_import_option
def attacks(imports: Sequence[Path]) -> None:
    """List the attacks with their parameters."""
    extensions.load(imports)
    from btard.node.adversary.registry import ATTACKS

    _catalogue(ATTACKS)
    wrap.echo("    PROTOCOL is the project's specification, docs/spec; its sections are numbered")


@click.command(short_help="List the aggregation rules.")
@_import_option
def rules(imports: Sequence[Path]) -> None:
    """List the aggregation rules and pre-aggregations with their parameters."""
    extensions.load(imports)
    from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES

    _catalogue(RULES)
    wrap.echo("    pre-aggregations, in front of a rule, joined by '+' (--rule nnm+krum):")
    _catalogue(PRE_AGGREGATIONS)


@click.command(short_help="List the training tasks, and the splits of their data.")
@_import_option
def tasks(imports: Sequence[Path]) -> None:
    """List the training tasks and the splits of their examples with their parameters."""
    extensions.load(imports)
    from btard.node.training.registry import SPLITS, TASKS

    _catalogue(TASKS)
    wrap.echo("    splits of the training examples, for tasks with labels (--split dirichlet:alpha=0.3):")
    _catalogue(SPLITS)
    wrap.echo(f"    {_PUBLIC_DATA}", 6)


@click.command(short_help="List the optimisers and the learning-rate schedules.")
@_import_option
def optimisers(imports: Sequence[Path]) -> None:
    """List the optimisers and the learning-rate schedules with their parameters."""
    extensions.load(imports)
    from btard.node.training.registry import OPTIMISERS, SCHEDULES

    _catalogue(OPTIMISERS)
    wrap.echo("    schedules of the learning rate (--schedule cosine:warmup=100):")
    _catalogue(SCHEDULES)


@click.command(short_help="Try out own attacks, rules and tasks.")
@click.argument("files", metavar="FILE.py...", nargs=-1, type=_PATH)
@data_dir_option
def check(files: Sequence[Path], data_dir: str | None) -> None:
    """Try out the attacks, rules, tasks and optimisers of files, and of installed packages, as a run would use them.

    Gradients and aggregates are computed twice in one process and once in a fresh one: others must find the same bits
    (exit 2 if something cannot be used, 3 if a task's data are not there; `run` and `--dry-run` check what they use
    themselves).
    """
    from btard.launcher.run import data, plugin_trial

    where = data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    found = plugin_trial.check_files([str(path) for path in files], where)
    if not found:
        names = ", ".join(map(str, files)) + " registers no" if files else "no installed package registers an"
        raise ConfigError(f"{names} attack, rule, task or optimiser; write one as docs/extending.md shows")
    for each in found:
        word = "fail" if each.problem else "skip" if each.skipped else "ok"
        reason = each.problem or (
            f"not tried: {each.skipped}; data sets are looked for in {where}" if each.skipped else ""
        )
        wrap.echo(f"{word:4}  {each.name}" + (f": {reason}" if reason else ""), 6)
        if each.trace:
            click.echo("".join(f"      {line}\n" for line in each.trace.splitlines()), nl=False, err=True)
    untried = any(each.skipped and each.kind == "task" for each in found)
    failed = any(each.problem for each in found)
    raise SystemExit(exits.USAGE if failed else exits.PREFLIGHT if untried else exits.OK)


def _catalogue(entries: Any) -> None:
    for entry in entries:
        acts_on = entry.facts.get("acts_on")
        wrap.echo(f"{entry.name}{f' (on {acts_on})' if acts_on else ''}: {entry.summary}", 6)
        condition = entry.facts.get("condition")
        if condition is not None:
            wrap.echo(f"    needs {condition.words}", 6)
        if entry.facts.get("coordinatewise") is False:
            wrap.echo(f"    {_ON_PARTS}", 6)
        if entry.parameters:
            wrap.echo("    " + ", ".join(f"{name}={default}" for name, default in entry.parameters.items()), 6)
        wrap.echo(f"    source: {entry.source}", 6)


ALL = (
    verify,
    collect,
    status,
    logs,
    stop,
    clean,
    sweep,
    report,
    figures,
    compare,
    export,
    dashboards,
    attacks,
    rules,
    tasks,
    optimisers,
    check,
)
