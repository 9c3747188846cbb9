"""Undo: after an undo step the parameters are those before the first lie that is kept, or as they were; and whoever
said of a contribution what recomputation refutes is out."""

from __future__ import annotations

from torch import Tensor

from node.protocol.attempt import Attempt
from node.protocol.indictment import words
from node.protocol.notices import Committed, Undone
from node.protocol.state import parameters_digest
from node.protocol.tribunal import gradient_fault
from node.protocol.undo import earlier
from node.protocol.window import Contribution
from node.simulator import Observed
from tests.simulation.checkers.testimony import Bans, Commits
from tests.simulation.stage import Stage


class Undoing:
    """Recomputes every contribution in question by itself, and remembers the parameters before every step."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before: dict[int, Tensor] = {0: stage.task.initial(stage.run.init_seed)}
        self._bans, self._commits = Bans(), Commits(stage)
        self._due: set[int] = set()
        self._told: set[int] = set()

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        self._bans.see(seen)
        if isinstance(seen.output, Undone):
            self._told.add(seen.output.step)
        if (fresh := self._commits.fresh(seen)) is not None:
            done, attempt = fresh
            self._before[done.step + 1] = done.parameters_D
            if attempt.state.window.due:
                self._due.add(done.step)
                self._examine(attempt, done)

    def end(self) -> None:
        assert self._told == self._due, f"undo steps {sorted(self._due)}, reported were {sorted(self._told)}"
        assert self._stage.run.undo or not self._due

    def _examine(self, attempt: Attempt, done: Committed) -> None:
        assert not done.contributors, f"gradients in the undo step {done.step}"
        truth = {item: self._true(attempt, item) for item in attempt.state.window.due}
        for item, said in words(attempt).items():
            for peer, holds in said.items():
                right = holds == truth[item] or self._bans.out(peer, done.step)
                assert right, f"peer {peer} called {item} {holds} and was not banned"
        first = min((item.step for item, holds in truth.items() if not holds), default=done.step)
        same = parameters_digest(done.parameters_D) == parameters_digest(self._before[first])
        assert same, f"the undo step {done.step} did not restore the parameters before step {first}"

    def _true(self, attempt: Attempt, item: Contribution) -> bool:
        past = earlier(attempt, item)
        true_D, _ = self._stage.simulation._compute(past.state.parameters_D, past.seed(item.owner), None)
        return gradient_fault(past, item.owner, true_D) is None
