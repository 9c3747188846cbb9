"""What the page of a sweep is made of: its rows, grouped, each with the clean run that it is compared to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from btard.launcher.report.inference import Effect, estimate
from btard.launcher.report.statistics import Sample, sample
from btard.launcher.run.run_directory import Versions
from btard.launcher.sweep import rows, store
from btard.launcher.sweep.rows import Curves, Row
from btard.node.config import RunConfig
from btard.node.errors import ConfigError

K = TypeVar("K")
Measure = Callable[[Row], float | None]
SEEDS = ("seed", "init_seed", "data_seed", "attack_seed", "protocol_seed")
NO_ATTACK = "none"
_ATTACKED = (
    "attack",
    "byzantine",
    "role",
    "attack_every",
    "attack_start",
    "attack_stop",
    "attack_probability",
    "attack_when",
    "attack_last",
    "on_ban",
    "undo",
)
"""Options in which an attacked run may differ from the clean one that it is compared to."""


@dataclass(frozen=True)
class SweepData:
    """A sweep as far as it has come.

    Args:
        path: its directory.
        name: of the sweep.
        argv: the command line that made it last.
        wanted: how many cells it lists.
        rows: of the finished ones, in its order.
        versions: what made them, by cell, as far as they say.
    """

    path: Path
    name: str
    argv: Sequence[str]
    wanted: int
    rows: Sequence[Row]
    _curves: dict[str, Curves] = field(default_factory=dict)
    versions: Mapping[str, Versions] = field(default_factory=dict)

    @cached_property
    def varied(self) -> list[str]:
        """Options that are not the same in all rows."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.options))
        return [name for name in names if len({str(row.options.get(name)) for row in self.rows}) > 1]

    def curves(self, row: Row) -> Curves:
        """The curves of a row, read once."""
        if row.cell not in self._curves:
            self._curves[row.cell] = rows.load_curves(self.path / "cells" / row.cell)
        return self._curves[row.cell]

    def select(self, scheme: str, attack: str | None = None, control: str = "") -> list[Row]:
        """The rows of a scheme of the paper's plan; `attack` None: of all attacks."""
        return [row for row in self.rows
                if row.labels.get("scheme") == scheme and row.labels.get("control", "") == control
                and (attack is None or attack_of(row) == attack)]  # fmt: skip

    def clean_of(self, row: Row) -> Row | None:
        """The run without attackers that has the same seeds and the same defence."""
        return self.beside(row, [other for other in self.rows if other.byzantine_peers == 0], _ATTACKED)

    def beside(self, row: Row, others: Sequence[Row], apart: Sequence[str] = ("attack",)) -> Row | None:
        """The first of some rows that differs from this one in nothing but the options named."""
        same = [name for name in self.varied if name not in apart]
        key = [row.options.get(name) for name in same]
        return next((other for other in others if [other.options.get(name) for name in same] == key), None)

    def difference(self, row: Row) -> float | None:
        """Final accuracy less that of the clean run of the same seeds."""
        clean = self.clean_of(row)
        if clean is None or row.final_test_accuracy is None or clean.final_test_accuracy is None:
            return None
        return row.final_test_accuracy - clean.final_test_accuracy

    def behind(self, row: Row) -> int | None:
        """Evaluations since the attack's start that are more than 0.01 below the clean run's at the same step;
        None: there is none to compare."""
        pairs = self._beside_clean(row)
        return sum(value < clean - 0.01 for value, clean in pairs) if pairs else None

    def compared(self, row: Row) -> int:
        """Evaluations since the attack's start that the clean run of the same seeds has as well."""
        return len(self._beside_clean(row))

    def _beside_clean(self, row: Row) -> list[tuple[float, float]]:
        clean = self.clean_of(row)
        if clean is None or row.attacked_from is None:
            return []
        reference, every = dict(self.curves(clean).accuracy), evaluated_every(row)
        return [(value, reference[step]) for step, value in self.curves(row).accuracy
                if step >= row.attacked_from and step in reference and step % every == 0]  # fmt: skip

    def effect(self, found: Sequence[Row], figure: Measure, parts: int = 1) -> Effect | None:
        """A paired quantity over the draws of some rows.

        Args:
            found: rows.
            figure: a difference of each to another of the same seeds; None where there is none.
            parts: as in `inference.estimate`.
        """
        return estimate(((draw_of(row), value) for row in found if (value := figure(row)) is not None), parts)

    def over(self, found: Sequence[Row], figure: Measure) -> Sample | None:
        """A quantity over some rows."""
        return sample([figure(row) for row in found])


def load(path: Path) -> SweepData:
    """Read a sweep's directory, or its archive, a results.parquet wherever that lies.

    Raises:
        ConfigError: it is none, no cell is finished, or another version wrote it.
        DataError: a cell is damaged.
    """
    if path.suffix == ".parquet":
        kept = rows.read_parquet(path)
        return SweepData(path, kept.name, kept.argv, kept.wanted, kept.rows, kept.curves, kept.versions)
    record = store.read(path)
    finished = store.Store(path).rows()
    if not finished:
        raise ConfigError(f"no run of the sweep {path} is finished; run `btard-launch sweep` first")
    known = {row.cell: rows.load_versions(path / "cells" / row.cell) for row in finished}
    made = {cell: versions for cell, versions in known.items() if versions is not None}
    return SweepData(path, record.name, record.argv, len(record.cells), finished, versions=made)


def final(row: Row) -> float | None:
    """The measure that most tables show: accuracy on the whole test set at the end."""
    return row.final_test_accuracy


def evaluated_every(row: Row) -> int:
    """Steps from one evaluation to the next, but for those around attacks."""
    return row.options["eval_every"] or RunConfig().eval_every


def attack_of(row: Row) -> str:
    """The attack of a row as a user wrote it; roles count as one."""
    if row.options.get("role"):
        return " ".join(row.options["role"])
    return row.options.get("attack") or NO_ATTACK


def draw_of(row: Row) -> str:
    """What the draw of validators follows; without a protocol seed a simulation derives it from its seed, and real
    processes share no draw."""
    own = row.options["protocol_seed"]
    if own is not None:
        return f"protocol seed {own}"
    return f"seed {row.options['seed']}" if row.options["backend"] == "simulated" else f"cell {row.cell}"


def grouped(found: Sequence[Row], names: Sequence[str]) -> Mapping[tuple[Any, ...], list[Row]]:
    """Rows that agree in some options (or labels), in the order of their first."""
    return grouped_by(found, lambda row: tuple(_value(row, name) for name in names))


def grouped_by(found: Sequence[Row], key: Callable[[Row], K]) -> Mapping[K, list[Row]]:
    """Rows with the same key, in the order of their first."""
    groups: dict[K, list[Row]] = {}
    for row in found:
        groups.setdefault(key(row), []).append(row)
    return groups


def _value(row: Row, name: str) -> Any:
    value = row.labels.get(name, row.options.get(name))
    return tuple(value) if isinstance(value, list) else value
