"""Writes docs/figures/run-live.svg and run-end.svg, the README's pictures of a run under way and of how it ends, from a
real run and its check:

btard-launch --attack noise --byzantine 2
python -m docs.terminal runs/NAME
"""

from __future__ import annotations

import io
import math
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import msgspec
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from btard.launcher.monitor import summary_table
from btard.launcher.monitor.live_view import LiveView, shown_path
from btard.launcher.monitor.state import RunState
from btard.launcher.report import run_page
from btard.launcher.run import plan, run_directory
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.summary import Summary
from btard.launcher.verify import verification
from btard.node.storage import journal

FIGURES = Path(__file__).parent / "figures"
_BLACK, _WHITE, _GREEN, _RED = (13, 17, 23), (230, 237, 243), (63, 185, 80), (248, 81, 73)
_THEME = TerminalTheme(_BLACK, _WHITE, [_BLACK, _RED, _GREEN, *[_WHITE] * 5])
_LATER_S = 0.5
_COLUMNS = 128
_FONT = "'DejaVu Sans Mono', Menlo, Consolas, monospace"


def main(run_dir: Path) -> None:
    """Write the figures."""
    record = run_directory.read_record(run_dir)
    for name, title, show in (
        ("run-live", "a run: both attackers have just been banned", _live),
        ("run-end", "the end of a run, and the check of its evidence", _end),
    ):
        console = Console(file=io.StringIO(), record=True, width=1000, highlight=False, color_system="truecolor")
        _typed(console, "btard-launch", *_asked(record.argv[1:]))
        show(console, record, run_dir)
        console.width = max(map(len, console.export_text(clear=False).splitlines()))
        (FIGURES / f"{name}.svg").write_text(_drawn(console, name, title), encoding="utf-8")
        sys.stdout.write(f"{FIGURES / name}.svg\n")


def _asked(words: list[str]) -> list[str]:
    """The options without where the run was to lie."""
    return words[: words.index("--run-dir")] if "--run-dir" in words else words


def _live(console: Console, record: RunRecord, run_dir: Path) -> None:
    """What `run` shows on a wide terminal when the last attacker has just been banned."""
    made = plan.make(record.experiment)
    state, watching = RunState(made.run.peers, frozenset(made.roles)), LiveView(console)
    records = sorted(
        (each for node in range(made.run.peers) for each in
         journal.read(run_dir / "nodes" / str(node) / "journal.jsonl")[0]),
        key=lambda each: each["time"],
    )  # fmt: skip
    with mock.patch("time.time", lambda: records[0]["time"]):
        watching.began(made, run_dir, state)
    watching._live = mock.Mock()  # on a terminal, steps are told by the table alone
    until = math.inf
    for each in records:
        if each["time"] > until:
            break
        state.apply(each)
        if until == math.inf and len(state.bans) == len(made.roles):
            until = each["time"] + _LATER_S
        with mock.patch("time.time", lambda each=each: each["time"]):
            watching.saw([each])
    console.width = _COLUMNS
    with mock.patch("time.time", lambda: until):
        console.print(watching.view())


def _end(console: Console, record: RunRecord, run_dir: Path) -> None:
    """What `run` and `verify` print at the end."""
    summary = msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=Summary)
    summary_table.show(console, summary, run_dir, record.experiment)
    console.print(f"report: {shown_path(run_dir / run_page.NAME)}", soft_wrap=True)
    console.print()
    _typed(console, "btard-launch", "verify", str(run_dir))
    verification.show(console, run_dir)


def _typed(console: Console, *words: str) -> None:
    console.print(Text(f"$ {shlex.join(words)}", style="bold"), soft_wrap=True)


def _drawn(console: Console, name: str, title: str) -> str:
    """The recorded lines as SVG that asks for no font from elsewhere."""
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", _FONT)
    drawn = console.export_svg(title=title, theme=_THEME, code_format=form, unique_id=name)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
