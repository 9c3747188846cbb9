"""The figures of a run's page: one function each; a new one is added to a section in `FIGURES`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from btard.launcher.figures import bars, chart, svg, timeline
from btard.launcher.figures.chart import Axis, Band, Chart, Mark, Series
from btard.launcher.figures.matrix import Cell, Matrix
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.report import detection
from btard.launcher.report.run_data import RunData
from btard.launcher.run.summary import percentile

_FEW = 100
"""Evaluations that a curve shows one by one."""
_MOST_ROWS = 20
"""Of a figure that has a row and a column for each peer: 256 of them took 19 MB."""
_PHASES = ("HELLO", "COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "PUBLISH", "HAVE", "JUDGE", "AGG2", "CLOSE")


def accuracy(run: RunData) -> Figure | None:
    """Test accuracy over the steps."""
    points = evaluated(run)
    if not points:
        return None
    line = Series(f"{points[-1][1]:.4f} at the end", points, svg.COLOURS[0], marked=len(points) <= _FEW)
    drawn = _chart(run, "test accuracy by step", chart.around("test accuracy", [points], settled(run)), [line])
    caption = (
        "Each active peer evaluates its slice of the test set, at the steps with a dot; the launcher adds the slices."
    )
    if run.record is None:
        caption = "Of the test items that the peers evaluated whose journals are here, at the steps with a dot."
    return Figure("accuracy", "Test accuracy", drawn, f"{caption} {drawn.cut}".strip())


def evaluated(run: RunData) -> chart.Points:
    """Test accuracy by step, with a gap where an attack begins between two evaluations."""
    points = [(float(step), value) for step, value in run.summary.accuracy]
    return chart.gapped(points, [float(role.schedule.start) for role in run.roles.values()])


def settled(run: RunData) -> float:
    """The step from which on an axis shows everything: a tenth of the run, or an earlier start of attacks."""
    return min([run.run.steps / 10, *(float(role.schedule.start) for role in run.roles.values())])


def loss(run: RunData) -> Figure | None:
    """Training loss over the steps."""
    honest = "honest peers, mean" if run.record is not None else "peers here, mean"
    series = {honest: honest_loss(run), "attackers, mean": _loss_of(run, attackers=True)}
    colours = dict(zip(series, (svg.COLOURS[0], svg.RED), strict=True))
    lines = [Series(name, smoothed(points, 5), colours[name]) for name, points in series.items() if points]
    if not lines:
        return None
    low, high = (
        choose(percentile([y for _, y in line.points], level) for line in lines)
        for choose, level in ((min, 0.0), (max, 0.999))
    )
    drawn = _chart(run, "training loss by step", Axis.around("training loss", (low, high), log=True), lines)
    caption = (
        "Mini-batch loss, mean of the last five steps. An attacker's loss is that of the batch it computed, which "
    )
    return Figure("loss", "Training loss", drawn, caption + "attacks on the data change.")


def _chart(run: RunData, title: str, y: Axis, lines: Sequence[Series]) -> Chart:
    """Curves over the run's steps, with its attacks and bans."""
    steps = Axis("step", 0.0, float(max(1, run.run.steps)))
    marks = [Mark(float(ban.step), f"peer {ban.peer} banned") for ban in run.summary.bans]
    undone = {line["step"]: line["to_step"] for line in run.events if line["event"] == "undone"}
    marks += [Mark(float(at), f"back to step {to}", svg.GREY) for at, to in undone.items() if to is not None]
    return Chart(title, steps, y, lines, bands=_windows(run), marks=marks)


def peers(run: RunData) -> Figure | None:
    """The timeline of each peer."""
    attacked = {event["node"]: event["steps"] for event in run.events if event["event"] == "attacked"}
    lanes = []
    for peer in range(run.run.peers):
        active = [step for step in run.commits if peer in run.view(step)["active"]]
        validated = [step for step in active if str(peer) in run.view(step)["validators"]]
        rows = [*run.summary.bans, *run.summary.gone, *run.summary.eliminated]
        name = f"peer {peer}" + (" (attacks)" if peer in run.roles else "")
        bans = {row.step: row.reason for row in rows if row.peer == peer}
        lanes.append(timeline.Lane(name, active, validated, attacked.get(peer, ()), bans))
    drawn = timeline.Timeline("what each peer did", run.run.steps, lanes)
    caption = "Who was in the roster, validated, attacked (by its own account) and was banned."
    return Figure("timeline", "Peers", drawn, caption)


def sent(run: RunData) -> Figure | None:
    """Bytes that all peers sent in each step, by kind."""
    kinds = {"tensors": "bulk_bytes", "messages": "control_bytes", "published": "publication_bytes"}
    totals: dict[int, Counter[str]] = {}
    by_step: dict[int, Counter[str]] = {}
    for step, views in run.commits.items():
        spent = by_step[step] = Counter()
        for node, view in views.items():
            now = Counter({kind: view[field] for kind, field in kinds.items()})
            spent.update(now - totals.get(node, Counter()))  # what is negative, after a restart, counts as nothing
            totals[node] = now
    shown = [kind for kind in kinds if any(spent[kind] for spent in by_step.values())]
    if not shown:
        return None
    lines = [Series(kind, [(float(step), spent[kind] / 1000) for step, spent in by_step.items()], colour)
             for kind, colour in zip(shown, svg.COLOURS, strict=False)]  # fmt: skip
    axis = chart.around("kB sent in a step", [line.points for line in lines])
    caption = (
        "All peers together, from one committed step to the next." if run.record is not None else "By the peers here."
    )
    return Figure("sent", "Bytes by step", _chart(run, "bytes sent by step", axis, lines), caption)


def traffic(run: RunData) -> Figure | None:
    """Bytes from each peer to each other one; of many peers, from each group of neighbours to each."""
    sent = {event["node"]: event["sent"] for event in run.events if event["event"] == "traffic"}
    if not sent:
        return None
    count = run.run.peers
    size = -(-count // _MOST_ROWS)
    groups = [range(first, min(count, first + size)) for first in range(0, count, size)]
    cells = [[_traffic_cell(senders, receivers, sent) for receivers in groups] for senders in groups]
    names = [_named(group) for group in groups]
    most = max((value for row in cells for value, _, _ in row if value is not None), default=1.0)
    drawn = Matrix("bytes sent", names, names, cells, 0.0, most, row_label="from", column_label="to")
    whom = "two peers" if size == 1 else f"groups of {size} peers"
    return Figure("traffic", "Traffic", drawn, f"All bytes of the run between {whom}.")


def phases(run: RunData) -> Figure | None:
    """How long phases take."""
    spent: dict[str, list[float]] = {}
    for views in run.commits.values():
        for node, view in views.items():
            if node not in run.roles and view["contributors"]:
                for phase, seconds in view["phases"].items():
                    spent.setdefault(phase, []).append(1000 * seconds)
    ordered = [phase for phase in _PHASES if phase in spent] + sorted(set(spent) - set(_PHASES))
    rows = [(phase, statistics.median(spent[phase]), percentile(spent[phase], 0.95)) for phase in ordered]
    if not rows:
        return None
    note = "Wall time at honest peers." if run.record is not None else "Wall time at the peers here."
    if run.simulated:
        note = "Virtual time of the modelled network, 50 ms a gradient."
    caption = f"{note} COMMIT holds the computation of the gradient, CLOSE that of a validator's."
    return Figure("phases", "Phases", bars.Durations("duration of phases", rows), caption)


def waiting(run: RunData) -> Figure | None:
    """Attacked steps until a ban, beside the law."""
    law, note = detection.law_of(run.run, run.roles)
    convicted = {ban.peer for ban in run.summary.bans if ban.reason == "gradient"}
    seen = [steps for peer, steps in run.summary.detection_steps.items() if int(peer) in convicted]
    if not law or not seen:
        return None
    drawn = bars.AgainstLaw("attacked steps until a ban", law, seen, "attacked contributions until conviction")
    mean, most = detection.mean_of(law), detection.quantile_of(law, 0.99)
    caption = f"One run gives one value per attacker. Law: {note}; mean {mean:.1f}, 99 % within {most}."
    return Figure("detection", "Detection", drawn, caption)


def honest_loss(run: RunData) -> list[tuple[float, float]]:
    """Mean mini-batch loss of the honest contributors, by step."""
    return _loss_of(run, attackers=False)


def _loss_of(run: RunData, attackers: bool) -> list[tuple[float, float]]:
    points = []
    for step, views in run.commits.items():
        known = [view["loss"] for node, view in views.items()
                 if view["loss"] is not None and (node in run.roles) == attackers]  # fmt: skip
        if known:
            points.append((float(step), statistics.fmean(known)))
    return points


def smoothed(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """The points with the moving average of their values."""
    means = chart.smooth([y for _, y in points], width)
    return [(x, mean) for (x, _), mean in zip(points, means, strict=True)]


FIGURES: Mapping[str, tuple[Callable[[RunData], Figure | None], ...]] = {
    "learning": (accuracy, loss),
    "who": (peers,),
    "bans": (waiting,),
    "cost": (sent, traffic, phases),
}
"""By the section of the page that they stand in."""


def _windows(run: RunData) -> list[Band]:
    """When attacks were scheduled: from their start to the last ban of their attackers, or the stop."""
    last = {ban.peer: ban.step for ban in reversed(run.summary.bans)}
    found = []
    for peer, role in run.roles.items():
        stop = role.schedule.stop if role.schedule.stop is not None else run.run.steps
        end = min(stop, last.get(peer, stop))
        if end > role.schedule.start:
            found.append(Band(float(role.schedule.start), float(end), "attack"))
    return found


def _traffic_cell(senders: range, receivers: range, sent: Mapping[int, Mapping[str, Mapping[str, int]]]) -> Cell:
    kinds = Counter[str]()
    for sender in senders:
        for receiver in receivers:
            kinds.update(sent.get(sender, {}).get(str(receiver), {}))
    total = kinds.total()
    if not total:
        return None, "", ""
    told = ", ".join(f"{kind} {human(size)}" for kind, size in kinds.items())
    return float(total), human(total).replace(" ", "\u00a0"), f"{_named(senders)} to {_named(receivers)}: {told}"


def _named(group: range) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}\u2013{group[-1]}"
