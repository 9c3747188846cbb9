"""Mistakes that once nobody would have noticed, each with the tests of its module that notice it now."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import CodeType

from tests import mutation

CHARGES = "tests/unit/node/protocol/adjudication/test_charges.py"
EDGES = "tests/unit/node/protocol/adjudication/test_complaints.py"
SUMMARY = "tests/unit/launcher/run/test_summary.py"
COLLUDING = "tests/test_attacks_colluding.py"


@dataclass(frozen=True, slots=True)
class HandMade:
    """One mistake.

    Args:
        name: what is lost.
        module: that makes it.
        before, after: a piece of its source that occurs once, and what stands there instead.
        tests: the module that notices it.
    """

    name: str
    module: str
    before: str
    after: str
    tests: str

    @property
    def source(self) -> str:
        """The mutated module's text.

        Raises:
            ValueError: the piece is not there, or more than once.
        """
        text = mutation.source_of(self.module)
        if text.count(self.before) != 1:
            found = text.count(self.before)
            raise ValueError(
                f"{self.name}: {self.before!r} occurs {found} times in {self.module}; adjust tests/mutants.py"
            )
        return text.replace(self.before, self.after)

    @property
    def code(self) -> CodeType:
        """Of it."""
        return compile(self.source, str(mutation.path_of(self.module)), "exec")


HAND_MADE = (
    HandMade("the second signature", "btard.node.protocol.adjudication.charges", "for each in (first, second))\n    return Equivocation",
             "for each in (first,))\n    return Equivocation", CHARGES),
    HandMade("the first signature", "btard.node.protocol.adjudication.charges", "for each in (first, second))\n    return Equivocation",
             "for each in (second,))\n    return Equivocation", CHARGES),
    HandMade("the run of a pair", "btard.node.protocol.adjudication.charges", " or slot.run != run or", " or", CHARGES),
    HandMade("the slot that a SUSPECT names", "btard.node.protocol.adjudication.charges",
             "(one.slot, one.named) == (other.slot, other.named)",
             "one.slot == other.slot", CHARGES),
    HandMade("prefixes that differ", "btard.node.protocol.adjudication.charges",
             "long.prefix[:count] != short.prefix or", "False or", CHARGES),
    HandMade("CLOSE comes last", "btard.node.protocol.adjudication.charges", " and short.slot.phase is Phase.CLOSE)", ")", CHARGES),
    HandMade("what follows a CLOSE", "btard.node.protocol.adjudication.charges",
             "or (len(long.prefix) > count and short.slot.phase is Phase.CLOSE)",
             "", CHARGES),
    HandMade("elimination at the fifth complaint", "btard.node.protocol.adjudication.complaints",
             "ELIMINATION = 4", "ELIMINATION = 5", EDGES),
    HandMade("elimination at the third complaint", "btard.node.protocol.adjudication.complaints",
             "ELIMINATION = 4", "ELIMINATION = 3", EDGES),
    HandMade("an edge in one step", "btard.node.protocol.adjudication.complaints", "EDGE = 2", "EDGE = 1", EDGES),
    HandMade("an edge in three steps", "btard.node.protocol.adjudication.complaints", "EDGE = 2", "EDGE = 3", EDGES),
    HandMade("edges to f_0 peers", "btard.node.protocol.adjudication.complaints", "len(_tied(peer, edges)) > attempt.roster.genesis_faults",
             "len(_tied(peer, edges)) >= attempt.roster.genesis_faults", EDGES),
    HandMade("ties of f_0 peers", "btard.node.protocol.adjudication.complaints",
             "charges)) > most for peer in attempt.roster.active) > most",
             "charges)) > most for peer in attempt.roster.active) >= most",
             EDGES),
    HandMade("norms by size", "btard.node.protocol.state.transition", " / np.sqrt(sizes_P)", " / sizes_P",
             "tests/unit/node/protocol/state/test_transition.py"),
    HandMade("agreement without parameters", "btard.launcher.run.summary", "(view.parameter_digest, view.state_digest)",
             "view.state_digest", SUMMARY),
    HandMade("agreement without states", "btard.launcher.run.summary", "(view.parameter_digest, view.state_digest)",
             "view.parameter_digest", SUMMARY),
    HandMade("one attacked step more", "btard.launcher.run.summary",
             "for step in range(ban.step):", "for step in range(ban.step + 1):",
             SUMMARY),
    HandMade("one attacked step less", "btard.launcher.run.summary",
             "for step in range(ban.step):", "for step in range(ban.step - 1):",
             SUMMARY),
    HandMade("the ban's own step", "btard.launcher.run.summary",
             "0 if on_gradient else int(role.schedule.scheduled(ban.step))", "0",
             SUMMARY),
    HandMade("one recorded step more", "btard.launcher.run.summary",
             "step < ban.step + (not on_gradient)", "step <= ban.step", SUMMARY),
    HandMade("one recorded step less", "btard.launcher.run.summary",
             "step < ban.step + (not on_gradient)", "step < ban.step", SUMMARY),
    HandMade("rop: sine for cosine", "btard.node.adversary.attacks.rop", "angle.sin() * sideways_D + angle.cos() * unit_D",
             "angle.cos() * sideways_D + angle.sin() * unit_D", COLLUDING),
    HandMade("rop: the reference", "btard.node.adversary.attacks.rop", "relocation * mean_D + (1 - relocation) * _past(mean_D, view)",
             "mean_D", COLLUDING),
    HandMade("rop: the past's share", "btard.node.adversary.attacks.rop", "(1 - relocation) * _past", "relocation * _past", COLLUDING),
    HandMade("rop: the past's length", "btard.node.adversary.attacks.rop",
             "moved_D * (float(mean_D.norm()) / norm) if", "moved_D if", COLLUDING),
    HandMade("rop: at a right angle", "btard.node.adversary.attacks.rop",
             "drawn_D - (drawn_D @ unit_D) * unit_D", "drawn_D", COLLUDING),
    HandMade("fang: the bound's divisor", "btard.node.adversary.attacks.fang",
             "count - 2 * attackers - 1", "count - attackers - 1", COLLUDING),
    HandMade("fang: the nearest rows", "btard.node.adversary.attacks.fang", "min(count - attackers - 2, len(honest_HD) - 1)",
             "min(count - attackers - 1, len(honest_HD) - 1)", COLLUDING),
    HandMade("fang: distances, not squares", "btard.node.adversary.attacks.fang",
             "pair_squares(honest_HD).sqrt()", "pair_squares(honest_HD)",
             COLLUDING),
    HandMade("fang: the farthest row", "btard.node.adversary.attacks.fang", "norm(dim=1).max())", "norm(dim=1).min())", COLLUDING),
    HandMade("fang: Krum's neighbours", "btard.node.adversary.attacks.fang",
             "len(rows_ND) - attackers - 2)", "len(rows_ND) - attackers - 1)",
             COLLUDING),
    HandMade("fang: twice the extreme", "btard.node.adversary.attacks.fang", "_REACH = 2.0", "_REACH = 1.5", COLLUDING),
    HandMade("fang: the wrong extreme", "btard.node.adversary.attacks.fang", "torch.where(rising_D, low_D, high_D)",
             "torch.where(rising_D, high_D, low_D)", COLLUDING),
)  # fmt: skip


def run_table() -> int:
    """Print what becomes of each; how many survive."""
    found: dict[str, mutation.Outcome] = {}

    def told(mutant: HandMade, outcome: mutation.Outcome) -> None:
        if outcome.result == "unsure":
            outcome = mutation.anew(mutant.module, mutant.code, [mutant.tests])
        found[mutant.name] = outcome
        print(
            f"{outcome.result:8} {outcome.cpu_s:5.1f} s  {mutant.name}  {outcome.by}", file=sys.__stdout__, flush=True
        )

    for module, tests in dict.fromkeys((mutant.module, mutant.tests) for mutant in HAND_MADE):
        made = [(mutant, mutant.code) for mutant in HAND_MADE if mutant.module == module]
        mutation.Examination(module, tests, made, told).run()
    alive = sum(outcome.result == "survived" for outcome in found.values())
    print(f"{len(HAND_MADE)} mutants, {alive} survive")
    return alive
