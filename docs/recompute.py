"""Works out again, from the runs that archived pages list, what the pages conclude: `python -m docs.recompute`.

A page's table of all runs is data and stays; verdicts, draws and figures of the law are written anew from it, by the
code that writes pages today. Curves were not archived, so what rests on them is undecided.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from btard.launcher.report import claims, sweep_figures, sweep_page
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
    "sixteen": ("sixteen", False, {"seed": "0"}),
}
"""Pages that speak of draws or the law: the plan, its form, and options that all of a page's runs share."""


def main() -> None:
    """Write the pages, and print the claims."""
    for name in PAGES:
        (REPORTS / f"{name}.html").write_text(page(name), encoding="utf-8")
    sys.stdout.write("\n".join(table()) + "\n")


def load(name: str) -> SweepData:
    """The runs that an archived page lists, each with the options of its cell of the plan.

    Raises:
        ValueError: a line is no cell of the plan, or of several.
    """
    plan, quick, shared = PAGES[name]
    known = spec.make(plan, quick, Experiment(), {"backend": "simulated"}).cells
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
    text, sweep = (REPORTS / f"{name}.html").read_text("utf-8"), load(name)
    text = re.sub(
        r"<section[^>]*><h2>(?:The report(?:'|&#x27;)s claims|The draws)</h2>.*?</section>\s*",
        "",
        text,
        flags=re.DOTALL,
    )
    text = re.sub(" \u00b1 [0-9.]+", "", text)  # of runs that share a draw, taken for independent
    text = re.sub(r": two attackers at once strike for\s+about ten steps before both are gone", "", text)
    for figure in sweep_figures.detections(sweep):
        made = f"{figure.svg}<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
        begin = text.index("</h3>", text.index(f'<figure id="{figure.key}">')) + len("</h3>")
        text = text[:begin] + made + text[text.index("</figure>", begin) + len("</figure>") :]
    facts = re.search(r'<div class="facts">.*?</div></div>\s*', text, re.DOTALL)
    assert facts is not None, "every page of a sweep begins with facts"
    return text[: facts.end()] + sweep_page.judged(sweep).strip() + "\n" + text[facts.end() :]


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
    cells = r"<t[hd][^>]*>(.*?)</t[hd]>"
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(cells, line, re.DOTALL)]
        for line in re.findall("<tr>(.*?)</tr>", text[text.rindex("<table") :], re.DOTALL)
    ]


def _row(line: Mapping[str, str], known: Sequence[Cell]) -> Row:
    (cell,) = [
        cell
        for cell in known
        if all(_same(rows.options(cell).get(name), word) for name, word in line.items() if name not in _OUTCOMES)
    ]
    bans, waits = line["bans at"].split(), [int(word) for word in line["attacked steps"].split()]
    told = re.fullmatch(r"(\d+) findings, (\d+) wrong", line["verified"])
    attackers = len(cell.experiment.roles())
    return Row(
        cell=line["cell"],
        labels=dict(cell.labels),
        options=rows.options(cell),
        outcome="finished",
        problem=None,
        final_test_accuracy=float(line["final"]),
        best_test_accuracy=None,
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
        bytes_sent=0,
        bytes_bulk=0,
        bytes_control=0,
        bytes_published=0,
        wall_seconds=float(line["wall s"]),
        cpu_seconds=float(line["CPU s"]),
    )


_OUTCOMES = ("cell", "final", "to clean", "bans at", "attacked steps", "honest banned", "verified", "wall s", "CPU s")


def _same(value: Any, word: str) -> bool:
    """Whether a page may show a value so; a clean run's attack is `none` in one column and empty in another."""
    if value in (None, ()):
        return word in ("", "none")
    return f"{value:g}" == word if isinstance(value, float) else str(value) == word


if __name__ == "__main__":
    main()
