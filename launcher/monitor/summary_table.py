"""The table at the end of a run, with what was asked of its network, measured, and what the protocol made of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.text import Text

from btard.launcher.monitor.live_view import hanging, shown_path
from btard.launcher.monitor.state import undo_line
from btard.launcher.network.traffic import human
from btard.launcher.run import removals
from btard.launcher.run.experiment import IMPORTS, Experiment
from btard.launcher.run.summary import FINISHED, BanRow, LinkRow, Summary

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
    without = f", and {len(summary.undone)} that undid and trained nothing" if summary.undone else ""
    result.append(("steps", f"{summary.steps}{without}"))
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
        result += _many(_REMOVED, list(found.values()))
    if texts := removals.eliminated(summary):
        result += _many(_ELIMINATED, texts)
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


def weather(links: Sequence[LinkRow]) -> list[str]:
    """One line for each thing that was asked of the links, over all of them; none if nothing was."""
    lines = []
    delays = _pairs(links, lambda link: (link.requested_delay_s, link.measured_delay_s))
    if any(asked > 0 for asked, _ in delays):
        worst = max(abs(found - asked) for asked, found in delays)
        lines.append(
            f"delay asked {_ms(fmean(asked for asked, _ in delays))}, measured "
            f"{_ms(fmean(found for _, found in delays))} (mean of {len(delays)} directions, worst off by {_ms(worst)})"
        )
    trips = [(link.requested_delay_s, link.rtt_s) for link in links if link.measured_delay_s is None]
    known = [(asked, rtt_s) for asked, rtt_s in trips if asked is not None and rtt_s is not None]
    if known:
        lines.append(
            f"delay asked {_ms(fmean(asked for asked, _ in known))}, shortest round trips "
            f"{_ms(min(rtt_s for _, rtt_s in known))} to {_ms(max(rtt_s for _, rtt_s in known))} (by the kernel, "
            f"{len(known)} directions; rate and loss of its packets are not measured)"
        )
    losses = _pairs(links, lambda link: (link.requested_loss, link.measured_loss))
    if any(asked > 0 for asked, _ in losses):
        asked, found = (fmean(each[place] for each in losses) for place in (0, 1))
        lines.append(f"loss asked {asked:.2%}, measured {found:.2%} of transmissions, all repeated")
    rates = _pairs(links, lambda link: (link.requested_rate, link.measured_rate))
    if rates:
        asked, found = (fmean(each[place] for each in rates) for place in (0, 1))
        lines.append(f"rate asked {asked / 1e6:.2f} MB/s, measured {found / 1e6:.2f} MB/s")
    if held := sum(link.held for link in links):
        lines.append(f"{held} messages waited for the end of a partition")
    return lines


def events(summary: Summary) -> list[str]:
    """One line for each event of the scenario, with what became of the peers it hit."""
    lines = []
    for event in summary.scenario:
        fates = [_fate(summary, peer) for peer in event.peers] if event.action in ("kill", "pause") else []
        became = f"; {', '.join(fates)}" if fates else ""
        lines.append(f"{event.at_s:.1f} s  {event.action:8}  {event.text}{became}")
    return lines


def _fate(summary: Summary, peer: int) -> str:
    removed = [(row.step, kind) for kind, rows in (("banned", summary.bans), ("gone", summary.gone),
               ("eliminated", summary.eliminated)) for row in rows if row.peer == peer]  # fmt: skip
    if removed:
        step, kind = min(removed)
        back = next((f", back after step {row.step}" for row in summary.returned if row.peer == peer), "")
        return f"peer {peer} is {kind} from step {step}{back}"
    return f"peer {peer} stays in the roster"


def _pairs(
    links: Sequence[LinkRow], pick: Callable[[LinkRow], tuple[float | None, float | None]]
) -> list[tuple[float, float]]:
    found = (pick(link) for link in links)
    return [(asked, measured) for asked, measured in found if asked is not None and measured is not None]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
