"""Works out again, from the runs that archived pages list, what the pages conclude: `python -m docs.recompute`.

A page with an archive beside it, NAME.parquet, is written from that. Of older ones the table of all runs is data and
stays; verdicts, draws, heatmaps and figures of the law are written anew from it, by the code that writes pages today,
and so are their frame, contents and tables. Their curves were not archived: pictures stay as they were drawn, Figure 4
is beside it on an axis that it needs, and what rests on curves is undecided.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from btard.launcher import templates
from btard.launcher.figures import chart
from btard.launcher.figures.chart import Axis, Chart, Dot, Mark, Series
from btard.launcher.figures.svg import Figure, Scale
from btard.launcher.options import syntax
from btard.launcher.report import claims, sweep_data, sweep_figures, sweep_page
from btard.launcher.report import page as html_page
from btard.launcher.report.sweep_data import SweepData
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import rows, spec
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Curves, Row

REPORTS = Path(__file__).parent / "reports"
PAGES: Mapping[str, tuple[str, bool, dict[str, str]]] = {
    "paper": ("paper", False, {}),
    "paper-rest": ("paper", False, {"rule": "centered_clip"}),
    "paper-quick": ("paper", True, {}),
    "rules": ("rules", False, {}),
    **{name: (name, False, {"seed": "0"}) for name in ("starts", "mixed", "aggregation", "sixteen")},
}
"""The plan of each page without an archive, its form, and options that all of a page's runs share."""
ARCHIVES = sorted(path.stem for path in REPORTS.glob("*.parquet"))
_TABLE = re.compile(
    r"(?:<details><summary>\d+ (?:rows|runs)</summary>)?"
    r"<div class=\"wide[^>]*>(<table.*?</table>)</div>(?:</details>)?",
    re.DOTALL,
)


def main() -> None:
    """Write the pages, and print the claims."""
    for name in (*PAGES, *ARCHIVES):
        (REPORTS / f"{name}.html").write_text(page(name), encoding="utf-8")
    sys.stdout.write("\n".join(table()) + "\n")


def load(name: str) -> SweepData:
    """The runs that an archived page lists, each with the options of its cell of the plan.

    Raises:
        ValueError: a line is no cell of the plan, or of several.
    """
    plan, quick, shared = PAGES[name]
    known = [
        (cell, rows.options(cell) | {"attack": " ".join(cell.experiment.role) or cell.experiment.attack})
        for cell in spec.make(plan, quick, Experiment(), {"backend": "simulated"}).cells
    ]
    header, *body = _lines((REPORTS / f"{name}.html").read_text("utf-8"))
    found = [_row(shared | dict(zip(header, line, strict=True)), known) for line in body]
    return SweepData(
        REPORTS,
        plan,
        ["btard-launch", "sweep", plan],
        len(known),
        found,
        {row.cell: Curves([], [], []) for row in found},
    )


def page(name: str) -> str:
    """An archived page with what its runs decide today."""
    if name in ARCHIVES:
        return sweep_page.render(sweep_data.load(REPORTS / f"{name}.parquet"))
    text, sweep = (REPORTS / f"{name}.html").read_text("utf-8"), load(name)
    title, lead, body = _frame(text)
    own = r"<section[^>]*><h2>(?:The report(?:'|&#x27;|&#39;)s claims|The draws)\b.*?</section>\s*"
    body = re.sub(own, "", body, flags=re.DOTALL)
    body = re.sub(" \u00b1 [0-9.]+", "", body)  # of runs that share a draw, taken for independent
    body = re.sub(r": two attackers at once strike for\s+about ten steps before both are gone", "", body)
    groups = re.search(r"<section[^>]*><h2>All groups.*?</section>\s*", body, re.DOTALL)
    if groups is not None and groups[0].count("<tr>") == len(sweep.rows) + 1:
        body = body.replace(groups[0], "")  # each run is one
    body = re.sub(r'<p class="jump">.*?</p>', "", body)
    body = re.sub(r'<figure id="(?:matrix-|[\w-]*-zoomed").*?</figure>\s*', "", body, flags=re.DOTALL)
    drawn = [*sweep_figures.matrices(sweep), *sweep_figures.detections(sweep)]
    body = _TABLE.sub(lambda found: _part("table", *_cells(found[1])), body)
    body = re.sub(r"</h3>(<svg.*?</svg>)", lambda found: f"</h3>{_WRAPPED.format(found[1])}", body, flags=re.DOTALL)
    if "detection-" in body or drawn:
        section = f"<section><h2>Detection and rules</h2>{_part('show', drawn)}</section>"
        body = re.sub(r"<section[^>]*><h2>Detection and rules.*?</section>", lambda _: section, body, flags=re.DOTALL)
    loose = r"(?<=</div></div>\n)((?:<figure .*?</figure>\s*)+)"
    body = re.sub(loose, r"<section><h2>Curves</h2>\1</section>\n", body, count=1, flags=re.DOTALL)
    body = re.sub(
        r'<figure id="(figure4[\w-]*)"><h3>(.*?)</h3>.*?</figure>',
        lambda found: found[0] + _part("show", [_zoomed(found[1], found[2], found[0])]),
        body,
        flags=re.DOTALL,
    )
    banned = [(what, value) for what, value in sweep_page.facts(sweep) if what in _BANNED]
    shown = _part("facts", banned).removeprefix('<div class="facts">').removesuffix("</div>")
    first, second = (f'<div class="fact"><span>{what}</span><b>[^<]*</b></div>' for what in _BANNED)
    body = re.sub(first, shown, re.sub(second, "", body), count=1)
    facts = re.search(r'<div class="facts">.*?</div></div>\s*', body, re.DOTALL)
    assert facts is not None, "every page of a sweep begins with facts"
    judged = sweep_page.judged(sweep).strip()
    body = f"{body[: facts.end()].strip()}\n{judged}\n{body[facts.end() :].strip()}".replace("\n\n", "\n")
    return html_page.render("archive.html", title=title, lead=lead, body=body)


def pictured(figure: str) -> list[Series]:
    """The curves of an archived picture, whose axes go from 0 to 1 and from step 0 to 900, read back to half a tenth of
    a pixel, which is 0.0002; evaluations were every 50 steps.
    """
    across, up = Scale(58.0, 570.0, 0.0, 900.0), Scale(14.0, 278.0, 1.0, 0.0)
    assert (
        'y="282.0" text-anchor="end" font-size="12">0<' in figure
        and 'y="18.0" text-anchor="end" font-size="12">1<' in figure
    )
    found = re.findall(r'<path d="M([^"]*)" fill="none" stroke="(#\w+)"([^>]*)><title>(.*?)</title>', figure)
    return [
        Series(
            html.unescape(name),
            [
                (50.0 * round(across(x) / 50), round(up(y), 4))
                for x, y in (map(float, at.split()) for at in points.split("L"))
            ],
            colour,
            "6 3" if "dasharray" in rest else "",
        )
        for points, colour, rest, name in found
    ]


def _zoomed(key: str, title: str, figure: str) -> Figure:
    """An archived picture again, on an axis that its own values need."""
    lines = [replace(line, points=chart.gapped(line.points, [_ATTACKED])) for line in pictured(figure)]
    dots = [
        Dot(900.0, float(value), f"report, {name}", colour)
        for colour, name, value in re.findall(
            r'stroke="(#\w+)" stroke-width="2"><title>report, (\w+): ([\d.]+)<', figure
        )
    ]
    shown = [*(line.points for line in lines), [(dot.x, dot.y) for dot in dots]]
    axis = chart.around("test accuracy", shown, _ATTACKED - 10)
    drawn = Chart(
        title,
        Axis("step", 0.0, 900.0),
        axis,
        lines,
        marks=[Mark(_ATTACKED, "attacks begin")],
        dots=dots,
        dots_name="report's final" if dots else "",
    )
    caption = f"The curves above, read back from their picture to 0.0002, on an axis that they need. {drawn.cut}"
    return Figure(f"{key}-zoomed", f"{html.unescape(title)}, zoomed", drawn, caption)


_BANNED = ("attackers banned", "where nobody validates")
_ATTACKED = 100.0
"""The step from which on the report's plan attacks."""
_WRAPPED = '<div class="wide" tabindex="0" role="group" aria-label="figure">{}</div>'


def _frame(text: str) -> tuple[str, str, str]:
    """Title, lead and body of a page, without what every page is given."""
    found = re.search(r'<h1>(.*?)</h1><p class="lead">(.*?)</p>(.*?)</main>', text, re.DOTALL)
    assert found is not None, "every page has them"
    body = re.sub(r'<nav .*?</nav>|<a class="anchor".*?</a>', "", found[3], flags=re.DOTALL)
    return html.unescape(found[1]), html.unescape(found[2]), body.strip()


def _part(macro: str, *values: object) -> str:
    """What a macro of the pages' parts writes."""
    return str(getattr(templates.module("parts.html"), macro)(*values))


def _cells(table: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, lines and numeric columns of a table's source."""
    rows = [re.findall(r"<t[hd]([^>]*)>([^<]*)", line) for line in re.findall("<tr>(.*?)</tr>", table, re.DOTALL)]
    words = [[html.unescape(word) for _, word in row] for row in rows]
    numbers = [place for place, (kind, _) in enumerate(rows[0]) if "class=n" in kind]
    last = re.match(r'<table class="n(\d+)"', table)
    return words[0], words[1:], [*range(int(last[1]), len(words[0]))] if last else numbers


def table() -> Iterator[str]:
    """The claims over the 99 runs of the report's own plan, as lines of docs/experiments.md: with the mean of each
    comparison its least and greatest draw, or where there are more than two comparisons the least and greatest mean."""
    for claim in claims.judge(load("paper")):
        effects = [part.effect for part in claim.parts if part.effect is not None]
        told = [f"{effect.mean:+.2g} ({_span(effect.by_draw.values())})" for effect in effects]
        if len(effects) > 2:
            told = [f"{len(effects)} of {_span(effect.mean for effect in effects)}"]
        nothing = "no curves archived" if claim.parts else "arithmetic"
        count = f"{sum(effect.runs for effect in effects)}, {len(effects[0].by_draw)}" if effects else ""
        quote = claim.quote.split(" in both ")[0]
        yield f"| {quote} | **{claim.verdict}** | {', '.join(told) or nothing} | {count} |"


def _span(values: Iterable[float]) -> str:
    low, *_, high = sorted(values)
    return f"{low:+.2g} to {high:+.2g}"


def _lines(text: str) -> list[list[str]]:
    """The cells of a page's last table, its header first."""
    header, lines, _ = _cells(text[text.rindex("<table") :])
    return [header, *lines]


def _row(line: Mapping[str, str], known: Sequence[tuple[Cell, Mapping[str, Any]]]) -> Row:
    wanted = [(name, word) for name, word in line.items() if name not in _OUTCOMES]
    (cell,) = [cell for cell, shown in known if all(_same(shown.get(name), word) for name, word in wanted)]
    bans, waits = line["bans at"].split(), [int(word) for word in line["attacked steps"].split() if word.isdigit()]
    told = re.fullmatch(r"(\d+) findings, (\d+) wrong", line["verified"])
    attackers = len(cell.experiment.roles())
    return Row(
        cell=line["cell"],
        labels=dict(cell.labels),
        options=rows.options(cell),
        outcome="finished",
        problem=None,
        final_test_accuracy=float(line["final"]),
        best_test_accuracy=float(line["best"]) if line.get("best") else None,
        lowest_after_attack=None,
        final_train_loss=None,
        byzantine_peers=attackers,
        bans=len(waits),
        honest_banned=int(line["honest banned"]),
        honest_gone=0,
        undetected=attackers - len(waits),
        attacked_from=cell.experiment.attack_start if attackers else None,
        first_ban=int(bans[0]) if bans else None,
        last_ban=int(bans[-1]) if bans else None,
        detection_steps=waits,
        agreement=True,
        findings=int(told[1]) if told else None,
        findings_wrong=int(told[2]) if told else None,
        bytes_sent=round(syntax.size(line["bytes"].replace(" ", ""))) if "bytes" in line else 0,
        bytes_bulk=0,
        bytes_control=0,
        bytes_published=0,
        wall_seconds=float(line["wall s"]),
        cpu_seconds=float(line["CPU s"]),
    )


_OUTCOMES = (
    "cell",
    "final",
    "to clean",
    "best",
    "bytes",
    "bans at",
    "attacked steps",
    "honest banned",
    "verified",
    "wall s",
    "CPU s",
)


def _same(value: Any, word: str) -> bool:
    """Whether a page may show a value so; a clean run's attack is `none` in one column and empty in another."""
    if value in (None, ()):
        return word in ("", "none")
    if isinstance(value, tuple):
        return "; ".join(value) == word
    return f"{value:g}" == word if isinstance(value, float) else str(value) == word


if __name__ == "__main__":
    main()
