"""A run directory as typed objects: `btard.load_run(DIR)`, whether the run goes on, was stopped or has ended."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from btard.launcher.monitor import watch
from btard.launcher.monitor.state import Ban, Return, RunState, Undoing
from btard.launcher.run import control, run_directory, scoring
from btard.launcher.run import summary as summaries
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.summary import BANNED, Summary
from btard.launcher.verify.verification import data_directory_of
from btard.node.config import Role, RunConfig
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis.genesis import read_genesis

if TYPE_CHECKING:
    from torch import Tensor, nn

    from btard.node.training.task import Task

TABLES = ("curves", "bans", "removals", "undone", "returned")
"""What `LoadedRun.frame` makes data frames of."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One committed step.

    Args:
        step: its number.
        accuracy: share of the test items that its parameters get right; None: not evaluated at this step.
        loss: mean over the batches of the honest contributors; None: nobody said.
        seconds: at the slowest honest node; virtual time in a simulation.
        contributors: how many gradients went in.
        active: how many peers were in the roster.
    """

    step: int
    accuracy: float | None
    loss: float | None
    seconds: float
    contributors: int
    active: int


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What a run directory says of its run, as the nodes that are not known to attack journalled it.

    Nothing of it is proven here: `btard.verify(run.path)` checks the evidence.

    Args:
        path: the run directory; paths of evidence are relative to it.
        config: what all peers agreed on.
        record: run.json: the experiment, versions, seeds; None: it is not here.
        summary: None: the run has not been scored.
        roles: who attacked and how, by genesis id; None: nothing here says.
        outcome: as in the summary; before there is one `running` or `stopped`.
        curves: one row per committed step.
        bans: verdicts of proven guilt.
        removals: peers that fell silent (`gone`), or of a pair of which one is faulty (`eliminated`).
        undone, returned: undo steps, and peers that came back.
        problems: one line for each journal record that was refused.
    """

    path: Path
    config: RunConfig
    record: RunRecord | None
    summary: Summary | None
    roles: Mapping[int, Role] | None
    outcome: str
    curves: tuple[StepFigures, ...]
    bans: tuple[Ban, ...]
    removals: tuple[Ban, ...]
    undone: tuple[Undoing, ...]
    returned: tuple[Return, ...]
    problems: tuple[str, ...]
    _state: RunState = field(repr=False)
    _data_directory: Path = field(repr=False)
    _imports: tuple[Path, ...] = field(repr=False)

    def frame(self, table: str = "curves") -> Any:
        """One of TABLES as a pandas data frame.

        Raises:
            ConfigError: there is no such table.
            BackendError: pandas is not installed.
        """
        if table not in TABLES:
            raise ConfigError(f"a run has no table {table!r}; it has {', '.join(TABLES)}")
        try:
            import pandas
        except ImportError as error:
            raise BackendError(
                f"data frames need pandas, which is not installed: `pip install pandas`, or use run.{table}"
            ) from error
        kind, rows = _ROWS[table], getattr(self, table)
        plain = [msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else asdict(row) for row in rows]
        return pandas.DataFrame(plain, columns=list(kind.__annotations__))

    def state_dict(self) -> dict[str, Tensor]:
        """The certified final parameters as named tensors, in the order of the model.

        Raises:
            ConfigError: there are none, or the run was made with files that are not loaded.
            DataError: the public data is not here.
        """
        from btard.node.training import task

        found, parameters_D = self._final()
        return task.state_dict(found.layout, parameters_D)

    def model(self) -> nn.Module:
        """A new module with the certified final parameters, set to evaluate.

        Raises:
            ConfigError: as for `state_dict`, or the task has no module.
            DataError: as for `state_dict`.
        """
        found, parameters_D = self._final()
        module = getattr(found, "module", None)
        if module is None:
            raise ConfigError(f"task {found.name!r} is no nn.Module; `state_dict()` has its tensors")
        made: nn.Module = module(parameters_D)
        return made

    def _final(self) -> tuple[Task, Tensor]:
        from btard.node.plugins import extensions
        from btard.node.verify import audit

        extensions.load(self._imports)
        end = scoring.end(self.config, self.path, self._data_directory, self._state, list(self._imports))
        if end.file is None:
            raise ConfigError(end.problem or f"{self.path} has no final parameters: no node has finished")
        return audit.final(self.config, self._data_directory, end.file, self._imports, end.digest)


_ROWS: Mapping[str, type] = {
    "curves": StepFigures,
    "bans": Ban,
    "removals": Ban,
    "undone": Undoing,
    "returned": Return,
}


def load_run(run_dir: Path | str, data_directory: Path | None = None, imports: Sequence[Path] = ()) -> LoadedRun:
    """Read a run directory, as it stands.

    Args:
        run_dir: the run directory.
        data_directory: the public data, for the model; None: where the run had it, or where it lies here.
        imports: files that the run was made with, if the caller trusts them: the model needs its task.

    Raises:
        ConfigError: it is no run directory of this version, or a file of the launcher's in it is damaged.
    """
    path = Path(run_dir)
    run = read_genesis(path).run
    record = run_directory.read_record(path) if (path / "run.json").exists() else None
    roles = None if record is None else {int(peer): role for peer, role in record.roles.items() if peer.isdecimal()}
    state = RunState(run.peers, frozenset(roles or ()), run.capacity)
    plays = record is not None and record.experiment.backend == "simulated"
    problems = watch.fold(path, state, run.steps, plays=plays)
    summary = summaries.read(path) if (path / "summary.json").exists() else None
    bans = [state.bans[place] for place in sorted(state.bans)]
    return LoadedRun(
        path=path,
        config=run,
        record=record,
        summary=summary,
        roles=roles,
        outcome=_outcome(path, summary),
        curves=tuple(_curves(state)),
        bans=tuple(ban for ban in bans if ban.standing == BANNED),
        removals=tuple(ban for ban in bans if ban.standing != BANNED),
        undone=tuple(state.undone[step] for step in sorted(state.undone)),
        returned=tuple(state.returned[peer] for peer in sorted(state.returned)),
        problems=tuple(problems),
        _state=state,
        _data_directory=data_directory or data_directory_of(run, record),
        _imports=tuple(imports),
    )


def _outcome(path: Path, summary: Summary | None) -> str:
    if control.worker(path) is not None:
        return "running"
    return summary.outcome if summary is not None else "stopped"


def _curves(state: RunState) -> list[StepFigures]:
    rows, accuracy = [], dict(state.accuracy())
    for step in sorted(state.commits):
        commit = state.commit(step)
        if commit is None:
            continue
        views = [view for node, view in state.commits[step].items() if node in state.honest or not state.honest]
        losses = [view.loss for view in views if view.loss is not None]
        rows.append(
            StepFigures(
                step=step,
                accuracy=accuracy.get(step),
                loss=statistics.fmean(losses) if losses else None,
                seconds=max(view.seconds for view in views),
                contributors=len(commit.contributors),
                active=len(commit.active),
            )
        )
    return rows
