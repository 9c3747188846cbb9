"""One run from start to summary: prepare, start the backend, follow the journals, stop, score."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from btard.launcher.backends.backend import Backend, Exited, Note
from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import Watch
from btard.launcher.run import control, data, exit_report, initial_parameters, plan, run_directory, scoring, summary
from btard.launcher.run.experiment import CEREMONY, Experiment, kept
from btard.launcher.run.interrupts import Interrupts
from btard.launcher.run.observer import Observer, Silent
from btard.launcher.run.plan import Plan
from btard.launcher.run.summary import FAILED, FINISHED, INTERRUPTED, TIMEOUT, Ending, Summary
from btard.node.config import RunConfig
from btard.node.drivers.scheduler import Scheduler
from btard.node.errors import BackendError, BtardError
from btard.node.netem.conditions import Conditions
from btard.node.plugins import extensions

if TYPE_CHECKING:
    from btard.node.genesis.ceremony import Minutes

LOOK_SECONDS = 0.05
"""How often to look for what is due."""

_OF_LINKS = ("begins", "ends")


@runtime_checkable
class Hands(Protocol):
    """A backend that can do to a worker what a scenario asks for."""

    def act(self, action: str, node: int) -> None:
        """`kill`, `pause` or `continue` a worker, unless it has ended; `restart` one that has."""


class Player:
    """One run's scenario.

    Args:
        conditions: of the run.
        hands: the backend.
        state: the run's; time counts from when all nodes are ready. What happened in an earlier life of the run does
            not happen again.
        watch: journals what happens.
        clock: seconds, monotonic.
    """

    def __init__(
        self, conditions: Conditions, hands: Hands, state: RunState, watch: Watch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        done = Counter(event["text"] for event in state.happened if event["action"] not in _OF_LINKS)
        said = {what: {event["text"] for event in state.happened if event["action"] == what} for what in _OF_LINKS}
        begun = said["begins"] - said["ends"]
        self._director = Scheduler(conditions, done, begun)
        self._elapsed_s = max((float(event["at_s"]) for event in state.happened), default=0.0)
        self._hands, self._state, self._watch, self._clock = hands, state, watch, clock
        self._origin_s: float | None = None

    def look(self) -> list[int]:
        """Do what is due; returns the workers that were started again.

        Raises:
            BackendError: the disk is full.
        """
        if self._origin_s is None:
            if any(node.state in ("starting", "bound") for node in self._state.nodes.values()):
                return []
            self._origin_s = self._clock() - self._elapsed_s
        at_s, step = self._clock() - self._origin_s, self._state.step + 1
        again: list[int] = []
        for cue in self._director.due(at_s, step):
            for peer in cue.peers:
                self._hands.act(cue.action, peer)
            again += cue.peers if cue.action == "restart" else ()
            self._watch.note(
                "scenario", action=cue.action, peers=list(cue.peers), text=cue.text, at_s=round(at_s, 3), step=step
            )
        return again


def play_of(conditions: Conditions | None, backend: object, state: RunState, watch: Watch) -> Player | None:
    """The scenario of a run; None if it has none, or a backend that plays it by itself."""
    return Player(conditions, backend, state, watch) if conditions is not None and isinstance(backend, Hands) else None


POLL_SECONDS = 0.2
BIND_SECONDS = 120.0
ATTACKER_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """A run that is over; `signum` is the signal that stopped it, if one did."""

    summary: Summary
    run_dir: Path
    signum: int | None = None


@dataclass(slots=True)
class _Run:
    """What the loop keeps track of."""

    plan: Plan
    directory: Path
    run_id: str
    backend: Backend
    state: RunState
    watch: Watch
    observer: Observer
    interrupts: Interrupts
    minutes: Minutes | None
    began: float = field(default_factory=time.monotonic)
    started: float = 0.0
    exits: dict[int, int] = field(default_factory=dict)
    absent: frozenset[int] = frozenset()
    call: scoring.Call | None = None
    head_start_s: float = 0.0


def run(
    experiment: Experiment, observer: Observer | None = None, *, argv: Sequence[str] = (),
    sources: Mapping[str, str] | None = None, interrupts: Interrupts | None = None,
) -> Result:  # fmt: skip
    """Run an experiment to its end and score it.

    Args:
        experiment: what to run.
        observer: who is told of the progress.
        argv: the command line, for the record.
        sources: where each option's value came from, for the record.
        interrupts: noted by somebody else, for a run in a thread; None: signals are caught here.

    Returns:
        The summary and the run directory; a run that failed, ran out of time or was interrupted has its `outcome` say
        so.

    Raises:
        ConfigError: an option cannot be run.
        DataError: the data set is missing and cannot be fetched.
        BackendError: the place does not work: ports, disk, devices.
        Interrupted: a stop signal came before any worker was started; nothing is left behind.
    """
    observer = observer or Silent()
    plan.quick_check(experiment)
    backend = build(experiment.backend, observer.note)
    with (
        Interrupts() if interrupts is None else nullcontext(interrupts) as interrupts,
        _monitored(observer, experiment) as observer,
    ):
        backend.warm_up()
        prepared = _prepare(experiment, observer)
        backend.prepare(prepared)
        # From here on there is something to clean up: a signal is noted, and the loop ends in order.
        interrupts.deferred = True
        made = run_directory.create(
            experiment, prepared.run, prepared.roles, prepared.data_directory, argv=argv, sources=sources,
            conditions=prepared.conditions,
        )  # fmt: skip
        return carry(prepared, made, backend, observer, interrupts)


def carry(
    prepared: Plan,
    made: run_directory.RunDirectory,
    backend: Backend,
    observer: Observer,
    interrupts: Interrupts,
    again: bool = False,
    head_start_s: float = 0.0,
    call: scoring.Call | None = None,
) -> Result:
    """Carry a prepared run through: start its workers, follow their journals to the end, score them.

    Args:
        prepared: what runs.
        made: its run directory.
        backend: starts and stops the workers.
        observer: who is told of the progress.
        interrupts: entered, and deferred.
        again: the run was started before: its files are gone on with.
        head_start_s: how long the workers have been under way already; the wall time of the summary has it.
        call: where the final figures are computed; None: in a process aside.

    Raises:
        BackendError: the disk is full.
    """
    state = RunState(prepared.run.peers, frozenset(prepared.roles), prepared.run.capacity)
    simulated = prepared.experiment.backend == "simulated"
    watch = Watch(made.path, state, prepared.run.steps, simulated=simulated)
    minutes = None if simulated else _minutes(made, prepared.run)
    current = _Run(prepared, made.path, made.run_id, backend, state, watch, observer, interrupts, minutes,
                   head_start_s=head_start_s, call=call)  # fmt: skip
    try:
        if again:
            watch.catch_up()
            current.absent = frozenset(range(prepared.run.peers)) - {config.node for config in made.configs}
        with control.marked(made.path):
            outcome, problem = _carry_through(current, made)
            return _score(current, outcome, problem)
    finally:
        backend.stop()
        watch.close()


def _minutes(made: run_directory.RunDirectory, run: RunConfig) -> Minutes:
    # with sockets and signatures: what only simulates need not load it
    from btard.node.genesis.ceremony import Meeting, Minutes

    return Minutes(Meeting(made.path / CEREMONY, run, made.run_id), made.path)


def _monitored(observer: Observer, experiment: Experiment) -> AbstractContextManager[Observer]:
    """The observer, with everything that `--monitor` starts around it."""
    if not experiment.monitor or experiment.backend == "compose":  # containers bring their own
        return nullcontext(observer)
    from btard.launcher.monitor.prometheus_session import around

    return around(observer)


def provided(experiment: Experiment, observer: Observer) -> Plan:
    """A run validated, and its data there.

    Raises:
        ConfigError, DataError, BackendError: as `run`.
    """
    prepared = plan.make(experiment)
    if prepared.dimension is None:
        data.provide(prepared.run, prepared.data_directory, experiment.download, observer.note)
        prepared = plan.make(experiment)
    return prepared


def _prepare(experiment: Experiment, observer: Observer) -> Plan:
    """Validate, get the data, and check the place."""
    prepared = provided(experiment, observer)
    plan.preflight(prepared)
    if prepared.initial_D is not None and prepared.run.init is not None:
        initial_parameters.provide(prepared.initial_D, prepared.run.init, prepared.data_directory)
    return prepared


def _carry_through(current: _Run, made: run_directory.RunDirectory) -> tuple[str, str | None]:
    """Start the workers and follow them until none is left; returns the outcome and what went wrong."""
    current.watch.note("started", run_id=made.run_id, roles=sorted(current.plan.roles))
    current.observer.began(current.plan, made.path, current.state)
    try:
        current.backend.start(made.configs)
        current.started = time.monotonic()
        outcome, problem = _follow(current)
    except BtardError as error:
        outcome, problem = FAILED, str(error)
    finally:
        current.backend.stop()
        with suppress(BtardError):
            _look(current)
        current.observer.ended()
    if outcome == FINISHED and not exit_report.all_finished(current.state):
        outcome, problem = FAILED, exit_report.first_problem(current.directory, current.state, current.exits)
    return outcome, problem


def _look(current: _Run) -> None:
    """Take in what the nodes have signed and journalled, and say what of it is refused."""
    if current.minutes is not None:
        current.minutes.look()
    records = current.watch.look()
    for problem in current.watch.problems():
        current.observer.note(f"warning: {problem}")
    current.observer.saw(records)


def _follow(current: _Run) -> tuple[str, str | None]:
    """Until all workers have ended, or something ends the run early."""
    idle_since: float | None = None
    play = play_of(current.plan.conditions, current.backend, current.state, current.watch)
    pace_s = POLL_SECONDS if play is None else LOOK_SECONDS
    while len(current.exits) + len(current.absent) < current.plan.run.peers:
        for ended in current.backend.poll(pace_s):
            current.exits[ended.node] = ended.exit_code
            _look(current)
            _name_dead(current, ended)
        _look(current)
        for node in play.look() if play is not None else ():
            current.exits.pop(node, None)
        early = _reason_to_stop(current)
        if early is not None:
            return early
        # A banned attacker's process owes us nothing, not even its end.
        away = current.state.killed | current.state.paused | current.absent
        if all(node in current.exits or node in away for node in current.state.honest):
            idle_since = time.monotonic() if idle_since is None else idle_since
            if time.monotonic() - idle_since > ATTACKER_GRACE_SECONDS:
                break
    return FINISHED, None


def _reason_to_stop(current: _Run) -> tuple[str, str] | None:
    """Outcome and problem of a run that must not go on."""
    elapsed = time.monotonic() - current.began
    limit = current.plan.experiment.timeout
    if current.interrupts.signum is not None:
        return INTERRUPTED, f"stopped by signal {current.interrupts.signum} {_place(current.state)}"
    if limit is not None and elapsed > limit:
        return TIMEOUT, f"not finished after --timeout {limit:g} s, {_place(current.state)}"
    mistake = exit_report.broken_plugin(current.state, current.exits)
    if mistake is not None:
        return FAILED, mistake
    missing = sorted(set(range(current.plan.run.peers)) - current.backend.bound - current.absent)
    if missing and any(node in current.exits for node in missing):
        return FAILED, exit_report.first_problem(current.directory, current.state, current.exits)
    if missing and time.monotonic() - current.started > BIND_SECONDS:
        problem = f"did not bind its sockets within {BIND_SECONDS:.0f} s of their start; see {current.directory}/logs"
        return FAILED, f"node {', '.join(map(str, missing))} {problem}"
    return None


def _place(state: RunState) -> str:
    return f"after step {state.step}" if state.step >= 0 else "before the first step"


def _name_dead(current: _Run, ended: Exited) -> None:
    """Say which worker died and what it said last."""
    node = current.state.nodes[ended.node]
    node.exit_code = ended.exit_code
    current.watch.note("exited", peer=ended.node, exit_code=ended.exit_code)
    lines = exit_report.LOG_LINES
    if ended.exit_code == extensions.FAILED:
        if list(current.exits.values()).count(extensions.FAILED) > 1:
            return  # a rule or a task fails at every node; it is shown once
        lines = exit_report.TRACE_LINES
    elif node.finished or ended.exit_code == 0 or node.out is not None or current.interrupts.signum is not None:
        return
    elif node.node in current.state.killed:
        return  # as the scenario wanted
    elif node.state not in ("halted", "failed"):
        node.state = "dead"
    elif node.node in current.plan.roles:
        return  # an attacker that halts has been cut off; the verdict may be on its way in the others' journals
    for line in exit_report.obituary(node, exit_report.last_words(current.directory, ended.node, lines)):
        current.observer.note(line)


def _score(current: _Run, outcome: str, problem: str | None) -> Result:
    """Final figures, summary.json and the model; a summary is written whatever happens on the way."""
    wall = time.monotonic() - current.began + current.head_start_s
    final = scoring.Final()
    if outcome == FINISHED:
        try:
            final = scoring.final_figures(current.plan, current.directory, current.state, current.call)
        except BtardError as error:
            outcome, problem = FAILED, str(error)
    if final.problem is not None:
        current.observer.note(f"warning: {final.problem}")
    if (losses := exit_report.numberless(current.state)) is not None:
        current.observer.note(f"warning: {losses}")
    failed = exit_report.failures(current.directory, current.state, current.exits)
    dimension = current.plan.dimension if current.plan.run.topology == "butterfly" else None  # the formula is its own
    experiment = current.plan.experiment
    durability = experiment.durability if kept(experiment, current.plan.conditions) else None
    how = Ending(outcome, wall, problem, final.test_accuracy, dimension, failed, final.model, durability,
                 experiment.seeds.protocol, current.watch.refused, current.plan.run.entry_bytes)  # fmt: skip
    score = summary.summarise(current.run_id, current.state, current.plan.roles, how)
    summary.write(score, current.directory)
    with suppress(BackendError):  # a full disk; `problem` says so already
        current.watch.note("ended", outcome=outcome, problem=problem)
    current.observer.scored(score)
    return Result(score, current.directory, current.interrupts.signum if outcome == INTERRUPTED else None)


def build(name: str, note: Note) -> Backend:
    """The backend called `name`, one of `BACKENDS` (launcher/run/experiment.py).

    Args:
        note: told what takes time.
    """
    match name:
        case "local":
            from btard.launcher.backends.local import LocalBackend

            return LocalBackend()
        case "simulated":
            from btard.launcher.backends.simulated import SimulatedBackend

            return SimulatedBackend()
        case _:
            from btard.launcher.backends.compose import ComposeBackend

            return ComposeBackend(note)
