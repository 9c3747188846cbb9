"""Commands that list what can be chosen: attacks, rules, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from node import extensions

PUBLIC_DATA = "private data cannot be used: gradients are recomputed from public data"

_import_option = click.option(
    "--import", "imports", metavar="FILE.py", multiple=True, type=click.Path(path_type=Path),
    help="file with own attacks, rules or tasks (repeatable)",
)  # fmt: skip


@click.command()
@_import_option
def attacks(imports: Sequence[Path]) -> None:
    """List the attacks with their parameters."""
    extensions.load(imports)
    from node.attacks.registry import ATTACKS

    _catalogue(ATTACKS)
    click.echo("    PROTOCOL is the project's specification; the end of docs/protocol.md lists its sections")


@click.command(short_help="List the aggregation rules.")
@_import_option
def rules(imports: Sequence[Path]) -> None:
    """List the aggregation rules and pre-aggregations with their parameters."""
    extensions.load(imports)
    from node.aggregation.registry import PRE_AGGREGATIONS, RULES

    _catalogue(RULES)
    click.echo("    pre-aggregations, in front of a rule, joined by '+' (--rule nnm+krum):")
    _catalogue(PRE_AGGREGATIONS)


@click.command()
@_import_option
def tasks(imports: Sequence[Path]) -> None:
    """List the training tasks with their parameters."""
    extensions.load(imports)
    from node.training.registry import TASKS

    _catalogue(TASKS)
    click.echo(f"    {PUBLIC_DATA}")


def _catalogue(entries: Any) -> None:
    for entry in entries:
        acts_on = entry.facts.get("acts_on")
        click.echo(f"{entry.name}{f' (on {acts_on})' if acts_on else ''}: {entry.summary}")
        condition = entry.facts.get("condition")
        if condition is not None:
            click.echo(f"    needs {condition.words}")
        if entry.facts.get("coordinatewise") is False:
            click.echo("    on parts it differs from the rule on the whole vector: each aggregator chooses for itself")
        if entry.parameters:
            click.echo("    " + ", ".join(f"{name}={default}" for name, default in entry.parameters.items()))
        click.echo(f"    source: {entry.source}")
