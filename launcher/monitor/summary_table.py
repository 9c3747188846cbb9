"""The table at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from btard.launcher.monitor.live_view import hanging, shown_path
from btard.launcher.monitor.state import undo_line
from btard.launcher.network.summary import events, weather
from btard.launcher.network.traffic import human
from btard.launcher.run import removals
from btard.launcher.run.experiment import IMPORTS, Experiment
from btard.launcher.run.summary import FINISHED, BanRow, Summary

_WIDTH = 22
_REMOVED, _ELIMINATED = "honest, yet removed", "honest, eliminated"
_FRAMED = 1.05
"""Above this share of the formula's bytes, headers are what is seen."""


_LOCAL = Experiment()


def show(
    console: Console, summary: Summary, run_dir: Path, experiment: Experiment = _LOCAL,
    check: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Print how a run ended, and the command that checks it, unless it is a comparison run without evidence.

    Args:
        console: where to.
        summary: the run's.
        run_dir: its directory.
        experiment: what was run.
        check: the words of that command; None: `btard-launch verify` here.
    """
    console.print()
    heading = ""
    for label, text in rows(summary, experiment):
        heading = label or heading
        whole = f"{label:{_WIDTH}}{text}"
        for number, line in enumerate(hanging(console, whole, _WIDTH)):
            head = _WIDTH if number == 0 else 0
            styled = Text.assemble((line[:head], "bold"), (line[head:], _style(heading, summary)))
            console.print(styled, soft_wrap=True)
    if experiment.topology == "butterfly":
        words = check if check is not None else check_command(run_dir, experiment.imports)
        console.print(Text(f"\ncheck the evidence with: {shlex.join(words)}"), soft_wrap=True)


def check_command(run_dir: Path, imports: Sequence[str]) -> list[str]:
    """The words of the command that verifies a run, for whoever stands where this process does.

    Args:
        run_dir: its directory.
        imports: the files that it was made with; the directory holds copies.
    """
    copies = [shown_path(run_dir / IMPORTS / Path(name).name) for name in imports]
    return ["btard-launch", "verify", shown_path(run_dir), *(word for copy in copies for word in ("--import", copy))]


def rows(summary: Summary, experiment: Experiment = _LOCAL) -> list[tuple[str, str]]:
    """Label and text of each line; a label is empty where it would repeat."""
    result = [("outcome", summary.outcome + (f": {summary.problem}" if summary.problem else ""))]
    result.append(("steps", str(summary.steps)))
    if summary.final_test_accuracy is not None:
        result.append(("final test accuracy", f"{summary.final_test_accuracy:.4f}"))
    result += _many("attacked", [f"peer {peer}: {attack}" for peer, attack in summary.attacks.items()])
    result += _many("banned", [_ban(ban, summary) for ban in summary.bans])
    result += _many("gone", [_ban(ban, summary) for ban in summary.gone]) if summary.gone else []
    result += _many("eliminated", [_ban(ban, summary) for ban in summary.eliminated]) if summary.eliminated else []
    if summary.returned:
        back = [f"peer {row.peer} after step {row.step}, on probation until then; evidence {row.evidence}"
                for row in summary.returned]  # fmt: skip
        result += _many("gone and back", back)
    undone = [f"step {row.step}: {undo_line(row)}" for row in summary.undone]
    result += _many("undone", undone) if undone else []
    if summary.byzantine:
        result += _many("attackers not found", [f"peer {peer}" for peer in summary.undetected_peers])
    result += _many("honest peers banned", [f"peer {peer}" for peer in summary.honest_banned_peers])
    if found := removals.unexplained(summary):
        result += _many(_REMOVED, [each.text for each in found])
    if found := removals.eliminated(summary):
        result += _many(_ELIMINATED, [each.text for each in found])
    result += _many("scenario", events(summary)) if summary.scenario else []
    result += _many("links", weather(summary.links)) if summary.links else []
    equal = (
        "equal digests at all honest peers after every step" if summary.parameter_digest else "no step was committed"
    )
    result.append(("agreement", equal if summary.agreement else "BROKEN: honest peers hold different parameters"))
    result.append(("bytes", _bytes(summary)))
    pace = summary.step_seconds
    if pace.median is not None and pace.p95 is not None:
        modelled = experiment.backend == "simulated" and experiment.topology == "butterfly"
        virtual = " (virtual)" if modelled else ""
        result.append(("seconds per step", f"median {pace.median:.3f}, 95th percentile {pace.p95:.3f}{virtual}"))
    if summary.durability == "none":
        result.append(("durability", "none: a loss of power could have made peers contradict what they had signed"))
    result.append(("wall time", f"{summary.wall_seconds:.1f} s"))
    return result


def _many(label: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(label if place == 0 else "", line) for place, line in enumerate(lines or ["none"])]


def _ban(ban: BanRow, summary: Summary) -> str:
    by = "seen by all" if ban.accuser is None else f"accused by peer {ban.accuser}"
    steps = summary.detection_steps.get(str(ban.peer))
    after = f", after {steps} attacked step{'' if steps == 1 else 's'}" if steps is not None else ""
    return f"peer {ban.peer} at step {ban.step} for {ban.reason}, {by}{after}; evidence {ban.evidence}"


def _bytes(summary: Summary) -> str:
    sent = summary.bytes_sent
    text = f"bulk {human(sent.bulk)}"
    if summary.bytes_expected:
        share = sent.bulk / summary.bytes_expected
        more = "; each tensor has a header, which counts where tensors are as small as here" if share > _FRAMED else ""
        text += f" ({100 * share:.1f}% of the formula's {human(summary.bytes_expected)}{more})"
    return f"{text}, control {human(sent.control)}, published {human(sent.publication)}"


def _style(label: str, summary: Summary) -> str:
    bad = {
        "outcome": summary.outcome != FINISHED,
        "honest peers banned": bool(summary.honest_banned),
        "attackers not found": bool(summary.undetected),
        "agreement": not summary.agreement,
        _REMOVED: True,
    }
    return "red" if bad.get(label) else "yellow" if label == _ELIMINATED else ""
