"""How values are written on the command line, in BTARD_* variables, in configuration files and in scenarios."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product

from btard.node.config import Plugin
from btard.node.errors import ConfigError

_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_RATES = {"": 1.0, "b/s": 1.0, "kb/s": 1e3, "mb/s": 1e6, "gb/s": 1e9, "bit": 0.125, "kbit": 125.0, "mbit": 125e3,
          "gbit": 125e6}  # fmt: skip
_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_WORDS: Mapping[str, object] = {"true": True, "false": False, "none": None}
# A plus that joins attacks is followed by a name; the one in 1e+3 by a digit.
_JOIN = re.compile(r"\+(?=\s*[A-Za-z_])")


def boolean(text: str) -> bool:
    """A truth value: true/false, yes/no, on/off, 1/0.

    Raises:
        ConfigError: anything else.
    """
    word = text.strip().lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise ConfigError(f"{text!r} is not true or false")


def integer(text: str) -> int:
    """A whole number.

    Raises:
        ConfigError: anything else.
    """
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a whole number") from None


def integer_or_off(text: str) -> int:
    """A whole number; `off` is 0.

    Raises:
        ConfigError: anything else.
    """
    return 0 if text.strip().lower() == "off" else integer(text)


def number(text: str) -> float:
    """A number.

    Raises:
        ConfigError: anything else.
    """
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


def seconds(text: str) -> float:
    """A duration: a number of seconds, or a number with one of the units ms, s, m, min, h, d.

    Raises:
        ConfigError: anything else, or not finite.
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*(ms|s|min|m|h|d|)\s*", text)
    try:
        value = float(match[1]) * _SECONDS[match[2]] if match else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{text!r} is not a duration; write 500ms, 2s, 5m, 36h or 7d")
    return value


def latency(text: str) -> float:
    """A duration that must name its unit: 50 would be milliseconds to some and seconds to others.

    Raises:
        ConfigError: no unit (0 needs none), negative, or no duration.
    """
    value = seconds(text)
    if value < 0:
        raise ConfigError(f"{text.strip()!r} is negative; write 50ms, or 0 for none")
    if value and not text.strip()[-1].isalpha():
        raise ConfigError(f"{text.strip()!r} has no unit (ms, s, m, h, d); write {text.strip()}ms or {text.strip()}s")
    return value


def size(text: str) -> float:
    """Bytes: a number with one of the units B, kB, MB, GB, TB (0 needs none).

    Raises:
        ConfigError: anything else, or negative.
    """
    match = re.fullmatch(r"\s*([0-9.eE+]+?)\s*([a-z]*)\s*", text.lower())
    try:
        found = float(match[1]) * _SIZES[match[2]] if match else math.nan
    except (ValueError, KeyError):
        found = math.nan
    if not math.isfinite(found) or (found and match is not None and not match[2]):
        raise ConfigError(f"{text!r} is no size with a unit; write 500MB or 2GB")
    return found


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Names an option in the error about its value.

    Raises:
        ConfigError: the one that was raised, with the name before it.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what} {error}") from error


def share(text: str) -> float:
    """A share: a number from 0 to 1, or a percentage.

    Raises:
        ConfigError: anything else.
    """
    number_, percent, rest = text.strip().partition("%")
    try:
        found = float(number_) / (100.0 if percent else 1.0)
    except ValueError:
        found = math.nan
    if rest or not 0 <= found <= 1:
        raise ConfigError(f"{text!r} is not a share; write 1% or 0.01")
    return found


def rate(text: str) -> float:
    """Bytes per second: a number, or one with a unit: kB/s, MB/s, GB/s, kbit, mbit, gbit.

    Raises:
        ConfigError: anything else, or not positive.
    """
    match = re.fullmatch(r"\s*([0-9.eE+]+?)\s*([a-z/]*)\s*", text.lower())
    try:
        found = float(match[1]) * _RATES[match[2]] if match else math.nan
    except (ValueError, KeyError):
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigError(f"{text!r} is not a rate; write 10mbit, 2MB/s or 500kB/s")
    return found


def value(text: str) -> object:
    """A plug-in's parameter: a whole number, a number, true, false, none, or else the text itself."""
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    for convert in (int, float):
        try:
            return convert(word)
        except ValueError:
            continue
    return word


def plugin(text: str) -> Plugin:
    """One plug-in, `NAME[:key=value,...]`.

    Raises:
        ConfigError: no name, or a parameter without `=`.
    """
    name, colon, rest = text.partition(":")
    if not name.strip():
        raise ConfigError(f"{text!r} has no name; write NAME or NAME:key=value,key=value")
    parameters: dict[str, object] = {}
    for item in rest.split(",") if colon else []:
        key, equals, written = item.partition("=")
        if not equals or not key.strip() or not written.strip():
            raise ConfigError(f"{item!r} in {text!r} is not key=value")
        if key.strip() in parameters:
            raise ConfigError(f"{key.strip()!r} is given twice in {text!r}")
        parameters[key.strip()] = value(written)
    return Plugin(name.strip(), parameters)


def plugins(text: str) -> tuple[Plugin, ...]:
    """Several plug-ins joined by `+`, each as in `plugin`.

    Raises:
        ConfigError: as `plugin`.
    """
    return tuple(plugin(piece) for piece in _JOIN.split(text))


def written(chosen: Plugin) -> str:
    """The text that `plugin` reads back as `chosen`."""
    inner = ",".join(f"{key}={_word(item)}" for key, item in chosen.parameters.items())
    return f"{chosen.name}:{inner}" if inner else chosen.name


def _word(item: object) -> str:
    return str(item).lower() if isinstance(item, bool) or item is None else str(item)


ARROW = re.compile(r"\s*(\*|\d+)\s*(->|<->)\s*(\*|\d+)\s*")

FIELDS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "delay": ("delay_s", latency),
    "jitter": ("jitter_s", latency),
    "loss": ("loss", share),
    "retransmit": ("retransmit_s", latency),
    "duplicate": ("duplicate", share),
    "bandwidth": ("bandwidth_bytes_per_s", rate),
}
"""What a user may say of a link: the field of `Link` and how its value is read."""


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
