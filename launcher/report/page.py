"""What all report pages share: contents, colours, scripts; one file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from btard.launcher import templates
from btard.launcher.figures import matrix
from btard.launcher.figures.chart import Chart
from btard.launcher.figures.svg import Figure

_ASSETS = Path(__file__).parent / "assets"
_SECTION = re.compile(r'<section(?: id="([\w-]+)")?([^>]*)><h2>(.*?)</h2>', re.DOTALL)
_FEW = 2
"""Sections of a page that need no contents."""


def render(name: str, *, interactive: Sequence[Figure] = (), **values: object) -> str:
    """A page from its template: every section has a link, and stands in the contents.

    Args:
        name: of the template.
        interactive: figures of the page; what is a chart among them can be zoomed into.
        values: what the template asks for.
    """
    plotted = [{"key": figure.key} | figure.drawing.data for figure in interactive if isinstance(figure.drawing, Chart)]
    fills = [(colour := matrix.colour(level), matrix.readable(colour)) for level in range(matrix.LEVELS)]
    text = templates.write(
        name,
        heat=fills,
        asset=asset,
        **values,
        plotted=msgspec.json.encode(plotted).decode().replace("<", "\\u003c") if plotted else "",
    )
    sections: list[tuple[str, str]] = []

    def linked(match: re.Match[str]) -> str:
        words = re.sub(r'<a class="anchor".*?</a>', "", match[3])
        key = match[1] or "-".join(re.findall("[a-z0-9]+", re.sub("<.*?>|&.*?;", "", words).lower()))
        sections.append((key, words))
        anchor = f'<a class="anchor" href="#{key}" aria-label="link to {words}">#</a>'
        return f'<section id="{key}"{match[2]}><h2>{words}{anchor}</h2>'

    text = _SECTION.sub(linked, text)
    contents = "".join(f'<a href="#{key}">{words}</a>' for key, words in sections) if len(sections) > _FEW else ""
    return text.replace("<!--contents-->", f'<nav aria-label="Contents">{contents}</nav>' if contents else "", 1)


@cache
def asset(name: str) -> str:
    """The text of a file in launcher/report/assets."""
    return (_ASSETS / name).read_text(encoding="utf-8")
