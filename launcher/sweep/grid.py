"""From the values that a user writes for options to the cells of a sweep: one experiment each."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from blake3 import blake3

from btard.launcher.options import sources
from btard.launcher.options.table import OPTIONS, Option
from btard.launcher.run.experiment import Experiment
from btard.node.errors import ConfigError
from btard.node.plugins import extensions

PLACE = ("run_dir", "data_dir", "download", "base_port", "timeout", "expect")
"""Options that do not change what a run computes, and so are no part of a cell's identity."""
_NOT_SWEPT = {
    "run_dir": "use --out for the sweep's directory",
    "expect": "leave it out, and read results.csv, which has one row per run",
}
MOST_CELLS = 100_000
"""More are a typing mistake, and making them takes minutes in which nothing is to be seen."""
_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")
# A comma before `key=` goes on with a plug-in's parameters; any other one separates two values.
_COMMA = re.compile(r",(?!\s*[A-Za-z_]\w*\s*=)")
_OPTIONS = {option.field: option for option in OPTIONS}

Axes = Mapping[str, Sequence[object]]
"""Field of `Experiment` to the values it takes, converted."""


_LATER: Mapping[str, object] = {
    "imports": (),
    "allow_weak": False,
    "topology": "butterfly",
    "worker_momentum": 0.0,
    "init": None,
    "optimiser": "sgd",
    "schedule": "cosine",
    "split": "iid",
    "one_port": False,
    "attack_when": "always",
    "attack_last": None,
}
"""Options that came after sweeps had been stored: at these values they are no part of a cell's identity."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep.

    Args:
        experiment: what to run, without its place.
        labels: what the sweep's plan calls it, for tables and figures; no part of its identity.
    """

    experiment: Experiment
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Sixteen hex digits that equal configurations share."""
        return identity(self.experiment)


def identity(experiment: Experiment) -> str:
    """The content hash of a configuration: every option but those of `PLACE`."""
    content = {key: value for key, value in msgspec.structs.asdict(experiment).items() if key not in PLACE}
    content["imports"] = tuple(extensions.label(Path(path)) for path in experiment.imports)
    for key, default in _LATER.items():
        if content.get(key) == default:
            del content[key]
    encoded = msgspec.json.encode(content, order="deterministic")
    return blake3(encoded, derive_key_context="btard 1 sweep cell").hexdigest(8)


def alternatives(option: Option, text: str) -> list[str]:
    """The values in a text: `a,b`, `0..4`, or `a|b` where values contain commas; a comma inside a plug-in's parameters
    does not separate.

    Raises:
        ConfigError: a range that is empty, or of more values than a sweep may have cells.
    """
    if "|" in text:
        return [piece.strip() for piece in text.split("|")]
    if option.many:
        return [text.strip()]
    values: list[str] = []
    for piece in _COMMA.split(text):
        bounds = _RANGE.fullmatch(piece)
        if bounds is None:
            values.append(piece.strip())
        else:
            low, high = int(bounds[1]), int(bounds[2])
            if high < low:
                raise ConfigError(f"{option.flag} {piece.strip()} is an empty range; write {high}..{low}")
            # Before it is written out: a typing mistake may stand for millions.
            check_size(len(values) + high - low + 1, f"{option.flag} {piece.strip()}")
            values += [str(number) for number in range(low, high + 1)]
    return values


def axis(name: str, given: object, where: str) -> list[object]:
    """The converted values of one option.

    Args:
        name: a field of `Experiment`.
        given: text as on the command line, a value, a list of either, or a switch's bool.
        where: what a message names, e.g. `--rule`.

    Raises:
        ConfigError: an option that cannot be swept, or a value that cannot be read.
    """
    option = _OPTIONS[name]
    if name in _NOT_SWEPT:
        raise ConfigError(f"{option.flag} has no meaning in a sweep; {_NOT_SWEPT[name]}")
    values: list[object] = []
    for item in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(item, str):
            values.append(sources.typed(option, [item] if option.many else item, where))
            continue
        for text in alternatives(option, item):
            parts = tuple(part.strip() for part in text.split(";") if part.strip()) if option.many else text
            values.append(sources.from_text(option, parts, where))
    if not values:
        raise ConfigError(f"{where} has no value")
    return values


def size(axes: Axes) -> int:
    """Cells of the product of all axes, doubles among them."""
    return math.prod(len(values) for values in axes.values())


def check_size(count: int, what: str) -> None:
    """Refuse a sweep that is too large, before its cells are made.

    Args:
        count: cells, doubles among them.
        what: makes so many.

    Raises:
        ConfigError: the number and the limit.
    """
    if count > MOST_CELLS:
        raise ConfigError(
            f"{what} makes {count} cells, and a sweep has {MOST_CELLS} at most; use fewer values, or several sweeps"
        )


def cells(base: Experiment, axes: Axes, labels: Mapping[str, str] | None = None) -> list[Cell]:
    """The product of all axes on top of `base`, in the order of the axes, without doubles.

    A cell without attackers has no attack either, so that `--byzantine 0..2 --attack noise,drop` holds one clean cell.

    Raises:
        ConfigError: they are more than a sweep may have.
    """
    check_size(size(axes), " x ".join(_OPTIONS[name].flag for name in axes))
    made: dict[str, Cell] = {}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        experiment = msgspec.structs.replace(base, **chosen)
        if experiment.byzantine == 0 and experiment.attack is not None:
            experiment = msgspec.structs.replace(experiment, attack=None)
        cell = Cell(experiment, dict(labels or {}))
        made.setdefault(cell.id, cell)
    return list(made.values())


def unique(found: Iterable[Cell]) -> list[Cell]:
    """The cells without those whose configuration has come before."""
    made: dict[str, Cell] = {}
    for cell in found:
        made.setdefault(cell.id, cell)
    return list(made.values())


def varied(found: Sequence[Cell]) -> list[str]:
    """The options that are not the same in all cells, in the order of the table."""
    names = [option.field for option in OPTIONS if option.field not in PLACE]
    return [name for name in names if len({str(getattr(cell.experiment, name)) for cell in found}) > 1]


def describe(cell: Cell, names: Sequence[str]) -> str:
    """A cell in a few words: its labels and the values of the varied options."""
    # A curve's label says all that the name of its figure says.
    words = [value for name, value in cell.labels.items() if value and (name != "chart" or "label" not in cell.labels)]
    for name in names:
        value = getattr(cell.experiment, name)
        if value not in (None, ()) and str(value) not in words:
            words.append(str(value) if name in ("attack", "rule") else f"{name}={_shown(value)}")
    return " ".join(words) or "the only cell"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)
