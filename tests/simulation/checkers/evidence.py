"""Every ban's evidence convinces a third party that knows only the genesis and the public data, and the final
certificate covers the final parameters.

The third party is the product's own (`verify` must accept what is true); beside it the oracle checks by itself what
signatures alone show: certificates, and pairs of contradicting messages.
"""

from __future__ import annotations

import msgspec

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Finished, Returned
from btard.node.protocol.evidence.verifier import Verifier
from btard.node.protocol.state.state import Ban
from tests.simulation.oracle import Told, certified, contradictory, hashed, stub_signed_by, vector_digest
from tests.simulation.stage import Stage


class EvidenceHolds:
    """Verifies what every honest peer writes down; what is the same in all bits is verified once."""

    def __init__(self, stage: Stage) -> None:
        self._honest = stage.honest
        self._ground = stage.ground()
        self._proven: dict[tuple[int, int], dict[int, Ban]] = {}
        """By step and attempt: the bans that took effect together, in roster order."""
        self._returns: dict[tuple[int, int], bytes] = {}
        self._known: set[bytes] = set()
        self._certificates: dict[int, bytes] = {}
        self._keys, self._founders = stage.keys, stage.run.peers
        self._seen: set[bytes] = set()
        self._checked: set[tuple[int, bytes]] = set()

    def see(self, seen: Observed) -> None:
        if seen.node not in self._honest:
            return
        match seen.output:
            case Banned() as ban if ban.evidence not in self._known:
                self._known.add(ban.evidence)
                self._check_pair(ban)
                proof = self._verifier(before=(ban.step, ban.attempt)).check(ban.evidence)
                named = (ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed)
                assert proof.ban == Ban(*named), f"the evidence proves {proof.ban}"
                self._proven.setdefault((ban.step, ban.attempt), {})[ban.peer] = proof.ban
            case Returned() as back:
                self._verifier(before=(back.step, back.attempt + 1)).readmit(back.evidence)
                self._returns.setdefault((back.step, back.attempt), back.evidence)
            case Committed() as done:
                self._certificates[seen.node] = done.certificate
                self._check_certificate(done)
            case Finished(step=step, parameters_D=parameters_D):
                # Which OUTCOMEs certify the last step may differ from peer to peer.
                certificate = self._certificates[seen.node]
                if (step, certificate) not in self._checked:
                    self._checked.add((step, certificate))
                    self._verifier(before=(step + 1, 0)).check_final(certificate, parameters_D)

    def end(self) -> None:
        pass

    def _check_certificate(self, done: Committed) -> None:
        """The signatures of the attempt's roster, over the state that the step is reported to have reached."""
        if done.certificate in self._seen:
            return
        self._seen.add(done.certificate)
        summary, messages = msgspec.msgpack.decode(done.certificate)
        value = certified([(body, signature) for body, signature in messages], self._keys, done.active, self._founders)
        assert value == done.state_digest == hashed("state", msgspec.msgpack.encode(summary)), "another state"
        step, _, parameters, *_ = summary
        assert step == done.step + 1, f"the state after step {done.step} is certified as one before step {step}"
        assert parameters == vector_digest("parameters", (), done.parameters_D.numpy()), "other parameters"

    def _check_pair(self, ban: Banned) -> None:
        """Two signatures of the banned peer that no honest peer gives both."""
        charge = msgspec.msgpack.decode(ban.evidence)[3]
        if charge[0] != "equivocation":
            return
        _, accused, *stubs = charge
        assert accused == ban.peer, f"the pair is by peer {accused}"
        pair = []
        for place, digest, signature in stubs:
            assert stub_signed_by(self._keys[accused], place, digest, signature), "a signature is not valid"
            slot, prefix, named = place
            # The digest stands for the body: they are equal together.
            pair.append(Told(*slot, tuple(prefix), tuple(named or ()), digest))
        assert contradictory(*pair), f"an honest peer could have signed both: {pair}"

    def _verifier(self, before: tuple[int, int]) -> Verifier:
        """A third party that has been shown the bans of earlier attempts."""
        verifier = Verifier(self._ground)
        for when in sorted({*self._proven, *self._returns}):
            if when < before:
                verifier.settle(tuple(self._proven.get(when, {}).values()))
                if when in self._returns:
                    verifier.readmit(self._returns[when])
        return verifier
