"""The command line: `btard-launch [COMMAND] [OPTIONS]`; without a command it runs a cluster."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher import exits
from launcher.options import OPTIONS, Option
from node.errors import BackendError, BtardError, ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from launcher.settings import Settings

_EXAMPLES = """\b
Examples:
  btard-launch --attack noise --byzantine 2     six processes, two of them lie
  btard-launch --role 4=sign_flip:start=50 --role 5=label_flip:every=5
  btard-launch --steps 200 --expect 'honest_banned==0' --json
  btard-launch verify runs/NAME                 check the evidence of every ban
"""


class _Launch(click.Group):
    """A group whose default command is `run`, and which answers a wrong command with the nearest one."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front of options that are not the group's own."""
        own = ("--help", "-h", "--version")
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["run", *args]
        return super().parse_args(context, args)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        names = self.list_commands(context)
        if args[0] not in names:
            near = difflib.get_close_matches(args[0], names, n=1, cutoff=0.0)[0]
            raise click.UsageError(f"unknown command {args[0]!r}; did you mean {near!r}?")
        return super().resolve_command(context, args)


class _GroupedCommand(click.Command):
    """A command whose help lists the options of the table group by group."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group, then the options that only this command has."""
        groups = {option.field: option.group for option in OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in groups.values()}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                sections.setdefault(groups.get(parameter.name or "", "General"), []).append(record)
        for group, records in sections.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _table_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add every option of the table; a value stays text until `settings.resolve` reads it."""
    for option in reversed(OPTIONS):
        names = [option.flag, option.field, *([option.short] if option.short else [])]
        if option.metavar:
            decorate = click.option(*names, metavar=option.metavar, multiple=option.many, help=_help(option))
        else:
            decorate = click.option(*names, is_flag=True, flag_value=option.negated is None, default=None,
                                    help=_help(option))  # fmt: skip
        command = decorate(command)
    return click.option("--config", metavar="FILE", help="TOML or JSON file with options, e.g. steps = 200")(command)


def _help(option: Option) -> str:
    default = option.default
    if default is None or isinstance(default, bool) or default == ():
        return option.help
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{option.help} [{text}]"


def _resolved(options: dict[str, Any]) -> Settings:
    """The experiment from flags, environment and file; warnings go to stderr."""
    from launcher import settings

    config = options.pop("config", None)
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    resolved = settings.resolve(given, os.environ, config)
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    return resolved


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@click.group(cls=_Launch, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="btard", prog_name="btard-launch")
def cli() -> None:
    """Train a network on a cluster whose members may lie, and catch those that do.

    Without a command it runs a cluster; `btard-launch run --help` lists the options.
    """


@cli.command(cls=_GroupedCommand)
@_table_options
@click.option("--dry-run", is_flag=True, help="check everything, print the plan, start nothing")
@click.option("--show-config", is_flag=True, help="print each option's value and source, start nothing")
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout, progress on stderr")
def run(dry_run: bool, show_config: bool, as_json: bool, **options: Any) -> None:
    """Run a cluster (the default command)."""
    from launcher import cluster, expectations, plan

    resolved = _resolved(options)
    if show_config:
        plan.quick_check(resolved.experiment)
        _show_config(resolved)
        return
    if dry_run:
        _show_plan(plan.make(resolved.experiment))
        return
    from launcher import monitor, summary, table

    console = _console(stderr=as_json)
    result = cluster.run(
        resolved.experiment, monitor.Monitor(console), argv=sys.argv, sources=resolved.sources
    )  # fmt: skip
    table.show(console, result.summary, result.run_dir)
    if as_json:
        click.echo(summary.as_json(result.summary), nl=False)
    problems = expectations.violations(expectations.parse_all(resolved.experiment.expect), result.summary)
    for problem in problems:
        click.echo(f"expectation not met: {problem}", err=True)
    raise SystemExit(exits.of_run(result.summary.outcome, result.signum, bool(problems)))


@cli.command("plan", cls=_GroupedCommand)
@_table_options
def show_plan(**options: Any) -> None:
    """Show roles, addresses and expected bytes of a run."""
    from launcher import plan

    _show_plan(plan.make(_resolved(options).experiment))


@cli.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="where data sets lie [the run's]")
def verify(run_dir: Path, data_dir: Path | None) -> None:
    """Check the ban evidence of a finished run.

    Public keys and public data suffice; whoever received the directory can do it.
    """
    from launcher import verification

    raise SystemExit(verification.show(_console(), run_dir, data_dir))


@cli.command("data")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data-dir", metavar="DIR", help="where data sets lie [~/.cache/btard/data]")
@click.option("--check", is_flag=True, help="only check what is there")
def prepare_data(names: Sequence[str], data_dir: str | None, check: bool) -> None:
    """Fetch and check data sets (all, or those named)."""
    from launcher import data

    where = data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    for name in names or data.SETS:
        if check:
            data.check(name, where)
            fresh = False
        else:
            fresh = data.prepare(name, where, lambda line: click.echo(line, err=True))
        click.echo(f"{name}: {'prepared' if fresh else 'complete and intact'} in {where}")


@cli.command()
@click.option("--data-dir", metavar="DIR", help="where data sets lie [~/.cache/btard/data]")
@click.option("--run-dir", metavar="DIR", default="runs", show_default=True, help="where runs are to be written")
@click.option("--base-port", metavar="PORT", type=click.IntRange(0, 65535), default=0, help="first of 2N local ports")
@click.option("--peers", "-n", metavar="N", type=click.IntRange(2, 256), default=6, show_default=True, help="workers")
def doctor(data_dir: str | None, run_dir: str, base_port: int, peers: int) -> None:
    """Say what this machine lacks for a run (exit 3 if it cannot run)."""
    from launcher import data
    from launcher import doctor as examination

    failed = False
    where = data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    for check in examination.examine(where, Path(run_dir).absolute(), base_port, peers):
        advice = f"; {check.advice}" if check.advice else ""
        click.echo(f"{check.level:4}  {check.subject:8}  {check.found}{advice}")
        failed |= check.level == "fail"
    raise SystemExit(exits.PREFLIGHT if failed else exits.OK)


@cli.command()
def attacks() -> None:
    """List the attacks with their parameters."""
    from node.attacks.registry import ATTACKS

    _catalogue(ATTACKS)


@cli.command()
def rules() -> None:
    """List the aggregation rules with their parameters."""
    from node.aggregation.registry import RULES

    _catalogue(RULES)


@cli.command()
def tasks() -> None:
    """List the training tasks with their parameters."""
    from node.training.registry import TASKS

    _catalogue(TASKS)


def _catalogue(entries: Any) -> None:
    for entry in entries:
        acts_on = entry.facts.get("acts_on")
        click.echo(f"{entry.name}{f' (on {acts_on})' if acts_on else ''}: {entry.summary}")
        if entry.parameters:
            click.echo("    " + ", ".join(f"{name}={default}" for name, default in entry.parameters.items()))
        click.echo(f"    source: {entry.source}")


def _show_config(resolved: Settings) -> None:
    from launcher import settings

    rows = settings.show(resolved)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        click.echo(f"{name:{widths[0]}} = {value:{widths[1]}}  # {source}")


def _show_plan(chosen: Any) -> None:
    from launcher import monitor, traffic

    for line in monitor.headline(chosen):
        click.echo(line)
    for node, endpoint in enumerate(chosen.listens):
        role = "attacker" if node in chosen.roles else "honest"
        click.echo(f"node {node}  {role:8}  control {endpoint.control}  bulk {endpoint.bulk}")
    expected = chosen.bytes_expected
    known = "unknown until the data set is there" if expected is None else traffic.human(expected)
    click.echo(f"expected bulk bytes: {known}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: every error is one line on stderr, every ending has its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="btard-launch", standalone_mode=False)
    except click.exceptions.Abort:
        code = exits.SIGNALLED + 2
    except click.ClickException as error:
        code = _fail(error.format_message(), exits.USAGE)
    except ConfigError as error:
        code = _fail(str(error), exits.USAGE)
    except (BackendError, DataError) as error:
        code = _fail(str(error), exits.PREFLIGHT)
    except BtardError as error:
        code = _fail(str(error), exits.FAILED)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python must not complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = exits.FAILED
    except KeyboardInterrupt as error:
        click.echo("interrupted", err=True)
        code = exits.SIGNALLED + getattr(error, "signum", 2)
    sys.exit(code if isinstance(code, int) else exits.OK)


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code
