"""Undo: after an undo step the parameters are those before the first lie that is kept, or as they were; and whoever
said of a contribution what recomputation refutes is out."""

from __future__ import annotations

import msgspec
from torch import Tensor

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Committed, Undone
from tests.simulation.checkers.testimony import Bans, Commits
from tests.simulation.oracle import Account
from tests.simulation.stage import Stage

_BANS, _UNDO, _CHECKERS = 6, 15, 16
"""Places in the summary of a certified state."""


class Undoing:
    """Recomputes every contribution in question by itself, and remembers every step and the parameters before it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before: dict[int, Tensor] = {0: stage.task.initial(stage.run.init_seed)}
        self._accounts: dict[tuple[int, int], Account] = {}
        self._window: list[int] = []
        """Steps with gradients that the parameters went through, as far as they are kept."""
        self._bans, self._commits = Bans(), Commits(stage)
        self._judged = 0
        self._checkers = 0
        self._question: list[tuple[int, int, int]] = []
        self._due: set[int] = set()
        self._told: set[int] = set()

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        self._bans.see(seen)
        if isinstance(seen.output, Undone):
            self._told.add(seen.output.step)
        if (fresh := self._commits.fresh(seen)) is not None:
            done, account = fresh
            self._before[done.step + 1] = done.parameters_D
            self._accounts[account.step, account.number] = account
            if self._question:
                self._due.add(done.step)
                self._examine(account, done)
            elif account.contributors and self._stage.run.undo:
                self._window = [*self._window, done.step][-self._stage.run.undo :]
            self._ask(done)

    def end(self) -> None:
        assert self._told == self._due, f"undo steps {sorted(self._due)}, reported were {sorted(self._told)}"
        assert self._stage.run.undo or not self._due

    def _ask(self, done: Committed) -> None:
        """What the next step has to recompute: all that is kept of whom the verdicts in the certified state hit."""
        summary, _ = msgspec.msgpack.decode(done.certificate)
        bans, due, self._checkers = summary[_BANS], summary[_UNDO], summary[_CHECKERS]
        fresh = {peer for _, _, peer, *_ in bans[self._judged :]}
        self._judged = len(bans)
        kept = [each for each in self._accounts.values() if each.step in self._window]
        self._question = sorted(
            (each.step, each.number, peer) for each in kept for peer in each.contributors if peer in fresh
        )
        told = [tuple(item) for item in due]
        assert told == self._question, f"after step {done.step} peers recompute {told}, not {self._question}"

    def _examine(self, account: Account, done: Committed) -> None:
        assert not done.contributors, f"gradients in the undo step {done.step}"
        truth = {item: self._true(item) for item in self._question}
        shares, holds = account.checkers(self._question, self._checkers), account.holds
        for peer in account.active:
            for item, said in zip(shares.get(peer, ()), holds[peer], strict=True):
                right = said == truth[item] or self._bans.out(peer, done.step)
                assert right, f"peer {peer} called {item} {said} and was not banned"
        first = min((step for (step, _, _), true in truth.items() if not true), default=done.step)
        same = done.parameters_D.numpy().tobytes() == self._before[first].numpy().tobytes()
        assert same, f"the undo step {done.step} did not restore the parameters before step {first}"
        self._window = [step for step in self._window if step < first]

    def _true(self, item: tuple[int, int, int]) -> bool:
        step, number, owner = item
        account = self._accounts[step, number]
        true_D, _ = self._stage.simulation._compute(self._before[step], account.batch_seed(owner), None)
        return not account.gradient_false(owner, true_D.numpy())
