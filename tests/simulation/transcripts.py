"""Golden transcripts: what four peers say and conclude in each of the main disputes, as text to be read and compared.

python -m tests.simulation.transcripts --regenerate
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import (
    Banned,
    Committed,
    Disputed,
    Dropped,
    Endorse,
    Expelled,
    Finished,
    Forward,
    Halted,
    Output,
    PhaseEntered,
    Resolved,
    Say,
    Suspected,
    Voided,
)
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Close, Outcome, Signed, Suspect, View, Void
from btard.node.training.environment import pin
from tests.simulation.hostile import interpose
from tests.simulation.stage import Stage, set_up

FOLDER = Path(__file__).parent / "golden"
REGENERATE = "python -m tests.simulation.transcripts --regenerate"
PEERS, ATTACKER, STEP = 4, 3, 1


def _plugin(name: str, **parameters: object) -> Plugin:
    return Plugin(name, parameters)


DISPUTES: dict[str, tuple[str, tuple[Plugin, ...]]] = {
    "equivocation": ("two CHECKSUMS: proof, ban, new attempt", (_plugin("equivocate", phase="CHECKSUMS", to="one"),)),
    "randomness": ("two randomness commitments: nobody judges", (_plugin("equivocate", phase="COMMIT", to="one"),)),
    "prefix": ("a prefix unlike everybody's: ban, new attempt", (_plugin("false_prefix", phase="REVEAL"),)),
    "malformed": ("a signed message of the wrong shape: ban, new attempt", (_plugin("malformed", phase="CHECKSUMS"),)),
    "silence": ("no CHECKSUMS to anybody: gone, new attempt", (_plugin("stall", phase="CHECKSUMS"),)),
    "silent_close": (
        "no CLOSE and no view of it to anybody: the value stands, its sender is gone",
        (_plugin("stall", phase="CLOSE"), _plugin("stall", phase="VIEW")),
    ),
    "certificate": (
        "a CLOSE to one peer just in time: its certificate wins",
        (_plugin("last_instant", phase="CLOSE", to="one", before_s=0.1), _plugin("stall", phase="VIEW")),
    ),
    "two_views": (
        "a dispute in which its cause shows two views: banned once",
        (_plugin("equivocate", phase="CHECKSUMS", to="one"), _plugin("equivocate", phase="VIEW", to="one")),
    ),
}
"""By file name: what happens, and what peer 3 of four does in step 1."""


def stage_of(name: str) -> Stage:
    """The run behind a transcript: fixed delays, so that nothing in the text depends on a draw."""
    run = RunConfig(peers=PEERS, task=Plugin("quadratic", {"dimension": 8}), steps=2, batch_size=1,
                    delivery_bound_s=0.5, gradient_bound_s=1.0)  # fmt: skip
    role = Role(DISPUTES[name][1], Schedule(start=STEP), (ATTACKER,))
    return set_up(run, {ATTACKER: role}, links=LinkModel(delay_s=0.01))


def transcript(name: str) -> str:
    """The text of one dispute: everything from the first sign of it to the end of its step."""
    stage = stage_of(name)
    lines: list[str] = [
        f"# {DISPUTES[name][0]}; peer {ATTACKER} of {PEERS} attacks from step {STEP} on, messages take 10 ms"
    ]

    def note(peer: int, output: Output) -> None:
        words = _words(output)
        if words is not None:
            lines.append(f"{stage.simulation.now_s:7.3f}  peer {peer}  {words}")

    for peer in range(PEERS):

        def told(output: Output, peer: int = peer) -> Iterable[Output]:
            note(peer, output)
            return (output,)

        interpose(stage, peer, told)
    for _ in stage.simulation.run():
        pass
    return "\n".join(lines) + "\n"


def _words(output: Output) -> str | None:
    match output:
        case Say(to=to, body=body):
            said = _said(body)
            return f"says {said} to {_list(to)}" if said is not None else None
        case Endorse(endorsed=endorsed):
            owner = decode_body(endorsed.view.body).slot.sender
            return f"passes on the view of peer {owner} with {2 + len(endorsed.endorsements)} signatures"
        case Forward(to=to, messages=messages):
            return f"forwards {_counted(messages)} to {_list(to)}" if to else None
        case Suspected(step, attempt, phase, peer):
            return f"lacks the {phase} of peer {peer} (step {step}, attempt {attempt})"
        case Disputed(step, attempt, cause):
            return f"disputes step {step}, attempt {attempt}: {cause}"
        case Resolved(step, attempt, outcome, removals):
            return f"resolves step {step}, attempt {attempt}: {outcome}, without {_list(removals)}"
        case Banned(step=step, peer=peer, reason=reason):
            return f"removes peer {peer} in step {step}: {reason}"
        case Voided(step, attempt, _):
            return f"voids attempt {attempt} of step {step}"
        case Committed(step=step, attempt=attempt, contributors=contributors):
            return f"commits step {step}, attempt {attempt}, gradients of {_list(contributors)}"
        case Finished() | Expelled() | Halted():
            return f"is {type(output).__name__.lower()}"
        case PhaseEntered() | Dropped() | _:
            return None


def _said(body: Body) -> str | None:
    match body:
        case Suspect(named=named, peer=peer):
            return f"SUSPECT({named.name} of peer {peer})"
        case View(messages=messages):
            return f"VIEW({_counted(messages)})"
        case Outcome(value=value, removals=removals):
            out = ", ".join(f"peer {removal.peer} {removal.reason}" for removal in removals) or "nobody"
            return f"OUTCOME({'retry' if value is None else 'commit'}; out: {out})"
        case Close(value=Void()):
            return "CLOSE(void)"
        case _:
            return None


def _counted(messages: tuple[Signed, ...]) -> str:
    """`4 COMMIT, 4 AGG`: how many messages of each phase."""
    phases = [decode_body(signed.body).slot.phase for signed in messages]
    return ", ".join(f"{phases.count(phase)} {phase.name}" for phase in sorted(set(phases), key=lambda one: one.value))


def _list(peers: tuple[int, ...]) -> str:
    return " ".join(str(peer) for peer in peers) or "nobody"


def main(arguments: list[str]) -> int:
    """Write all transcripts anew."""
    if arguments != ["--regenerate"]:
        print(f"usage: {REGENERATE}")
        return 2
    pin("cpu")
    FOLDER.mkdir(exist_ok=True)
    for name in DISPUTES:
        (FOLDER / f"{name}.txt").write_text(transcript(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
