"""What people see of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from btard.launcher import wrap
from btard.launcher.monitor.state import Ban, NodeState, Record, RunState, undo_line
from btard.launcher.network import conditions
from btard.launcher.network.traffic import human
from btard.launcher.options import syntax
from btard.launcher.run.plan import Plan
from btard.launcher.run.roles import describe
from btard.launcher.run.summary import Summary
from btard.node.config import RunConfig
from btard.node.netem.conditions import Conditions

REFRESH_SECONDS = 0.25
_WORDS = 64
"""Columns beside the bar: step, pace and accuracy of a run of some thousand steps."""
_BESIDE, _MOST_BESIDE = 44, 72
"""Columns that accuracy and events take beside the table, where a terminal has them to spare."""
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {
    "starting": "dim", "bound": "dim", "ready": "cyan", "training": "green", "finished": "green", "banned": "red",
    "gone": "yellow", "eliminated": "yellow", "on probation": "cyan",
    "expelled": "red", "halted": "red", "failed": "bold red", "dead": "bold red",
}  # fmt: skip


class LiveView:
    """Follows one run on a console.

    Args:
        console: where to; NO_COLOR and redirection are its business.
        since: when the workers were started, in seconds since the epoch; None: as the run begins here.
    """

    def __init__(self, console: Console, since: float | None = None) -> None:
        self._console = console
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._state: RunState | None = None
        self._began = since
        self._ready_at = 0.0
        self._committed_at: dict[int, float] = {}
        self._from_step = 0
        self._drawn = 0.0
        self._told_bans: set[tuple[int, int]] = set()
        self._told_steps: set[int] = set()
        self._told_undone: set[int] = set()
        self._told_ready = False
        self._told_events = 0
        self._told_returns: set[int] = set()
        self._recent: deque[str] = deque(maxlen=32)

    def note(self, line: str) -> None:
        """One line, above the live table if there is one."""
        for each in hanging(self._console, line, 2):
            self._console.print(Text(each), soft_wrap=True)

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Show what is about to run, and open the live table on a terminal.

        What the state of a resumed run holds already was told before.
        """
        self._plan, self._state = plan, state
        self._ready_at, self._began = 0.0, self._began if self._began is not None else time.time()
        self._from_step = max(state.step, 0)
        self._told_bans, self._told_events = set(state.bans), len(state.happened)
        self._told_returns, self._told_undone = set(state.returned), set(state.undone)
        self._told_steps = {step for step, _ in state.accuracy() if state.step > step}
        for line in headline(plan):
            self.note(line)
        self.note(f"run directory {shown_path(run_dir)}")
        if self._console.is_terminal:
            self._live = Live(self.view(), console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)

    def saw(self, records: Sequence[Record]) -> None:
        """Redraw, or print what is worth a line."""
        self._time(records)
        self._tell_news()
        if self._live is not None and time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self.view(), refresh=True)

    def ended(self) -> None:
        """Close the live table."""
        if self._live is not None:
            self._live.update(self.view(), refresh=True)
            self._live.stop()
            self._live = None

    def scored(self, summary: Summary) -> None:
        """Nothing more: the table of results is printed by whoever asked for the run."""

    def _time(self, records: Sequence[Record]) -> None:
        """Note when things happened, by the journals of honest nodes: whoever looks late sees many steps at once."""
        state = self._state
        trusted = frozenset() if state is None else frozenset(state.honest or state.nodes)
        for record in records:
            if record["node"] in trusted and record["event"] in ("greeted", "resumed"):
                self._ready_at = max(self._ready_at, record["time"])
            elif record["node"] in trusted and record["event"] == "committed":
                self._committed_at.setdefault(int(record["step"]), record["time"])

    def _tell_news(self) -> None:
        plan, state = self._plan, self._state
        if plan is None or state is None:
            return
        if not self._told_ready and all(node.state not in ("starting", "bound") for node in state.nodes.values()):
            self._told_ready = True
            if any(node.state not in ("failed", "dead") for node in state.nodes.values()):
                took_s = max(0.0, (self._ready_at or time.time()) - (self._began or 0.0))
                self.note(f"{plan.run.peers} workers ready after {took_s:.1f} s")
        for record in state.happened[self._told_events :]:
            self.note(
                f"scenario: {record['action']} at {record['at_s']:.1f} s, step {state.step + 1}: {record['text']}"
            )
        self._told_events = len(state.happened)
        for _, line in sorted(self._news(plan, state), key=lambda news: news[0]):
            self.note(line)
            self._recent.append(line.partition("; evidence")[0])

    def _news(self, plan: Plan, state: RunState) -> Iterator[tuple[int, str]]:
        """What has not been told yet, with the step that it belongs to."""
        for step, peer in sorted(set(state.bans) - self._told_bans):
            self._told_bans.add((step, peer))
            yield step, ban_line(state.bans[step, peer], state.byzantine)
        for peer in sorted(set(state.returned) - self._told_returns):
            self._told_returns.add(peer)
            step = state.returned[peer].step
            yield step, f"step {step}: peer {peer} has served its probation and is back"
        for step in sorted(set(state.undone) - self._told_undone):
            self._told_undone.add(step)
            yield step, f"step {step}: {undo_line(state.undone[step])}"
        for step, accuracy in state.accuracy() if self._live is None else ():
            # A step's slices arrive one by one; it is only told when the next step is on its way.
            if step not in self._told_steps and (state.step > step or step == plan.run.steps):
                self._told_steps.add(step)
                pace = self._pace(step, self._committed_at.get(step, time.time()))
                yield step, f"step {step}/{plan.run.steps}  test accuracy {accuracy:.4f}  {pace}"

    def _pace(self, step: int, now: float) -> str:
        """How long `step` steps have taken until `now`."""
        elapsed, done = max(0.0, now - (self._ready_at or self._began or now)), step - self._from_step
        return f"{elapsed:.0f} s" + (f", {1000 * elapsed / done:.0f} ms a step" if done > 0 else "")

    def view(self) -> RenderableType:
        """The table of nodes and the bar below it, once the run has begun."""
        plan, state = self._plan, self._state
        assert plan is not None
        assert state is not None
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, side in (("node", "right"), ("role", "left"), ("step", "right"), ("loss", "right"),
                              ("accuracy", "right"), ("sent", "right"), ("state", "left")):  # fmt: skip
            table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True, overflow="ellipsis")
        for node in state.nodes.values():
            table.add_row(*self._row(node))
        spare = self._console.width - self._console.measure(table).maximum - 4
        both: RenderableType = table
        if spare >= _BESIDE:
            grid = Table.grid(padding=(0, 4, 0, 0))
            grid.add_row(table, self._beside(state, min(spare, _MOST_BESIDE)))
            both = grid
        done = max(state.step, 0)
        bar = Table.grid(padding=(0, 1))
        pace = self._pace(state.step, time.time())
        words = Text(f"step {done}/{plan.run.steps}  {pace}  {self._accuracy()}", no_wrap=True,
                     overflow="ellipsis")  # fmt: skip
        # As wide at every step: a bar that gives way to longer words would jump.
        width = max(8, min(40, self._console.width - _WORDS))
        bar.add_row(ProgressBar(total=plan.run.steps, completed=done, width=width), words)
        return Group(both, bar)

    def _beside(self, state: RunState, width: int) -> RenderableType:
        """The course of accuracy, and the latest events: as many lines as the table has."""
        known = [value for _, value in state.accuracy()]
        course = f"accuracy {known[0]:.2f} {spark(known, width - 20)} {known[-1]:.4f}" if known else ""
        lines = [course, *list(self._recent)[-state.peers :]]
        lines += [""] * (1 + state.peers - len(lines))
        pane = Table.grid()
        pane.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for line in lines:
            pane.add_row(Text(line, style="red" if " HONEST " in line else ""))
        return pane

    def _row(self, node: NodeState) -> tuple[RenderableType, ...]:
        assert self._plan is not None
        role = self._plan.roles.get(node.node)
        name = "+".join(each.name for each in role.attacks) if role else "honest"
        state = node.out or node.state
        return (
            str(node.node), Text(name, style="yellow" if role else ""), str(max(node.step, 0)),
            "" if node.loss is None else f"{node.loss:.4f}", "" if node.accuracy is None else f"{node.accuracy:.4f}",
            human(node.sent.total), Text(state, style=_STYLES.get(state, "")),
        )  # fmt: skip

    def _accuracy(self) -> str:
        known = self._state.accuracy() if self._state else []
        return f"accuracy {known[-1][1]:.4f} (step {known[-1][0]})" if known else ""


def spark(values: Sequence[float], width: int) -> str:
    """A curve in one line of text, from its least value to its greatest; of more values than columns, some, evenly."""
    low, high = min(values), max(values)
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    levels = ((value - low) / (high - low) if high > low else 0.5 for value in values)
    return "".join(_BARS[min(int(level * len(_BARS)), len(_BARS) - 1)] for level in levels)


def _rule(run: RunConfig) -> str:
    return "+".join(syntax.written(each) for each in (*run.pre, run.rule))


def headline(plan: Plan) -> list[str]:
    """What runs, in one line, and who attacks, one line each."""
    run = plan.run
    watched = f"{run.validators} validator{'' if run.validators == 1 else 's'}"
    if run.validators and run.everyone_contributes:
        watched += " (contributing too)"
    lines = [
        f"{run.peers} peers, {run.task.name}, {run.steps} steps, batch {run.batch_size}, rule {_rule(run)}, "
        f"tau {run.tau:g}, {watched if run.topology == 'butterfly' else f'topology {run.topology}'}, on {run.device}"
    ]
    usual = RunConfig()
    trained = ((each, getattr(run, each)) for each in ("optimiser", "schedule", "split"))
    unusual = [f"{name} {syntax.written(plugin)}" for name, plugin in trained if plugin != getattr(usual, name)]
    lines += [", ".join(unusual)] if unusual else []
    lines += [f"from the parameters in {plan.experiment.init}"] if plan.experiment.init else []
    lines += [plan.undo] if plan.undo else []
    for peer, role in sorted(plan.roles.items()):
        lines.append(f"peer {peer} attacks: {describe(role)}")
        if role.schedule.start >= run.steps:
            lines.append(f"warning: peer {peer} never attacks: its first step {role.schedule.start} is not below "
                         f"--steps {run.steps}; lower --attack-start")  # fmt: skip
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return lines + (_network(plan.conditions, run.delivery_bound_s) if plan.conditions is not None else [])


def _network(asked: Conditions, bound_s: float) -> list[str]:
    """What is asked of the network, and whether the promises can hold on it."""
    lines = conditions.describe(asked)
    slowest_s = conditions.slowest_s(asked)
    if slowest_s > bound_s:
        lines.append(f"warning: messages may take {slowest_s:g} s, more than --delivery-bound {bound_s:g} s: honest "
                     "peers may be removed; raise it")  # fmt: skip
    return lines


def ban_line(ban: Ban, byzantine: frozenset[int]) -> str:
    """A ban in one line."""
    who = "attacker" if ban.peer in byzantine else "HONEST peer"
    by = "seen by all" if ban.accuser is None else f"accused by {ban.accuser}"
    out = ban.standing if ban.removed else "convicted, stays"
    return f"step {ban.step}: {who} {ban.peer} {out} ({ban.reason}, {by}); evidence {ban.evidence}"


def hanging(console: Console, text: str, indent: int) -> list[str]:
    """A line as it fits the console's terminal; elsewhere as it is."""
    return wrap.hanging(text, indent, console.width if console.is_terminal else None)


def shown_path(path: Path) -> str:
    """A path relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
