"""The network that a user asks for: options and per-link exceptions as the conditions that drivers understand."""

from __future__ import annotations

from pathlib import Path

from btard.launcher.options.syntax import ARROW, FIELDS, pairs
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.scenario import Script, load
from btard.node.errors import ConfigError
from btard.node.netem.conditions import Change, Conditions
from btard.node.netem.network import QUIET, changed


def of(experiment: Experiment) -> Conditions | None:
    """The conditions of a run, None if nothing is asked for.

    Raises:
        ConfigError: a value out of range, or a link that cannot be read.
    """
    everywhere = {
        "delay_s": experiment.delay,
        "jitter_s": experiment.jitter,
        "loss": experiment.loss,
        "duplicate": experiment.duplicate,
    }
    values = {name: value for name, value in everywhere.items() if value}
    if experiment.bandwidth is not None:
        values["bandwidth_bytes_per_s"] = experiment.bandwidth
    changes = [Change(values=values)] if values else []
    changes += [_exception(text, experiment.peers) for text in experiment.link]
    for change in changes:
        changed(QUIET, change.values)
    script = scenario(experiment)
    both = (*changes, *script.changes)
    if not (both or script.events or script.churn):
        return None
    return Conditions(both, script.events, experiment.network_seed, script.churn)


def scenario(experiment: Experiment) -> Script:
    """The scenario of a run, an empty one if none is named.

    Raises:
        ConfigError: it cannot be read, or a mistake with its line and column.
    """
    if experiment.scenario is None:
        return Script()
    return load(Path(experiment.scenario), experiment.peers, experiment.steps)


def _exception(text: str, peers: int) -> Change:
    """One --link: `0->4:delay=50ms,loss=1%`."""
    where, colon, rest = text.partition(":")
    arrow = ARROW.fullmatch(where)
    if arrow is None or not colon:
        raise ConfigError(f"--link {text!r} is not FROM->TO:name=value,...; write 0->4:delay=50ms,loss=1%")
    values: dict[str, float] = {}
    for item in rest.split(","):
        name, equals, written = (piece.strip() for piece in item.partition("="))
        if name not in FIELDS or not equals:
            raise ConfigError(f"--link {text!r}: {item.strip()!r} is not one of {', '.join(FIELDS)} with =value")
        field, parse = FIELDS[name]
        try:
            values[field] = parse(written)
        except ConfigError as error:
            raise ConfigError(f"--link {text!r}: {name} {error}") from error
    try:
        return Change(values=values, pairs=pairs(arrow[1], arrow[2], arrow[3], peers))
    except ConfigError as error:
        raise ConfigError(f"--link {text!r}: {error}") from error


def describe(conditions: Conditions) -> list[str]:
    """What is asked for, one line for each change that holds from the start."""
    names = {field: word for word, (field, _) in FIELDS.items()}
    lines = []
    for change in conditions.changes:
        if not change.text and change.window.start == 0 and change.window.stop is None and change.values:
            where = "all links" if change.pairs is None else f"links {_shown(change.pairs)}"
            what = ", ".join(f"{names[field]} {_written(field, value)}" for field, value in change.values.items())
            lines.append(f"{where}: {what}")
    return lines


def slowest_s(conditions: Conditions) -> float:
    """The longest delay and jitter that is asked for at any time, one lost transmission included where some are."""
    found = [0.0]
    for change in conditions.changes:
        link = changed(QUIET, change.values)
        found.append(link.delay_s + link.jitter_s + (link.retransmit_s if link.loss > 0 else 0.0))
    return max(found)


def always_s(conditions: Conditions) -> float:
    """The longest delay and jitter that is asked for over the whole run; what a scenario does for a while is no part of
    it."""
    asked = (change for change in conditions.changes if not change.text and change.window.stop is None)
    links = (changed(QUIET, change.values) for change in asked)
    return max((link.delay_s + link.jitter_s for link in links), default=0.0)


def _shown(directions: tuple[tuple[int, int], ...]) -> str:
    text = " ".join(f"{one}->{other}" for one, other in directions[:6])
    return f"{text} and {len(directions) - 6} more" if len(directions) > 6 else text


def _written(field: str, value: float) -> str:
    if field.endswith("_bytes_per_s"):
        return f"{value / 1e6:g} MB/s"
    return f"{value * 1000:g} ms" if field.endswith("_s") else f"{value * 100:g}%"
