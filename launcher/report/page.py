"""The page around figures and tables: one file without links to anything, in the theme of whoever reads it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from html import escape

from btard.launcher.figures.svg import Figure

_STYLE = """
:root{--ink:#1f2328;--muted:#59636e;--grid:#d9dee4;--paper:#fff;--card:#f6f8fa;--line:#d1d9e0;--good:#1a7f37;
--bad:#cf222e;--open:#9a6700;--link:#0969da}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--muted:#9198a1;--grid:#31373f;--paper:#0d1117;--card:#151b23;
--line:#30363d;--good:#3fb950;--bad:#f85149;--open:#d29922;--link:#4493f8}
}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:980px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}
h2{font-size:19px;margin:38px 0 10px;padding-bottom:5px;border-bottom:1px solid var(--line)}
h3{font-size:16px;margin:22px 0 6px}
.lead,figcaption,small{color:var(--muted)}
figure{margin:18px 0}
figure h3{margin:0 0 6px}
figcaption{font-size:13.5px;margin-top:4px}
svg{display:block;width:100%;max-width:780px;height:auto;font-family:inherit}
svg text.ink{fill:var(--ink)}
svg text.muted{fill:var(--muted)}
svg line.grid{stroke:var(--grid)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:10px;margin:18px 0}
.fact{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:9px 13px}
.fact b{display:block;font-size:20px;font-weight:600}
.fact span{color:var(--muted);font-size:13px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;margin:10px 0}
th,td{padding:4px 11px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
th{color:var(--muted);font-weight:600}
pre,code{font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 13px;overflow-x:auto;
white-space:pre-wrap;overflow-wrap:anywhere}
.good{color:var(--good)}
.bad{color:var(--bad)}
.open{color:var(--open)}
.claim{border-left:4px solid var(--line);padding:2px 0 2px 14px;margin:16px 0}
.claim.good{border-color:var(--good);color:inherit}
.claim.bad{border-color:var(--bad);color:inherit}
.claim.open{border-color:var(--open);color:inherit}
.claim q{font-style:italic}
.claim strong.good{color:var(--good)}
.claim strong.bad{color:var(--bad)}
.claim strong.open{color:var(--open)}
details{margin:12px 0}
summary{cursor:pointer;color:var(--link)}
"""


def render(title: str, lead: str, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: of the page, as text.
        lead: a sentence below it, as text.
        body: sections, as HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>\n"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n' + "\n".join(body) + "\n</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A headed part of the page."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Figures that stand out, as (what, value)."""
    cells = "".join(
        f'<div class="fact"><span>{escape(what)}</span><b>{escape(value)}</b></div>' for what, value in pairs
    )
    return f'<div class="facts">{cells}</div>'


def show(figure: Figure) -> str:
    """A figure with its title and caption."""
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f'<figure id="{figure.key}"><h3>{escape(figure.title)}</h3>{figure.svg}{caption}</figure>'


def table(header: Sequence[str], body: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    """A table of texts; the columns in `numbers` are set flush right."""
    right = frozenset(numbers)

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in right else ''}>{escape(str(value))}</{tag}>"
            for place, value in enumerate(values)
        )

    lines = "".join(f"<tr>{cells('td', line)}</tr>" for line in body)
    return f'<div class="wide"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{lines}</tbody></table></div>'


def claim(mood: str, quote: str, section: str, verdict: str, words: str) -> str:
    """A sentence of somebody's, the section it stands in, and what we say of it; `mood` is good, bad or open."""
    return (
        f'<div class="claim {mood}"><q>{escape(quote)}</q> <small>(section {section})</small><br>'
        f'<strong class="{mood}">{verdict}.</strong> {escape(words)}</div>'
    )


def paragraph(words: str) -> str:
    """A paragraph of text."""
    return f"<p>{escape(words)}</p>"


def command(words: Sequence[str]) -> str:
    """A command line to copy."""
    return f"<pre>{escape(shlex.join(words))}</pre>"


def folded(title: str, inner: str) -> str:
    """HTML behind a line to click."""
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"
