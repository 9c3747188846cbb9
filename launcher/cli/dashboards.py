"""The command `dashboards`: what they are, and how a Grafana of one's own gets them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from btard.launcher.assets import asset


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dashboards() -> None:
    """The Grafana dashboards: list them, or push them to a Grafana."""


@dashboards.command("list")
def show() -> None:
    """Name the dashboards, their files, and the panels below the questions that they answer."""
    for path in files():
        made = json.loads(path.read_text())
        click.echo(f"{made['title']}: /d/{made['uid']}  {path}")
        for panel in made["panels"]:
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
