"""Writes docs/figures/run-end.svg, the README's picture of how a run ends, from a real run and its check:

btard-launch --attack noise --byzantine 2 --steps 150
python -m docs.terminal runs/NAME
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import msgspec
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from launcher import rundir, table, verification
from launcher.monitor import shown_path
from launcher.report import run_page
from launcher.summary import Summary

FIGURE = Path(__file__).parent / "figures" / "run-end.svg"
_BLACK, _WHITE, _GREEN, _RED = (13, 17, 23), (230, 237, 243), (63, 185, 80), (248, 81, 73)
_THEME = TerminalTheme(_BLACK, _WHITE, [_BLACK, _RED, _GREEN, *[_WHITE] * 5])
_FONT = "'DejaVu Sans Mono', Menlo, Consolas, monospace"


def main(run_dir: Path) -> None:
    """Write the figure: what `run` and `verify` print at the end of this run."""
    console = Console(file=io.StringIO(), record=True, width=1000, highlight=False)
    record = rundir.read_record(run_dir)
    summary = msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=Summary)
    _typed(console, "btard-launch", *record.argv[1:])
    table.show(console, summary, run_dir, record.experiment)
    console.print(f"report: {shown_path(run_dir / run_page.NAME)}", soft_wrap=True)
    console.print()
    _typed(console, "btard-launch", "verify", str(run_dir))
    verification.show(console, run_dir)
    console.width = max(map(len, console.export_text(clear=False).splitlines()))
    FIGURE.write_text(_drawn(console), encoding="utf-8")
    sys.stdout.write(f"{FIGURE}\n")


def _typed(console: Console, *words: str) -> None:
    console.print(Text(f"$ {shlex.join(words)}", style="bold"), soft_wrap=True)


def _drawn(console: Console) -> str:
    """The recorded lines as SVG that asks for no font from elsewhere."""
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", _FONT)
    drawn = console.export_svg(title="the end of a run, and the check of its evidence", theme=_THEME, code_format=form,
                               unique_id="run-end")  # fmt: skip
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
