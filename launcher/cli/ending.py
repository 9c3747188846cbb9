"""The end of a run on the command line: its table, its page, its score, its exit code."""

from __future__ import annotations

import shlex

import click
from rich.console import Console

from btard.launcher import exits, files
from btard.launcher.monitor import summary_table
from btard.launcher.monitor.live_view import shown_path
from btard.launcher.run import expectations, removals, summary
from btard.launcher.run.cluster import Result
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.resume import resumable


def close(
    console: Console, result: Result, experiment: Experiment, *, as_json: bool = False, tensorboard: bool = False
) -> int:
    """Show how a run ended, write the page of one that finished, and check what was expected of it.

    Args:
        console: for the table; the summary as JSON goes to stdout, what was not met to stderr.
        result: the run.
        experiment: what was asked for, expectations included.
        tensorboard: write event files, too.

    Returns:
        The exit code.

    Raises:
        BackendError: page or event files cannot be written.
    """
    summary_table.show(console, result.summary, result.run_dir, experiment)
    if result.summary.outcome in (summary.INTERRUPTED, summary.TIMEOUT) and resumable(result.run_dir, experiment):
        console.print(f"go on with it: btard-launch resume {shlex.quote(shown_path(result.run_dir))}", soft_wrap=True)
    if result.summary.outcome == summary.FINISHED:
        from btard.launcher.report import run_page

        if tensorboard:
            from btard.launcher.export import command

            command.write_logs(result.run_dir)
        console.print(f"report: {shown_path(run_page.write(result.run_dir))}", soft_wrap=True)
    if as_json:
        click.echo(files.as_json(result.summary), nl=False)
    problems = expectations.violations([expectations.parse(each) for each in experiment.expect], result.summary)
    for problem in problems:
        click.echo(f"expectation not met: {problem}", err=True)
    removed = bool(removals.unexplained(result.summary)) and not experiment.allow_honest_removals
    if removed and result.summary.outcome == summary.FINISHED:
        click.echo("honest peers were removed, see the table; --allow-honest-removals lets such a run pass", err=True)
    return exits.of_run(result.summary.outcome, result.signum, bool(problems), removed)
