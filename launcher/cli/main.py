"""The command line: `btard-launch [COMMAND] [OPTIONS]`; without a command it runs a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btard.launcher import exits, wrap
from btard.launcher.cli import commands, entry
from btard.launcher.cli.flags import GroupedCommand, Launch, table_options
from btard.node.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from btard.launcher.options.sources import Settings

_EXAMPLES = """\b
Examples:
  btard-launch --attack noise --byzantine 2     six processes, two of them lie
  btard-launch --role 4=sign_flip:start=50 --role 5=label_flip:every=5
  btard-launch --steps 200 --expect 'honest_banned==0' --json
  btard-launch verify runs/NAME                 check the evidence of every ban
"""


def _resolved(options: dict[str, Any]) -> Settings:
    """The experiment from flags, environment and file; warnings go to stderr."""
    from btard.launcher.options import sources

    config = options.pop("config", None)
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    resolved = sources.resolve(given, os.environ, config)
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    return resolved


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@click.group(cls=Launch, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="Show the version and exit.",
    callback=lambda context, parameter, wanted: _version(context) if wanted else None,
)
def cli() -> None:
    """Train a network on a cluster whose members may lie, and catch those that do.

    Without a command it runs a cluster; `btard-launch run --help` lists the options.
    """


@cli.command(cls=GroupedCommand)
@table_options
@click.option("--dry-run", is_flag=True, help="check everything, print the plan, start nothing")
@click.option("--show-config", is_flag=True, help="print each option's value and source, start nothing")
@click.option("--tensorboard", is_flag=True, help="write TensorBoard event files into the run directory")
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout, progress on stderr")
@click.option("--grafana", metavar="URL", help="annotate attacks and bans there (GRAFANA_AUTH: token or USER:PASSWORD)")
def run(
    dry_run: bool, show_config: bool, as_json: bool, tensorboard: bool, grafana: str | None, **options: Any
) -> None:
    """Run a cluster (the default command)."""
    from btard.launcher.run import cluster, plan

    resolved = _resolved(options)
    if show_config:
        plan.quick_check(resolved.experiment)
        _show_config(resolved)
        return
    if dry_run:
        _show_plan(plan.make(resolved.experiment))
        return
    from btard.launcher.cli import ending
    from btard.launcher.monitor import live_view
    from btard.launcher.run.observer import Observer

    if tensorboard:
        from btard.launcher.export.command import check_tensorboard

        check_tensorboard()
    console = _console(stderr=as_json)
    observer: Observer = live_view.LiveView(console)
    if grafana is not None:
        from btard.launcher.monitor.grafana import AUTH_VARIABLE, Annotator

        observer = Annotator(observer, grafana, os.environ.get(AUTH_VARIABLE))
    result = cluster.run(resolved.experiment, observer, argv=sys.argv, sources=resolved.sources)
    raise SystemExit(ending.close(console, result, resolved.experiment, as_json=as_json, tensorboard=tensorboard))


@cli.command("resume")
@click.argument("run_dir", metavar="[RUN]", required=False, type=commands.RunPath())
@click.option("--timeout", metavar="TIME", help="stop the run after this time (exit 5)")
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout, progress on stderr")
def resume_run(run_dir: Path | None, timeout: str | None, as_json: bool) -> None:
    """Go on with a run that was stopped or killed [the latest].

    Each node goes on where it was; at most the step that was open is done again, with the same result. What the run
    was expected to show (`--expect`) is checked at its end.
    """
    from btard.launcher.cli import ending
    from btard.launcher.monitor import live_view
    from btard.launcher.options import syntax
    from btard.launcher.run import control, resume, run_directory

    console = _console(stderr=as_json)
    seconds = syntax.seconds(timeout) if timeout is not None else None
    result = resume.resume(run_dir or control.latest(), live_view.LiveView(console), seconds)
    asked = run_directory.read_record(result.run_dir).experiment
    raise SystemExit(ending.close(console, result, asked, as_json=as_json))


@cli.command("plan", cls=GroupedCommand, short_help="Show what a run would do, or write what an engine starts it by.")
@table_options
@click.option(
    "--emit",
    type=click.Choice(["compose", "compose-gpu", "kubernetes", "jobset", "slurm", "swarm", "hosts"]),
    help="write what this engine starts so many peers by, instead",
)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="where --emit writes files [stdout]")
@click.option("--overwrite", is_flag=True, help="files in --out too that have another content")
def show_plan(emit: str | None, out: Path | None, overwrite: bool, **options: Any) -> None:
    """Show roles, addresses and expected bytes of a run, or write what starts it elsewhere."""
    from btard.launcher.run import plan

    experiment = _resolved(options).experiment
    if emit is None:
        if out is not None or overwrite:
            raise ConfigError("--out and --overwrite are for what --emit writes; add --emit, or leave them out")
        _show_plan(plan.make(experiment))
        return
    from btard.launcher.emit.emitters import EMITTERS

    plan.quick_check(experiment)
    made = EMITTERS[emit](experiment.peers)
    if out is None:
        click.echo(made.text, nl=False)
        return
    for path in made.write(out, overwrite):
        click.echo(f"written: {path}")


@cli.command("genesis", short_help="Print the genesis of a run whose peers are pods.")
@click.option(
    "--from-pods",
    "pods_files",
    metavar="FILE.json",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="what `kubectl get pods -o json` printed (repeatable)",
)
@click.option(
    "--config",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="the run's options, as in `run.toml`",
)
@click.option("--name", metavar="NAME", help="of the run [a digest of its configuration and members]")
def genesis_from_pods(pods_files: Sequence[Path], config: Path, name: str | None) -> None:
    """Print the genesis of a run whose peers are pods: the owners of the proposals that their init containers left.

    Anybody who can read the pods can do it, and comes to the same; each pod looks at the result before it signs it.
    """
    from btard.launcher.cli import node
    from btard.launcher.emit import pods
    from btard.node.genesis.genesis import assemble

    read_in = {
        label: proposal
        for path in pods_files
        for label, proposal in pods.proposals(node.content(path, pods.PODS_BYTES), str(path)).items()
    }
    node.print_genesis(assemble(node.run_of(config), read_in, name))


@cli.command("data", short_help="Fetch and check data sets.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@commands.data_dir_option
@click.option("--check", is_flag=True, help="only check what is there")
def prepare_data(names: Sequence[str], data_dir: str | None, check: bool) -> None:
    """Fetch and check data sets: those named (mnist, cifar10), or mnist."""
    from btard.launcher.run import data

    where = data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    for name in names or data.SETS[:1]:
        if check:
            data.check(name, where)
            fresh = False
        else:
            fresh = data.prepare(name, where, lambda line: click.echo(line, err=True))
        click.echo(f"{name}: {'prepared' if fresh else 'complete and intact'} in {where}")


@cli.command(short_help="Say what this machine lacks for a run.")
@commands.data_dir_option
@click.option("--run-dir", metavar="DIR", default="runs", show_default=True, help="where runs are to be written")
@click.option("--base-port", metavar="PORT", type=click.IntRange(0, 65535), default=0, help="first of 2N local ports")
@click.option("--peers", "-n", metavar="N", type=click.IntRange(2, 256), default=6, show_default=True, help="workers")
def doctor(data_dir: str | None, run_dir: str, base_port: int, peers: int) -> None:
    """Say what this machine lacks for a run (exit 3 if it cannot run)."""
    from btard.launcher.cli import doctor as examination
    from btard.launcher.run import data

    failed = False
    where = data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    for check in examination.examine(where, Path(run_dir).absolute(), base_port, peers):
        advice = f"; {check.advice}" if check.advice else ""
        wrap.echo(f"{check.level:4}  {check.subject:8}  {check.found}{advice}", 16)
        failed |= check.level == "fail"
    raise SystemExit(exits.PREFLIGHT if failed else exits.OK)


@cli.command(short_help="Measure a step against gloo and a plain mean.")
@click.option("--peers", "-n", metavar="N", type=click.IntRange(2, 64), default=6, show_default=True, help="workers")
@click.option("--size", metavar="D", type=float, default=1e7, show_default=True, help="floats in a vector")
@click.option("--pairs", metavar="K", type=click.IntRange(1), default=9, show_default=True, help="alternations")
@click.option("--bare", is_flag=True, help="steps without journal, checkpoints and metrics")
@click.option("--one-port", is_flag=True, help="one port for each worker in place of two: encrypted tensors")
@click.option(
    "--wire",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="entries of tensors as they travel",
)
@click.option("--task", metavar="TASK", help="measure the protocol's share of this task's training steps instead")
@click.option("--steps", metavar="N", type=click.IntRange(1), default=100, show_default=True, help="steps of --task")
@click.option("--scaling", is_flag=True, help="4, 8, 16, 32 and 64 peers, one after the other")
@click.option("--json", "as_json", is_flag=True, help="figures as JSON on stdout")
def bench(**options: Any) -> None:
    """Measure a step against gloo's all-reduce and a plain mean, in one run."""
    from btard.launcher.bench import command

    for line in command.lines(**options):
        click.echo(line)


for each in commands.ALL:
    cli.add_command(each)


def _version(context: click.Context) -> None:
    from btard.launcher.containers.versions import installed

    click.echo(f"btard-launch {installed('btard') or 'not installed: running from its source'}")
    context.exit()


def _show_config(resolved: Settings) -> None:
    from btard.launcher.options import sources

    rows = sources.show(resolved.experiment, resolved.sources)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        click.echo(f"{name:{widths[0]}} = {value:{widths[1]}}  # {source}")


def _show_plan(chosen: Any) -> None:
    from btard.launcher.monitor import live_view
    from btard.launcher.network import traffic

    console = _console()
    for line in live_view.headline(chosen):
        for part in live_view.hanging(console, line, 2):
            click.echo(part)
    for node, endpoint in enumerate(chosen.listens):
        role = "attacker" if node in chosen.roles else "honest"
        click.echo(f"node {node}  {role:8}  control {endpoint.control}  bulk {endpoint.bulk}")
    if chosen.run.topology != "butterfly":
        return  # the formula is the butterfly's
    expected = chosen.bytes_expected
    known = "unknown until the data set is there" if expected is None else traffic.human(expected)
    click.echo(f"expected bulk bytes: {known}")
    if expected is not None:
        wrap.echo("  of tensors, if nobody is banned and nothing is disputed: peers that are banned send no more")
        part_bytes = chosen.run.entry_bytes * chosen.dimension // chosen.run.peers
        if part_bytes < traffic.SMALL_BYTES:
            wrap.echo(
                f"  a part is {traffic.human(part_bytes)}: its header adds up to {traffic.HEADER_BYTES} bytes more"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `btard-launch`."""
    entry.call(cli, "btard-launch", arguments)
