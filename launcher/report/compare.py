"""`btard-launch compare A B`: two runs, or two sweeps cell by cell, on one page and in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from btard.launcher.figures import chart, svg
from btard.launcher.figures.chart import Axis, Chart, Mark, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.options.table import OPTIONS
from btard.launcher.report import page, run_data, run_figures, sweep_data
from btard.launcher.report.run_data import RunData
from btard.launcher.report.statistics import Sample, sample, signed
from btard.launcher.report.sweep_data import SweepData
from btard.launcher.sweep.grid import PLACE
from btard.launcher.sweep.rows import Row
from btard.node.errors import ConfigError

Line = tuple[str, str, str, str]
"""What, A's value, B's value, B less A."""


def make(a: Path, b: Path) -> tuple[list[Line], str]:
    """Compare two runs or two sweeps.

    Returns:
        What differs, line by line, and the page.

    Raises:
        ConfigError: one of them is neither, or they are of different kinds.
        DataError: a file is damaged.
    """
    kinds = [kind(path) for path in (a, b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"{a} is a {kinds[0]} and {b} a {kinds[1]}; compare two of a kind")
    if kinds[0] == "run":
        return _runs(run_data.load(a), run_data.load(b))
    return _sweeps(sweep_data.load(a), sweep_data.load(b))


def kind(path: Path, advice: str = "") -> str:
    """What a path holds: run or sweep, which may be an archive.

    Raises:
        ConfigError: neither, and the advice.
    """
    if path.suffix == ".parquet" and path.is_file():
        return "sweep"
    for name in ("sweep", "run"):
        if (path / f"{name}.json").is_file():
            return name
    raise ConfigError(f"{path} is neither a run nor a sweep: it has no run.json and no sweep.json{advice}")


def _runs(a: RunData, b: RunData) -> tuple[list[Line], str]:
    lines = [*_options(a, b), *_scores(a, b)]
    names = _names(a.path, b.path)
    figures = [figure for figure in (_accuracy(a, b, names), _loss(a, b, names)) if figure is not None]
    tables = [("Differences", ("", *names, "B less A"), lines, (3,)), ("Bans", ("", *names), list(_bans(a, b)), ())]
    return lines, _page(names, tables, figures)


def _page(names: Sequence[str], tables: Sequence[object], figures: Sequence[Figure] = ()) -> str:
    title, lead = f"{names[0]} and {names[1]}", "A is the first, B the second."
    return page.render("compare.html", interactive=figures, title=title, lead=lead, tables=tables, figures=figures)


def _options(a: RunData, b: RunData) -> Iterator[Line]:
    for option in OPTIONS:
        assert a.record is not None and b.record is not None  # runs of a launcher
        ours, theirs = (getattr(record.experiment, option.field) for record in (a.record, b.record))
        if option.field not in PLACE and ours != theirs:
            none = "auto" if option.metavar.startswith("auto") else "none"
            a_word, b_word = (none if value is None else _word(value) for value in (ours, theirs))
            yield option.flag, a_word, b_word, ""


def _scores(a: RunData, b: RunData) -> Iterator[Line]:
    figures = (
        "outcome", "steps", "final_test_accuracy", "final_train_loss", "honest_banned", "undetected", "agreement",
        "voided_attempts", "wall_seconds",
    )  # fmt: skip
    for name in figures:
        ours, theirs = getattr(a.summary, name), getattr(b.summary, name)
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (ours, theirs))
        yield name.replace("_", " "), _word(ours), _word(theirs), f"{theirs - ours:+.4g}" if numbers else ""
    for kind in msgspec.structs.asdict(a.summary.bytes_sent):
        ours, theirs = (getattr(run.summary.bytes_sent, kind) for run in (a, b))
        yield f"bytes, {kind}", human(ours), human(theirs), f"{100 * (theirs / ours - 1):+.1f}%" if ours else ""
    same = set(a.summary.parameter_digest.values()) & set(b.summary.parameter_digest.values())
    yield "final parameters", "", "the same bits as A's" if same else "different", ""


def _accuracy(a: RunData, b: RunData, names: Sequence[str]) -> Figure | None:
    series = [
        Series(name, run_figures.evaluated(run), colour)
        for name, run, colour in zip(names, (a, b), svg.COLOURS, strict=False)
        if run.summary.accuracy
    ]
    if not series:
        return None
    axis = chart.around("test accuracy", [line.points for line in series], min(map(run_figures.settled, (a, b))))
    drawn = Chart("test accuracy", _steps(a, b), axis, series, marks=_marks(a, b, names))
    return Figure("accuracy", "Test accuracy", drawn, drawn.cut)


def _loss(a: RunData, b: RunData, names: Sequence[str]) -> Figure | None:
    series = [
        Series(name, run_figures.smoothed(points, 15), colour)
        for name, run, colour in zip(names, (a, b), svg.COLOURS, strict=False)
        if (points := run_figures.honest_loss(run))
    ]
    if not series:
        return None
    axis = chart.around("training loss", [line.points for line in series], log=True)
    drawn = Chart("training loss", _steps(a, b), axis, series, marks=_marks(a, b, names))
    return Figure("loss", "Training loss", drawn, "Mean of the last 15 steps, honest peers.")


def _marks(a: RunData, b: RunData, names: Sequence[str]) -> list[Mark]:
    return [
        Mark(float(ban.step), f"{name}: peer {ban.peer} banned", colour)
        for name, run, colour in zip(names, (a, b), svg.COLOURS, strict=False)
        for ban in run.summary.bans
    ]


def _bans(a: RunData, b: RunData) -> Iterator[Sequence[str]]:
    peers = sorted({ban.peer for run in (a, b) for ban in run.summary.bans})
    for peer in peers:
        yield (
            f"peer {peer}",
            *(
                "; ".join(f"step {ban.step}, {ban.reason}" for ban in run.summary.bans if ban.peer == peer)
                or "not banned"
                for run in (a, b)
            ),
        )


def _steps(a: RunData, b: RunData) -> Axis:
    return Axis("step", 0.0, float(max(run.run.steps for run in (a, b))))


def _sweeps(a: SweepData, b: SweepData) -> tuple[list[Line], str]:
    """Cells of equal configuration first; then what only one of them holds."""
    ours, theirs = ({row.cell: row for row in sweep.rows} for sweep in (a, b))
    both = [cell for cell in ours if cell in theirs]
    apart = sample([_apart(ours[cell], theirs[cell]) for cell in both])
    names = _names(a.path, b.path)
    lines: list[Line] = [
        ("runs", str(len(ours)), str(len(theirs)), f"{len(theirs) - len(ours):+d}"),
        ("of the same configuration", str(len(both)), str(len(both)), ""),
        ("final accuracy, mean", *_means(a.rows, b.rows, sweep_data.final)),
        ("the same, equal configurations", "", "", "" if apart is None else _spread(apart)),
        ("attackers free", *_counts(a, b, lambda row: row.undetected)),
        ("honest banned", *_counts(a, b, lambda row: row.honest_banned)),
    ]  # fmt: skip
    header = ("cell", "what", *names, "B less A")
    body = [_cell(a, cell, ours.get(cell), theirs.get(cell)) for cell in dict.fromkeys([*ours, *theirs])]
    tables = [
        ("Together", ("", *names, "B less A"), lines, (1, 2, 3)),
        ("Cell by cell: final test accuracy", header, body, (2, 3, 4)),
    ]
    return lines, _page(names, tables)


def _cell(a: SweepData, cell: str, ours: Row | None, theirs: Row | None) -> Sequence[str]:
    row = ours or theirs
    assert row is not None
    words = [*row.labels.values(), *(f"{name}={_word(row.options.get(name))}" for name in a.varied)]
    apart = _apart(ours, theirs) if ours is not None and theirs is not None else None
    return cell, " ".join(words), _final(ours), _final(theirs), "" if apart is None else signed(apart)


def _apart(ours: Row, theirs: Row) -> float | None:
    if ours.final_test_accuracy is None or theirs.final_test_accuracy is None:
        return None
    return theirs.final_test_accuracy - ours.final_test_accuracy


def _means(ours: Sequence[Row], theirs: Sequence[Row], figure: sweep_data.Measure) -> tuple[str, str, str]:
    a, b = (sample([figure(row) for row in rows]) for rows in (ours, theirs))
    words = ["" if each is None else f"{each.mean:.4f}" for each in (a, b)]
    return words[0], words[1], signed(b.mean - a.mean) if a is not None and b is not None else ""


def _counts(a: SweepData, b: SweepData, figure: Callable[[Row], int]) -> tuple[str, str, str]:
    ours, theirs = (sum(figure(row) for row in sweep.rows) for sweep in (a, b))
    return str(ours), str(theirs), f"{theirs - ours:+d}"


def _spread(values: Sample) -> str:
    return f"median {signed(values.median)}, {signed(min(values.values))} to {signed(max(values.values))}"


def _final(row: Row | None) -> str:
    return "" if row is None or row.final_test_accuracy is None else f"{row.final_test_accuracy:.4f}"


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Short names; whole paths where those are the same."""
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value in (None, ()) else str(value)
