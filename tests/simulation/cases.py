"""One run for each way to be banned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Committed, Voided
from btard.node.protocol.evidence.verifier import Verifier
from btard.node.protocol.state.state import Ban
from tests.simulation.stage import Stage, play, set_up

TWO = (4, 5)


@dataclass(frozen=True, slots=True)
class Case:
    """An attack by peers 4 and 5 of six from step 1 on, and the reason of the bans that it ends with."""

    attack: str
    parameters: tuple[tuple[str, object], ...]
    reason: str
    on_ban: str = "remove"
    rule: str = "centered_clip"

    @property
    def name(self) -> str:
        """For test ids."""
        values = [str(value) for _, value in self.parameters]
        extra = [self.on_ban] * (self.on_ban != "remove") + [self.rule] * (self.rule != "centered_clip")
        return "-".join([self.attack, *values, *extra])


CASES = (
    Case("sign_flip", (), "gradient"),
    Case("noise", (("variant", "small"),), "gradient"),
    Case("sign_flip", (), "gradient", on_ban="reform"),
    Case("shift_aggregate", (), "aggregate"),
    Case("shift_aggregate", (("scale", float("inf")),), "aggregate"),
    Case("shift_aggregate", (), "aggregate", rule="mean"),
    Case("shift_aggregate", (), "aggregate", rule="median"),
    Case("lie_checksum", (), "checksum"),
    Case("lie_checksum", (("entry", "norm"),), "checksum"),
    Case("lie_checksum", (), "checksum", rule="median"),
    Case("lie_checksum", (("variant", "huge"),), "bounds"),
    Case("lie_checksum", (("variant", "nan"),), "bounds"),
    Case("lie_checksum", (("variant", "infinite"),), "bounds"),
    Case("lie_checksum", (("variant", "negative"), ("entry", "norm")), "bounds"),
    Case("false_accuse", (("how", "verdict"),), "false_accusation"),
    Case("false_accuse", (("how", "bit"),), "false_accusation"),
)


def stage_of(case: Case, seed: int = 2) -> Stage:
    """The case's run, short, with the whole roster's parts audited where the rule is."""
    run = RunConfig(
        peers=6,
        task=Plugin("quadratic", {"dimension": 19}),
        rule=Plugin(case.rule),
        steps=30 if case.reason in ("gradient", "false_accusation") else 3,
        batch_size=2,
        audit_share=1.0,
        on_ban="reform" if case.on_ban == "reform" else "remove",
    )
    role = Role((Plugin(case.attack, dict(case.parameters)),), Schedule(start=1), TWO, attack_seed=seed)
    return set_up(run, dict.fromkeys(TWO, role), seed)


@dataclass(frozen=True, slots=True)
class Filed:
    """A ban as peer 0 wrote it down, with the bans that were proven before it."""

    ban: Banned
    before: tuple[Ban, ...]


@cache
def filed(case: Case) -> tuple[Stage, tuple[Filed, ...], bytes]:
    """The case's run, its evidence, and the last certificate."""
    stage = stage_of(case)
    verifier = Verifier(stage.ground())
    files: list[Filed] = []
    together: list[Ban] = []
    certificate = b""
    for seen in play(stage, ()):
        if seen.node != stage.witness:
            continue
        match seen.output:
            case Banned() as ban:
                files.append(Filed(ban, tuple(verifier.proven)))
                together.append(verifier.check(ban.evidence).ban)
            case Voided() | Committed():
                verifier.settle(together)
                together = []
                if isinstance(seen.output, Committed):
                    certificate = seen.output.certificate
    return stage, tuple(files), certificate


def verifier_for(stage: Stage, before: tuple[Ban, ...]) -> Verifier:
    """A third party that has been shown the earlier bans."""
    verifier = Verifier(stage.ground())
    verifier.settle(before)
    return verifier
