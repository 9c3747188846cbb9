"""Mistakes that once nobody would have noticed, each with the tests of its module that notice it now."""

from __future__ import annotations

from dataclasses import dataclass

from tests import mutation

CHARGES = ("tests/test_protocol_charges.py",)
EDGES = ("tests/test_protocol_edges.py",)
SUMMARY = ("tests/test_launcher_summary.py",)
COLLUDING = ("tests/test_attacks_colluding.py",)


@dataclass(frozen=True, slots=True)
class HandMade:
    """One mistake.

    Args:
        name: what is lost.
        module: that makes it.
        before, after: a piece of its source that occurs once, and what stands there instead.
        tests: the module's own.
    """

    name: str
    module: str
    before: str
    after: str
    tests: tuple[str, ...]

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


HAND_MADE = (
    HandMade("the second signature", "node.protocol.charges", "for each in (first, second))\n    return Equivocation",
             "for each in (first,))\n    return Equivocation", CHARGES),
    HandMade("the first signature", "node.protocol.charges", "for each in (first, second))\n    return Equivocation",
             "for each in (second,))\n    return Equivocation", CHARGES),
    HandMade("the run of a pair", "node.protocol.charges", " or slot.run != run or", " or", CHARGES),
    HandMade("the slot that a SUSPECT names", "node.protocol.charges",
             "(one.slot, one.named) == (other.slot, other.named)",
             "one.slot == other.slot", CHARGES),
    HandMade("prefixes that differ", "node.protocol.charges",
             "long.prefix[:count] != short.prefix or", "False or", CHARGES),
    HandMade("CLOSE comes last", "node.protocol.charges", " and short.slot.phase is Phase.CLOSE)", ")", CHARGES),
    HandMade("what follows a CLOSE", "node.protocol.charges",
             "or (len(long.prefix) > count and short.slot.phase is Phase.CLOSE)",
             "", CHARGES),
    HandMade("elimination at the fifth complaint", "node.protocol.edges",
             "ELIMINATION = 4 *", "ELIMINATION = 5 *", EDGES),
    HandMade("elimination at the third complaint", "node.protocol.edges",
             "ELIMINATION = 4 *", "ELIMINATION = 3 *", EDGES),
    HandMade("edges to f_0 peers", "node.protocol.edges", "len(_tied(peer, edges)) > attempt.roster.genesis_faults",
             "len(_tied(peer, edges)) >= attempt.roster.genesis_faults", EDGES),
    HandMade("ties of f_0 peers", "node.protocol.edges",
             "charges)) > most for peer in attempt.roster.active) > most",
             "charges)) > most for peer in attempt.roster.active) >= most",
             EDGES),
    HandMade("norms by size", "node.protocol.update", ".norm / math.sqrt(size)", ".norm / size",
             ("tests/test_protocol_update.py",)),
    HandMade("agreement without parameters", "launcher.summary", "(view.parameter_digest, view.state_digest)",
             "view.state_digest", SUMMARY),
    HandMade("agreement without states", "launcher.summary", "(view.parameter_digest, view.state_digest)",
             "view.parameter_digest", SUMMARY),
    HandMade("one attacked step more", "launcher.summary",
             "for step in range(ban.step):", "for step in range(ban.step + 1):",
             SUMMARY),
    HandMade("one attacked step less", "launcher.summary",
             "for step in range(ban.step):", "for step in range(ban.step - 1):",
             SUMMARY),
    HandMade("the ban's own step", "launcher.summary",
             "0 if on_gradient else int(role.schedule.scheduled(ban.step))", "0",
             SUMMARY),
    HandMade("one recorded step more", "launcher.summary",
             "step < ban.step + (not on_gradient)", "step <= ban.step", SUMMARY),
    HandMade("one recorded step less", "launcher.summary",
             "step < ban.step + (not on_gradient)", "step < ban.step", SUMMARY),
    HandMade("rop: sine for cosine", "node.attacks.rop", "angle.sin() * sideways_D + angle.cos() * unit_D",
             "angle.cos() * sideways_D + angle.sin() * unit_D", COLLUDING),
    HandMade("rop: the reference", "node.attacks.rop", "relocation * mean_D + (1 - relocation) * _past(mean_D, view)",
             "mean_D", COLLUDING),
    HandMade("rop: the past's share", "node.attacks.rop", "(1 - relocation) * _past", "relocation * _past", COLLUDING),
    HandMade("rop: the past's length", "node.attacks.rop",
             "moved_D * (float(mean_D.norm()) / norm) if", "moved_D if", COLLUDING),
    HandMade("rop: at a right angle", "node.attacks.rop",
             "drawn_D - (drawn_D @ unit_D) * unit_D", "drawn_D", COLLUDING),
    HandMade("fang: the bound's divisor", "node.attacks.fang",
             "count - 2 * attackers - 1", "count - attackers - 1", COLLUDING),
    HandMade("fang: the nearest rows", "node.attacks.fang", "min(count - attackers - 2, len(honest_HD) - 1)",
             "min(count - attackers - 1, len(honest_HD) - 1)", COLLUDING),
    HandMade("fang: distances, not squares", "node.attacks.fang",
             "pair_squares(honest_HD).sqrt()", "pair_squares(honest_HD)",
             COLLUDING),
    HandMade("fang: the farthest row", "node.attacks.fang", "norm(dim=1).max())", "norm(dim=1).min())", COLLUDING),
    HandMade("fang: Krum's neighbours", "node.attacks.fang",
             "len(rows_ND) - attackers - 2)", "len(rows_ND) - attackers - 1)",
             COLLUDING),
    HandMade("fang: twice the extreme", "node.attacks.fang", "_REACH = 2.0", "_REACH = 1.5", COLLUDING),
    HandMade("fang: the wrong extreme", "node.attacks.fang", "torch.where(rising_D, low_D, high_D)",
             "torch.where(rising_D, high_D, low_D)", COLLUDING),
)  # fmt: skip


def outcome(mutant: HandMade) -> mutation.Outcome:
    """What the module's tests make of it."""
    code = compile(mutant.source, str(mutation.path_of(mutant.module)), "exec")
    return mutation.outcome_of(mutant.module, code, mutant.tests)


def run_table() -> int:
    """Print what becomes of each; how many survive."""
    alive, last = 0, None
    for mutant in HAND_MADE:
        if mutant.tests != last:
            mutation.warm(mutant.module, mutant.tests)
            last = mutant.tests
        found = outcome(mutant)
        alive += found.result == "survived"
        print(
            f"{found.result:8} {found.cpu_s:5.1f} s  {mutant.name}  {found.by.splitlines()[0] if found.by else ''}",
            flush=True,
        )
    print(f"{len(HAND_MADE)} mutants, {alive} survive")
    return alive
