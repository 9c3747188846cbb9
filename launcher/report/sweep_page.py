"""report.html of a sweep: figures, tables, and for the paper's plan the verdict on each claim of the report."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from btard.launcher import templates
from btard.launcher.figures.svg import Figure
from btard.launcher.files import IN_A_RUN, write_atomically
from btard.launcher.network.traffic import human
from btard.launcher.report import claims, detection, front, harm, page, strategies, sweep_data, sweep_figures, tuned
from btard.launcher.report.inference import CONTRADICTED, LEVEL, SUPPORTED, Comparison, Effect, needed
from btard.launcher.report.run_page import NAME
from btard.launcher.report.statistics import Sample, signed
from btard.launcher.report.sweep_data import NO_ATTACK, SEEDS, SweepData, attack_of, draw_of, final, grouped
from btard.launcher.run.run_directory import Versions
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, FINALS, MILD
from btard.launcher.sweep.progress import duration
from btard.launcher.sweep.rows import Row
from btard.launcher.sweep.store import RESULTS

Table = tuple[Sequence[str], Sequence[Sequence[object]], range]
"""Header, lines, and the columns that are numbers."""

_FINAL_HEADER = (
    *("median", "to clean, mean", "95 % interval", "lowest since the attack", "attacked steps until ban", "runs"),
    "draws",
)


_PARTS = (harm.figures, front.figures, tuned.figures)
_FIGURES = (sweep_figures.matrices, sweep_figures.heatmaps, sweep_figures.detections)


def write(path: Path) -> Path:
    """Write report.html into a sweep's directory, or beside an archive the page of its name; returns its path.

    Raises:
        ConfigError: it is no sweep, or no cell is finished.
        DataError: a cell is damaged.
        BackendError: it cannot be written.
    """
    target = path / NAME if path.is_dir() else path.with_suffix(".html")
    write_atomically(target, render(sweep_data.load(path)).encode(), option=IN_A_RUN)
    return target


def render(sweep: SweepData) -> str:
    """The page. Rows with the labels of the report's plan get what the report has, as far as they go."""
    paper = any(row.labels.get("scheme") for row in sweep.rows)
    own = paper and any(not row.labels.get("control") for row in sweep.rows) and not claims.mixed(sweep)
    ours = sweep_figures.report_figures(sweep) if own else []
    controls = list(_controls(sweep)) if paper else []
    curves = [] if paper else sweep_figures.curves(sweep)
    chosen = strategies.strategies(sweep)
    return page.render(
        "sweep.html", interactive=[*ours, *curves, *(each for _, _, drawn in controls for each in drawn)],
        title=f"Sweep {sweep.name}", lead=f"{len(sweep.rows)} of {sweep.wanted} runs finished",
        about=facts(sweep), claims=judged(sweep), judged=paper and claims.judge(sweep), final_header=_FINAL_HEADER,
        finals=list(_final_rows(sweep)) if own else None,
        report_figures=ours, controls=controls, curves=curves,
        figures=[each for drawn in _FIGURES for each in drawn(sweep)],
        groups=_groups(sweep),
        runs=_runs(sweep), repeat=shlex.join(["btard-launch", *sweep.argv[1:]]), results=RESULTS,
        made=_made(sweep), harm=(harm.HEADER, harm.table(sweep), (2, 3, 4, 7, 8, 9)), harm_figures=harm.figures(sweep),
        front=(front.HEADER, front.table(sweep), (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)), front_figures=front.figures(sweep),
        topologies=_compared_with(sweep),
        tuned=(tuned.HEADER, tuned.table(sweep), (4, 5, 7, 8, 9, 10, 12, 13)), tuned_figures=tuned.figures(sweep),
        strategies=(strategies.HEADER, strategies.table(chosen), (3, 4, 5, 7, 8)),
        strategy_figures=strategies.figures(chosen),
    )  # fmt: skip


def figures(sweep: SweepData) -> list[Figure]:
    """All figures of the page, in its order."""
    controls = dict.fromkeys(row.labels["control"] for row in sweep.rows if row.labels.get("control"))
    found = [figure for control in ("", *controls) for figure in sweep_figures.report_figures(sweep, control)]
    if not any(row.labels.get("scheme") for row in sweep.rows):
        found = sweep_figures.curves(sweep)
    found += [each for drawn in _PARTS for each in drawn(sweep)]
    found += strategies.figures(strategies.strategies(sweep))
    return found + [each for drawn in _FIGURES for each in drawn(sweep)]


def _made(sweep: SweepData) -> Table:
    """By which commit, versions and machine how many runs were made."""
    lines = [_maker(sweep.versions.get(row.cell)) for row in sweep.rows]
    found = [(lines.count(line), *line) for line in dict.fromkeys(lines)]
    return ("runs", "commit", "python", "torch", "platform", "processors"), found, range(1)


def _maker(made: Versions | None) -> tuple[str, ...]:
    if made is None:
        return ("not recorded", "", "", "", "")
    commit = f"{made.git_commit or 'not a clone'}{' (changed)' if made.git_clean is False else ''}"
    return commit, made.python, made.packages.get("torch") or "", made.platform, made.processors or "not recorded"


def _compared_with(sweep: SweepData) -> str:
    """What a sweep over topologies trains, in words; empty where its runs have one topology."""
    if "topology" not in sweep.varied:
        return ""
    kinds = dict.fromkeys((row.options["task"], row.options["peers"]) for row in sweep.rows)
    return " and ".join(f"{peers} peers train {task}" for task, peers in kinds)


def facts(sweep: SweepData) -> list[tuple[str, str]]:
    """What stands out: name and value."""
    rows = sweep.rows
    watched = [row for row in rows if row.options["validators"] and row.options.get("topology") in (None, "butterfly")]
    others = [row for row in rows if row not in watched and row.byzantine_peers]
    checked = [row for row in rows if row.findings is not None]
    return [
        ("runs", f"{len(rows)} of {sweep.wanted}"),
        ("attackers banned", _banned(watched)),
        *([("where nobody validates", _banned(others))] if others else []),
        ("honest peers banned", str(sum(row.honest_banned for row in rows))),
        ("agreement broken", f"{sum(not row.agreement for row in rows)} runs"),
        ("evidence checked", f"{len(checked)} runs, {sum(row.findings_wrong or 0 for row in checked)} wrong"),
        ("CPU time", duration(sum(row.cpu_seconds for row in rows))),
        ("median run", f"{statistics.median(row.wall_seconds for row in rows):.0f} s"),
        ("bytes sent", human(sum(row.bytes_sent for row in rows))),
    ]


def _banned(rows: Sequence[Row]) -> str:
    attackers = sum(row.byzantine_peers for row in rows)
    return f"{attackers - sum(row.undetected for row in rows)} of {attackers}"


def judged(sweep: SweepData) -> str:
    """The sections of a page about the report's claims and about the draws, as HTML; empty where there is neither."""
    found = claims.judge(sweep)
    body = [(claim, [_compared(part) for part in claim.parts]) for claim in found]
    moods = {SUPPORTED: "good", CONTRADICTED: "bad"}
    mixed = " and ".join(f"--{name.replace('_', '-')}" for name in claims.mixed(sweep))
    return templates.write(
        "claims.html", judged=body, mixed=mixed, moods=moods, standing=_standing(sweep), draws=_draws(sweep)
    )


def _compared(part: Comparison) -> tuple[object, ...]:
    effect = part.effect
    if effect is None:
        return part.name, part.claimed, "", "", "", "", "", "", part.verdict
    spread = effect.standardised
    draws = ", ".join(f"{draw}: {value:+.4f}" for draw, value in effect.by_draw.items())
    return (part.name, part.claimed, signed(effect.mean), effect.bounds(), "" if spread is None else f"{spread:+.1f}",
            effect.runs, len(effect.by_draw), draws, part.verdict)  # fmt: skip


def _standing(sweep: SweepData) -> str:
    seeds, draws = len({row.options["seed"] for row in sweep.rows}), len(set(map(draw_of, sweep.rows)))
    words = f"{seeds} seed{'s' * (seeds > 1)} and {draws} draw{'s' * (draws > 1)} of validators. "
    words += "A verdict follows from differences between runs of the same seeds, averaged within their draw: runs that "
    words += (
        f"share one are one observation of it. Intervals are those of the exact sign-flip test over draws, {LEVEL:.0%} "
    )
    words += (
        f"for all of a claim together; with fewer than {needed(LEVEL)} draws there is none, and nothing is decided."
    )
    return words


def _draws(sweep: SweepData) -> Table:
    """Each draw with how long its attackers last, and where that lies in the law of the runs' own setting."""
    lines: list[Sequence[object]] = []
    for (byzantine, every, on_ban, *_), rows in grouped(sweep.rows, _LAW).items():
        places = [(draw_of(row), *_placed(row)) for row in rows]
        for draw, steps, place in dict.fromkeys(each for each in places if each[-1]):
            lines.append((byzantine, every, on_ban, draw, places.count((draw, steps, place)), steps, place))
    return ("attackers", "every", "bans", "draw", "runs", "T", "law, T or less"), lines, range(4, 7)


_LAW = ("byzantine", "attack_every", "on_ban", "peers", "validators", "validate_every", "validators_contribute")


def _placed(row: Row) -> tuple[str, str]:
    """T, and the share of draws in the law that last no longer."""
    steps, place = detection.lasted(row), detection.place_of(row)
    return "" if steps is None else str(steps), "" if place is None else f"{place:.0%}"


def _apart(effect: Effect | None) -> tuple[str, str]:
    return ("", "") if effect is None else (signed(effect.mean), effect.bounds())


def _final_rows(sweep: SweepData, control: str = "") -> Iterator[Sequence[object]]:
    for scheme in (AGGRESSIVE, MILD):
        for attack in (NO_ATTACK, *ATTACKS):
            rows = sweep.select(CLEAN if attack == NO_ATTACK else scheme, attack, control)
            finals = sweep.over(rows, final)
            if finals is None:
                continue
            apart = None if attack == NO_ATTACK else sweep.effect(rows, sweep.difference)
            lowest = [row.lowest_after_attack for row in rows if row.lowest_after_attack is not None]
            yield (scheme, attack, f"{FINALS[scheme][attack]:.4f}" if not control else "", f"{finals.mean:.4f}",
                   f"{finals.median:.4f}", *_apart(apart), f"{min(lowest):.4f}" if lowest else "", _waited(rows),
                   len(finals.values), len(set(map(draw_of, rows))))  # fmt: skip


def _waited(rows: Sequence[Row]) -> str:
    waited = [count for row in rows for count in row.detection_steps]
    free, attackers = sum(row.undetected for row in rows), sum(row.byzantine_peers for row in rows)
    if not waited:
        return "never" if free else ""
    caught = f" ({attackers - free} of {attackers} caught)" if free else ""
    return f"{statistics.fmean(waited):.1f} (max {max(waited)}){caught}"


def _controls(sweep: SweepData) -> Iterator[tuple[str, list[Sequence[object]], list[Figure]]]:
    for control in dict.fromkeys(row.labels["control"] for row in sweep.rows if row.labels.get("control")):
        figures = sweep_figures.report_figures(sweep, control)
        yield control, list(_final_rows(sweep, control)), [each for each in figures if each.key.startswith("figure4")]


def _groups(sweep: SweepData) -> Table:
    names = [
        name for name in ("scheme", "control", "label", "phase") if any(row.labels.get(name) for row in sweep.rows)
    ]
    names += [name for name in sweep.varied if name not in SEEDS]
    header = [*names, "runs", "draws", "final, mean", "median", "worst", "to clean, mean", "95 % interval"]
    header += ["best, mean", "banned", "free", "attacked steps until ban", "T by the law", "bytes", "CPU s"]
    body = [(*map(_word, key), *_group(sweep, rows)) for key, rows in grouped(sweep.rows, names).items()]
    return header, body, range(len(names), len(header))


def _group(sweep: SweepData, rows: Sequence[Row]) -> tuple[object, ...]:
    finals, apart = sweep.over(rows, final), sweep.effect(rows, sweep.difference)
    best = sweep.over(rows, lambda row: row.best_test_accuracy)
    attacked = any(row.byzantine_peers for row in rows)
    return (
        len(rows), len(set(map(draw_of, rows))), _phrase(finals), "" if finals is None else f"{finals.median:.4f}",
        "" if finals is None else f"{min(finals.values):.4f}",
        *_apart(apart if attacked else None), _phrase(best),
        sum(row.bans for row in rows), sum(row.undetected for row in rows), _waited(rows), _expected(rows[0]),
        human(statistics.fmean(row.bytes_sent for row in rows)),
        f"{statistics.fmean(row.cpu_seconds for row in rows):.0f}",
    )  # fmt: skip


def _expected(row: Row) -> str:
    """Mean T by the law of a row's setting; empty where that says nothing."""
    if not row.options["byzantine"] or row.options.get("role"):
        return ""
    last = detection.last_ban_of(*detection.setting_of(row.options))
    return "" if last is None else f"{last[0]:.1f}"


def _runs(sweep: SweepData) -> Table:
    names = sweep.varied
    header = ["cell", *names, "attack", "final", "to clean", "best", "bytes", "bans at", "attacked steps", "T"]
    header += ["law, T or less", "honest banned", "verified", "wall s", "CPU s"]
    return header, [_run(sweep, row, names) for row in sweep.rows], range(len(names) + 2, len(header))


def _run(sweep: SweepData, row: Row, names: Sequence[str]) -> tuple[object, ...]:
    apart = sweep.difference(row) if row.byzantine_peers else None
    bans = " ".join(str(step) for step in dict.fromkeys((row.first_ban, row.last_ban)) if step is not None)
    checked = "no" if row.findings is None else f"{row.findings} findings, {row.findings_wrong} wrong"
    return (
        row.cell, *(_word(row.options.get(name)) for name in names), attack_of(row),
        "" if row.final_test_accuracy is None else f"{row.final_test_accuracy:.4f}",
        "" if apart is None else signed(apart),
        "" if row.best_test_accuracy is None else f"{row.best_test_accuracy:.4f}", human(row.bytes_sent), bans,
        " ".join([*map(str, row.detection_steps), *["never"] * row.undetected]), *_placed(row),
        row.honest_banned, checked, f"{row.wall_seconds:.0f}", f"{row.cpu_seconds:.0f}",
    )  # fmt: skip


def _phrase(values: Sample | None) -> str:
    return "" if values is None else f"{values.mean:.4f}"


def _word(value: object) -> str:
    if value in (None, (), ""):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
