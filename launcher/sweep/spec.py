"""What a sweep runs: options of the command line, a file of grids, or a plan that ships."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btard.launcher.options import sources
from btard.launcher.options.table import OPTIONS
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import grid, plans
from btard.launcher.sweep.grid import Cell
from btard.node.errors import ConfigError
from btard.node.nearest import suggestion

_TOP_KEYS = ("name", "grid")
_GRID_KEYS = ("label",)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A named list of cells.

    Args:
        name: of its directory and of its report.
        cells: all different.
        after: the cells that follow, from the final accuracies of `cells` in their order; None: none do.
    """

    name: str
    cells: tuple[Cell, ...]
    after: Callable[[Sequence[float | None]], tuple[Cell, ...]] | None = None

    @property
    def following(self) -> int:
        """How many cells follow, whatever `cells` come to."""
        return 0 if self.after is None else len(self.after([0.0] * len(self.cells)))


def make(which: str | None, quick: bool, base: Experiment, given: Mapping[str, object]) -> Sweep:
    """The sweep that a user asks for.

    Args:
        which: the name of a plan that ships, a TOML or JSON file, or None: the options alone.
        quick: the plan's short form.
        base: what cells start from: variables, configuration file, defaults.
        given: options of the command line, field to text; they replace what plan or file says.

    Raises:
        ConfigError: an unknown plan, an unreadable file, a value that cannot be read, or too many cells.
    """
    over = {name: grid.axis(name, value, _flag(name)) for name, value in given.items()}
    follow = plans.FOLLOWING.get(which or "")
    for fixed in (name for name in plans.FIXED if follow is not None and name in over):
        raise ConfigError(f"{_flag(fixed)} is what the phases of plan {which!r} differ in; leave it out")
    if which is None:
        if quick:
            raise ConfigError("--quick belongs to a plan; write `btard-launch sweep paper --quick`")
        blocks, name = [plans.Block({}, {})], "options"
    elif which in plans.PLANS:
        blocks, name = plans.PLANS[which](quick), f"{which}-quick" if quick else which
    else:
        blocks, name = _read(which)
        if quick:
            raise ConfigError(f"--quick belongs to a plan that ships; leave it out for the file {which}")

    def made(blocks: Sequence[plans.Block]) -> tuple[Cell, ...]:
        products = [({**_product(block, name), **over}, block.labels) for block in blocks]
        grid.check_size(sum(grid.size(axes) for axes, _ in products), f"sweep {name!r}")
        return tuple(grid.unique(cell for axes, labels in products for cell in grid.cells(base, axes, labels)))

    first = made(blocks)
    if follow is None:
        return Sweep(name, first)
    experiments = [cell.experiment for cell in first]
    return Sweep(name, first, lambda finals: made(follow(quick, list(zip(experiments, finals, strict=True)))))


def only(sweep: Sweep, source: str) -> Sweep:
    """The part of a sweep that a list names: the first word of each line is a cell, as `--dry-run` writes them.

    Args:
        source: a file, or `-` for standard input.

    Raises:
        ConfigError: it cannot be read, names no cell, or one that the sweep does not have.
    """
    what = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as error:
        raise ConfigError(f"list of cells {what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"list of cells {what} is no text: {error}") from error
    wanted: set[str] = set()
    known = {cell.id for cell in sweep.cells}
    for number, words in enumerate((line.split() for line in text.splitlines()), start=1):
        if words and words[0] not in known:
            raise ConfigError(f"list of cells {what}, line {number}: {words[0]!r} is no cell of this sweep; "
                              "`--dry-run` lists them")  # fmt: skip
        wanted.update(words[:1])
    if not wanted:
        raise ConfigError(f"list of cells {what} names none; `--dry-run` lists them")
    return Sweep(sweep.name, tuple(cell for cell in sweep.cells if cell.id in wanted))


def _product(block: plans.Block, name: str) -> dict[str, list[object]]:
    return {key: grid.axis(key, value, f"{name}: {key}") for key, value in block.axes.items()}


def _flag(name: str) -> str:
    return next(option.flag for option in OPTIONS if option.field == name)


def _read(which: str) -> tuple[list[plans.Block], str]:
    """Blocks of a file: keys at the top hold for all `[[grid]]` tables."""
    path = Path(which)
    if not path.exists() and not path.suffix:
        hint = suggestion(which, plans.PLANS)
        raise ConfigError(f"unknown sweep {which!r}; {hint} (a file's name ends in .toml or .json)")
    table = sources.read_file(path, f"sweep file {which}")
    grids = _grids(table, which)
    common = _axes(table, which, _TOP_KEYS)
    blocks = [
        plans.Block(
            {**common, **_axes(each, which, _GRID_KEYS)}, {"label": str(each["label"])} if "label" in each else {}
        )
        for each in grids
    ]
    return blocks, str(table.get("name", path.stem))


def _grids(table: Mapping[str, Any], which: str) -> list[dict[str, Any]]:
    """The `[[grid]]` tables of a file; one without options where it has none."""
    if "label" in table:
        raise ConfigError(f"sweep file {which}: 'label' names one grid; write it into a [[grid]] table")
    grids = table.get("grid", [{}])
    if not isinstance(grids, list) or not all(isinstance(each, dict) for each in grids):
        raise ConfigError(f"sweep file {which}: grids are written as [[grid]] tables")
    if not grids:
        raise ConfigError(f"sweep file {which}: 'grid' is empty; add a [[grid]] table, or leave 'grid' out")
    for key in _TOP_KEYS:
        if any(key in each for each in grids):
            raise ConfigError(f"sweep file {which}: {key!r} has no meaning in a [[grid]] table; write it at the top")
    return grids


def _axes(table: Mapping[str, object], which: str, own: Sequence[str]) -> dict[str, Sequence[object]]:
    options = {key: value for key, value in table.items() if key not in own}
    axes = sources.by_field(options, f"sweep file {which}")
    return {name: value if isinstance(value, list) else [value] for name, value in axes.items()}
