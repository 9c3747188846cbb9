"""The network that a user asks for: options and per-link exceptions as the conditions that drivers understand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product

from launcher import syntax
from launcher.experiment import Experiment
from node.conditions import Change, Conditions
from node.errors import ConfigError
from node.network import QUIET, changed

_ARROW = re.compile(r"\s*(\*|\d+)\s*(->|<->)\s*(\*|\d+)\s*")

FIELDS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "delay": ("delay_s", syntax.seconds),
    "jitter": ("jitter_s", syntax.seconds),
    "loss": ("loss", syntax.share),
    "retransmit": ("retransmit_s", syntax.seconds),
    "duplicate": ("duplicate", syntax.share),
    "bandwidth": ("bandwidth_bytes_per_s", syntax.rate),
}
"""What a user may say of a link: the field of `Link` and how its value is read."""


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
    return Conditions(tuple(changes), experiment.seeds.protocol) if changes else None


def _exception(text: str, peers: int) -> Change:
    """One --link: `0->4:delay=50ms,loss=1%`."""
    where, colon, rest = text.partition(":")
    arrow = _ARROW.fullmatch(where)
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


def pairs(sender: str, arrow: str, receiver: str, peers: int) -> tuple[tuple[int, int], ...]:
    """The directions that `0->4`, `0<->4`, `*->4` mean.

    Raises:
        ConfigError: a peer that does not exist, or one on both sides.
    """
    ends = []
    for word in (sender, receiver):
        if word != "*" and int(word) >= peers:
            raise ConfigError(f"there is no peer {word}; the peers are 0 to {peers - 1}")
        ends.append(range(peers) if word == "*" else (int(word),))
    found = {(one, other) for one, other in product(*ends) if one != other}
    if not found:
        raise ConfigError(f"peer {sender} has no link to itself; name two peers")
    return tuple(sorted(found | {(b, a) for a, b in found} if arrow == "<->" else found))


def describe(conditions: Conditions) -> list[str]:
    """What is asked for, one line for each change that holds from the start."""
    names = {field: word for word, (field, _) in FIELDS.items()}
    lines = []
    for change in conditions.changes:
        if change.window.start == 0 and change.window.stop is None and change.values:
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


def _shown(directions: tuple[tuple[int, int], ...]) -> str:
    text = " ".join(f"{one}->{other}" for one, other in directions[:6])
    return f"{text} and {len(directions) - 6} more" if len(directions) > 6 else text


def _written(field: str, value: float) -> str:
    if field.endswith("_bytes_per_s"):
        return f"{value / 1e6:g} MB/s"
    return f"{value * 1000:g} ms" if field.endswith("_s") else f"{value * 100:g}%"
