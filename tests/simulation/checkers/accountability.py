"""Accountability: whoever is caught at it is banned: at once for what the transcript shows, for a gradient whenever
an honest validator examined it."""

from __future__ import annotations

from node.protocol.attempt import Attempt
from node.protocol.events import Accused, Banned, Committed
from node.simulator import Observed
from tests.simulation.stage import Stage

_GRADIENT = frozenset({"sign_flip", "constant_direction", "noise"})


class Accountability:
    """Knows what each attacker did, and looks whether the step in which it shows ends with its ban."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._bans: dict[int, int] = {}
        self._audited: set[tuple[int, int | None]] = set()

    def see(self, seen: Observed) -> None:
        if seen.node != self._stage.witness:
            return
        match seen.output:
            case Banned() as ban:
                self._bans[ban.peer] = ban.step
            case Accused() as accused if accused.kind.startswith("averaging"):
                self._audited.add((accused.step, accused.accused))
            case Committed() as done:
                for peer in self._stage.roles:
                    self._check_transcript(peer, done)
                self._check_validated(done)

    def end(self) -> None:
        pass

    def _check_transcript(self, peer: int, done: Committed) -> None:
        """What was visible in this step's transcript."""
        if done.step not in self._stage.adversary(peer).attacked or self._banned_by(peer, done.step):
            return
        names = {plugin.name: plugin.parameters for plugin in self._stage.roles[peer].attacks}
        accuses = names.get("false_accuse", {}).get("how", "verdict")
        contributes = peer in done.contributors
        caught = (
            ("lie_checksum" in names and contributes)
            or ("false_accuse" in names and (accuses == "bit" or peer in done.validators))
            or ("shift_aggregate" in names and self._shift_shows(peer, done))
        )
        assert not caught, f"peer {peer} attacked by {sorted(names)} at step {done.step} and was not banned"

    def _shift_shows(self, peer: int, done: Committed) -> bool:
        if not done.contributors:
            return False
        attempt = self._attempt()
        if attempt.tools.rule.audited:
            return (done.step, peer) in self._audited
        part = attempt.roster.place(peer)
        claims = [attempt.claim(owner, part) for owner in attempt.contributors]
        return any(claim.norm <= attempt.clip_radius(part) for claim in claims)

    def _check_validated(self, done: Committed) -> None:
        """False gradients of the step before whose drawn validator is honest."""
        for validator, target in done.validators.items():
            if validator in self._stage.roles or target not in self._stage.roles:
                continue
            names = {plugin.name for plugin in self._stage.roles[target].attacks}
            attacked = done.step - 1 in self._stage.adversary(target).attacked
            if attacked and names & _GRADIENT:
                assert self._banned_by(target, done.step), (
                    f"validator {validator} examined the false gradient of peer {target} of step {done.step - 1}"
                )

    def _banned_by(self, peer: int, step: int) -> bool:
        return self._bans.get(peer, step + 1) <= step

    def _attempt(self) -> Attempt:
        """The attempt that the witness has just committed."""
        past = self._stage.simulation.nodes[self._stage.witness].peer.past
        assert past is not None
        return past
