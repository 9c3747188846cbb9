"""What was done to a run, in a few lines: asked for, measured, and what the protocol made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from btard.launcher.run.summary import LinkRow, Summary


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
