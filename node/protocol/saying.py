"""What a peer says in each phase of an attempt up to JUDGE, from what it holds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from node.protocol.attempt import Attempt
from node.protocol.messages import Body, Phase, Report, Verdict
from node.protocol.trial import Trial
from node.protocol.tribunal import suspicious


def message(
    phase: Phase, attempt: Attempt, past: Attempt | None, trial: Trial | None, recomputed: Mapping[int, Tensor]
) -> Body | None:
    """This peer's message of a phase, None while something it needs is not here.

    Args:
        phase: COMMIT to JUDGE; CLOSE carries the state, which only the round knows.
        attempt: the attempt under way.
        past: the committed attempt of the step before, None in step 0.
        trial: the judging, from REPORT on.
        recomputed: gradients of the step before, by peer, as far as they are there.
    """
    match phase:
        case Phase.COMMIT:
            return attempt.commit()
        case Phase.AGG:
            return attempt.agg()
        case Phase.REVEAL:
            return attempt.reveal()
        case Phase.CHECKSUMS:
            return attempt.checksums()
        case Phase.REPORT:
            return _report(attempt, past, recomputed)
        case Phase.PUBLISH if trial is not None:
            return trial.publish()
        case Phase.HAVE if trial is not None:
            return trial.have()
        case Phase.JUDGE if trial is not None:
            return trial.judge(recomputed)
        case _:
            return None


def _report(attempt: Attempt, past: Attempt | None, recomputed: Mapping[int, Tensor]) -> Report | None:
    """REPORT, once our targets' gradients are recomputed: our word on every claim about our part, and verdicts."""
    if any(target not in recomputed for target in attempt.targets):
        return None
    verdicts = tuple(
        Verdict(target, not suspicious(past, target, recomputed[target]))
        for target in attempt.targets
        if past is not None
    )
    return Report(attempt.slot(Phase.REPORT), attempt.transcript.prefix, attempt.checks(), verdicts, ())
