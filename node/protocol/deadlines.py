"""How long a peer waits in a phase before it concludes that something is missing."""

from __future__ import annotations

from node.protocol.messages import Phase
from node.protocol.settings import Settings

_BULK_BEFORE = {Phase.AGG: 1, Phase.REVEAL: 1, Phase.HAVE: 1}
_COMPUTES = {Phase.COMMIT: 1, Phase.REPORT: 1, Phase.HELLO: 2}
_JUDGING = (Phase.PUBLISH, Phase.HAVE, Phase.JUDGE, Phase.CLOSE)


def wait_s(phase: Phase, settings: Settings, active: int, publications: int, recomputed: int) -> float:
    """Seconds from entering a phase until its messages and the bulk before it must be here.

    Peers enter a phase within one delivery bound D of each other's previous message; a message takes D more, the
    gradients a phase waits for take T_g each, bulk moves at the minimum rate with all peers sending at once.

    Args:
        phase: the phase entered.
        settings: D, T_g and the minimum rate.
        active: size of the roster.
        publications: parts published for judging, each to every peer.
        recomputed: gradients that every peer recomputes for judging; whoever is at it says nothing meanwhile.
    """
    moved = 4.0 * settings.dimension * (max(1, publications) if phase is Phase.HAVE else 1)
    bulk_s = _BULK_BEFORE.get(phase, 0) * moved * active / settings.minimum_rate
    computes = recomputed if phase in _JUDGING else _COMPUTES.get(phase, 0)
    compute_s = computes * settings.gradient_bound_s
    return 6.0 * settings.delivery_bound_s + compute_s + bulk_s
