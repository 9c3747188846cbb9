"""The table of options as flags of the command line, and their help, group by group."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from btard.launcher import exits
from btard.launcher.options.table import OPTIONS, Option
from btard.node.nearest import suggestion

_LISTS = ("attacks", "rules", "tasks", "optimisers", "status", "logs")
"""Commands that only show what there is."""


class Launch(click.Group):
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
            raise click.UsageError(f"unknown command {args[0]!r}; {suggestion(args[0], names)}")
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; whoever reads a list and leaves (`| head`) had what it wanted, a run was cut short."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            # Python must not complain about it once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return exits.OK if context.invoked_subcommand in _LISTS else exits.FAILED


class GroupedCommand(click.Command):
    """A command whose help lists the options of the table group by group."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group, then the options that only this command has."""
        groups = {option.field: option.group for option in OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in groups.values()}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and record[1]:  # an argument has no help of its own; the usage line names it
                sections.setdefault(groups.get(parameter.name or "", "General"), []).append(record)
        for group, records in sections.items():
            with formatter.section(group):
                formatter.write_dl(records)


def table_options(command: Callable[..., None]) -> Callable[..., None]:
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
    word = option.metavar.partition("|")[0]
    if default is None and word in ("auto", "none"):
        return f"{option.help} [{word}]"
    if default is None or isinstance(default, bool) or default == ():
        return option.help
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{option.help} [{text}]"
