"""Commands that list what can be chosen, attacks, rules, tasks and optimisers, and one that tries out one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from btard.launcher import exits, wrap
from btard.node.errors import ConfigError
from btard.node.plugins import extensions

PUBLIC_DATA = "private data cannot be used: gradients are recomputed from public data"

_ON_PARTS = "on parts it differs from the rule on the whole vector: each aggregator chooses for itself"

_import_option = click.option(
    "--import", "imports", metavar="FILE.py", multiple=True, type=click.Path(path_type=Path),
    help="file with own attacks, rules or tasks (repeatable)",
)  # fmt: skip


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
    wrap.echo(f"    {PUBLIC_DATA}", 6)


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
@click.argument("files", metavar="FILE.py...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", help="where data sets lie [~/.cache/btard/data]")
def check(files: Sequence[Path], data_dir: str | None) -> None:
    """Try out the attacks, rules, tasks and optimisers of files, and of installed packages, as a run would use them.

    Gradients and aggregates are computed twice in one process and once in a fresh one: others must find the same bits
    (exit 2 if something cannot be used; `run` and `--dry-run` check what they use themselves).
    """
    from btard.launcher.run import data, plugin_trial

    found = plugin_trial.check_files(
        [str(path) for path in files], data.directory(data_dir or os.environ.get("BTARD_DATA_DIR"))
    )
    if not found:
        names = ", ".join(map(str, files)) or "no installed package"
        raise ConfigError(f"{names} registers no attack, rule, task or optimiser; write one as docs/extending.md shows")
    for each in found:
        word = "fail" if each.problem else "skip" if each.skipped else "ok"
        reason = each.problem or each.skipped
        wrap.echo(f"{word:4}  {each.name}" + (f": {reason}" if reason else ""), 6)
        if each.trace:
            click.echo("".join(f"      {line}\n" for line in each.trace.splitlines()), nl=False, err=True)
    raise SystemExit(exits.USAGE if any(each.problem for each in found) else exits.OK)


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
