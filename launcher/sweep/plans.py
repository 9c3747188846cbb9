"""Sweeps that ship: the report's experiments, its future work, and the heatmaps.

Source: the report, "Byzantine Attacks in Distributed Training", sections 5.1 (experiments A and B), 5.4 (attacks) and 7
(future work), and the output of the notebook that came with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from btard.launcher.run.experiment import Experiment
from btard.node.errors import ConfigError

Axes: TypeAlias = Mapping[str, Sequence[object]]
"""Field of `Experiment` to the values it takes, as a sweep file would write them."""

ATTACKS = ("noise", "label_shuffle", "sign_flip", "label_flip", "constant_direction")
AGGRESSIVE, MILD, CLEAN = "aggressive", "mild", "clean"
FINALS = {
    "aggressive": {"none": 0.9852, "noise": 0.9831, "label_shuffle": 0.9845, "sign_flip": 0.9843, "label_flip": 0.9842,
                   "constant_direction": 0.9776},
    "mild": {"none": 0.9851, "noise": 0.9850, "label_shuffle": 0.9855, "sign_flip": 0.9846, "label_flip": 0.9851,
             "constant_direction": 0.9835},
}  # fmt: skip
"""What it published, to stand beside ours: final test accuracies of its notebook, each the mean of three runs."""

WATCHING = ("mimic",)
"""Attacks on gradients that have to see what the others send, and so act on a node."""

REPEATS = (101, 102, 103)
"""Protocol seeds of the three repeats: other keys and coins, so other draws and batches, from the same parameters."""

CAREERS = (1, 13, 17, 18, 4, 20, 94, 2, 826)
"""Protocol seeds under which two attackers of six from step 100 on last 4, 6, 8, 9, 10, 13, 18, 21 and 29 steps: the
quantiles 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95 and 0.99 (launcher/detection/careers.py)."""

COVERING = (9, 1, 73, 3, 14, 4, 17, 30, 8)
"""Protocol seeds under which two attackers of six that bans reform last 4, 5, 6, 8, 9, 11, 13, 16 and 23 steps, from
step 100 on: the quantiles 1/18, 3/18, ..., 17/18, so that each stands for a ninth of the law."""

COVERING_CONTRIBUTING = (13, 1, 16, 17, 7, 8, 11, 4, 274)
"""The same where validators contribute: 4, 5, 6, 8, 9, 11, 13, 16 and 22 steps."""

REPORT: Axes = {"tau": [5.0], "steps": [900], "attack_start": [100], "on_ban": ["reform"],
                "undo": [0], "eval_every": ["auto"]}  # fmt: skip
"""The setting of the report's runs: what was applied stays applied. Evaluated more often around attacks."""


_NOBODY: Axes = {"byzantine": [0]}


@dataclass(frozen=True, slots=True)
class Block:
    """A product of option values, and what its cells are called.

    Args:
        axes: what is multiplied.
        labels: `scheme` (clean, aggressive, mild, ...) and `control` (what differs from the report's setting), or
            `label` (of its curve) and `chart` (the figure that the curve is drawn in), or `phase` (of `TUNED`).
    """

    axes: Axes
    labels: Mapping[str, str]


_SCHEMES: Mapping[str, dict[str, Sequence[object]]] = {
    AGGRESSIVE: {"attack": ATTACKS, "byzantine": [2], "attack_every": [1]},
    MILD: {"attack": ATTACKS, "byzantine": [1], "attack_every": [5]},
}


def paper(quick: bool) -> list[Block]:
    """The report's plan: a baseline and five attacks, aggressive and mild, three seeds, three protocol seeds each.

    `reform` is the report's rule 2; `remove` and the other controls stand beside it. Repeats come one after the other,
    the report's own setting first, then what stands beside it, seed by seed, so that a sweep that is stopped has whole
    repeats. The quick form is the first 11 of these runs: one seed, one protocol seed.
    """
    if quick:
        return _repeat({**REPORT, "seed": [0], "protocol_seed": REPEATS[:1]})
    first, *others = (
        [{**REPORT, "seed": [seed], "protocol_seed": [repeat]} for seed in range(3)] for repeat in REPEATS
    )
    blocks = [block for each in (*first, *itertools.chain(*others)) for block in _repeat(each)]
    for each in first:
        blocks += [*_removed(each), *_controls(each)]
    return blocks + [block for each in itertools.chain(*others) for block in _removed(each)]


def _repeat(
    setting: Axes,
    labels: Mapping[str, str] | None = None,
    schemes: Mapping[str, Axes] = _SCHEMES,
) -> list[Block]:
    """Clean runs and all attacks, in one setting."""
    more = labels or {}
    return [
        Block({**setting, "byzantine": [0]}, {"scheme": CLEAN, **more}),
        *(Block({**setting, **axes}, {"scheme": scheme, **more}) for scheme, axes in schemes.items()),
    ]


def _removed(setting: Axes) -> list[Block]:
    """The attacks, where a ban is for ever."""
    return [
        Block({**setting, **axes, "on_ban": ["remove"]}, {"scheme": scheme, "control": "remove"})
        for scheme, axes in _SCHEMES.items()
    ]


def _controls(setting: Axes) -> list[Block]:
    """What the report lacks: no defence, clipping alone, other radii."""
    changed: dict[str, dict[str, Sequence[object]]] = {
        "undefended mean": {"rule": ["mean"], "validators": [0]},
        "clipping without bans": {"validators": [0]},
        "tau 1": {"tau": [1.0]},
        "tau 10": {"tau": [10.0]},
    }
    return [
        block for control, change in changed.items() for block in _repeat({**setting, **change}, {"control": control})
    ]


def rules(quick: bool) -> list[Block]:
    """Every rule, alone and behind pre-aggregations, against every attack on gradients and data, by 0, 1 or 2 of 6.

    The budget is reduced: 40 steps with batches of 32, attacked from step 5 on, one seed. Conditions on n and f are
    waived, for krum and bulyan at two attackers. The quick form keeps six attacks.
    """
    from btard.node.adversary.registry import ATTACKS as KNOWN
    from btard.node.aggregation.registry import RULES

    on_batch = [
        entry.name for entry in KNOWN
        if entry.facts.get("acts_on") in ("gradient", "data") or entry.name in WATCHING
    ]  # fmt: skip
    chosen = ["sign_flip", "label_flip", "alie:z=1.5", "ipm", "min_max", "noise"] if quick else on_batch
    behind = ["nnm+krum", "nnm+trimmed_mean", "bucketing+median", "arc+median", "clipping+mean"]
    axes: dict[str, Sequence[object]] = {
        "rule": [*(entry.name for entry in RULES), *behind], "byzantine": [0, 1, 2], "attack": ["|".join(chosen)],
        "steps": [40], "batch_size": [32], "attack_start": [5], "eval_every": [20], "allow_weak": [True],
        "backend": ["simulated"], "undo": [0],
    }  # fmt: skip
    return [Block(axes, {})]


def starts(quick: bool) -> list[Block]:
    """The report's future work: attackers that start together, 100, 200 or 400 steps apart."""
    apart = [0, 100] if quick else [0, 100, 200, 400]
    return [_clean(quick)] + [
        Block({**_short(quick), "role": [f"4={attack}:start=100;5={attack}:start={100 + later}"]},
              {"chart": attack, "label": f"{attack}, {later} steps apart" if later else f"{attack}, together"})
        for attack in (("sign_flip", "label_flip") if quick else ATTACKS) for later in apart
    ]  # fmt: skip


def mixed(quick: bool) -> list[Block]:
    """The report's future work: attackers of different types in one run."""
    pairs = list(itertools.combinations(ATTACKS, 2))
    return [_clean(quick)] + [
        Block({**_short(quick), "role": [f"4={one};5={other}"]},
              {"chart": f"{one} with", "label": f"{one} with {other}"})
        for one, other in (pairs[:4] if quick else pairs)
    ]  # fmt: skip


def aggregation(quick: bool) -> list[Block]:
    """The report's future work: Butterfly Clip under attacks on the aggregation, alone and with an accomplice."""
    attacks = ("shift_aggregate", "cancelling_shift", "stale_aggregate", "split_aggregate")
    blocks = [_clean(quick)]
    for attack, count in itertools.product(attacks, (1, 2)):
        many = f"{count} attacker{'s' * (count > 1)}"
        axes = {**_short(quick), "attack": [attack], "byzantine": [count]}
        blocks.append(Block(axes, {"chart": many, "label": f"{many}, {attack}"}))
    return blocks


def sixteen(quick: bool) -> list[Block]:
    """More workers: 16 peers with 7 Byzantine, the setting of the paper's own experiments, simulated."""
    axes = {**_short(quick), "peers": [16], "backend": ["simulated"], "batch_size": [32 if quick else 256]}
    attacked = [Block({**axes, "attack": [attack], "byzantine": [7]}, {"label": attack})
                for attack in (ATTACKS[:3] if quick else ATTACKS)]  # fmt: skip
    return [Block({**axes, "byzantine": [0]}, {"label": "clean"}), *attacked]


def cifar(quick: bool) -> list[Block]:
    """The paper's own setting: ResNet-18 on CIFAR-10, 16 peers of which 7 attack, at an eighth of its width, on a GPU.

    Prepared and not run: cut to what should take one card ten minutes, after which a run ends. Nothing is fetched, so
    without the data set in its folder, or without a CUDA device, nothing starts. The quick form is one attack.

    Source: Gorbunov et al. 2021, section 4.1.
    """
    attacks = ["sign_flip", "label_flip", "random_direction", "delayed:delay=50", "ipm:eps=0.6", "alie"]
    axes: Axes = {
        **REPORT,
        "task": ["cifar10_resnet18:width=8"],
        "peers": [16],
        "backend": ["simulated"],
        "device": ["cuda"],
        "tau": [1.0],
        "steps": [300],
        "batch_size": [32],
        "seed": [0],
        "download": [False],
        "timeout": [600.0],
    }
    attacked = [
        Block({**axes, "attack": [attack], "byzantine": [7]}, {"label": attack.partition(":")[0]})
        for attack in attacks[: 1 if quick else None]
    ]
    return [Block({**axes, **_NOBODY}, {"label": "clean"}), *attacked]


def careers(quick: bool) -> list[Block]:
    """Sign flip by two attackers with everything at its default, undo included, beside clean runs with the same keys.

    The protocol seeds are not drawn: their attackers last as long as nine quantiles of the law of detection say.
    """
    keys = CAREERS[-1:] if quick else CAREERS
    return [
        Block({"seed": [0], "protocol_seed": keys, "byzantine": [0]}, {"label": "clean"}),
        Block({"seed": [0], "protocol_seed": keys, "attack": ["sign_flip"], "byzantine": [2]}, {"label": "sign_flip"}),
    ]


def harm(quick: bool) -> list[Block]:
    """The report's plan under draws that cover the law of detection instead of three, three seeds each; beside it the
    attacks that tau decides about at other radii, one seed.

    Seed by seed, so that a sweep that is stopped has whole repeats. The quick form is the median draw and one seed.
    """
    setting: Axes = {**REPORT, "backend": ["simulated"]}
    if quick:
        return _repeat({**setting, "seed": [0], "protocol_seed": COVERING[4:5]})
    attacks = ("sign_flip", "constant_direction", "label_flip")
    few = {AGGRESSIVE: {**_SCHEMES[AGGRESSIVE], "attack": attacks}}
    own = [block for seed in range(3) for block in _repeat({**setting, "seed": [seed], "protocol_seed": COVERING})]
    return own + [
        block
        for tau in (0.5, 1.0, 2.0, 10.0)
        for block in _repeat(
            {**setting, "seed": [0], "protocol_seed": COVERING, "tau": [tau]}, {"control": f"tau {tau:g}"}, few
        )
    ]


def contribute(quick: bool) -> list[Block]:
    """The report's plan where all six contribute, as the report's do, and beside it where a validator does not, each
    under draws that cover its own law, three seeds.

    The idle ones are the runs of `harm`. The quick form is the median draw of each, one seed.
    """
    setting: Axes = {**REPORT, "backend": ["simulated"]}
    on, idle = (draws[4:5] if quick else draws for draws in (COVERING_CONTRIBUTING, COVERING))
    seeds = [{**setting, "seed": [seed]} for seed in range(1 if quick else 3)]
    own = [_repeat({**each, "validators_contribute": ["on"], "protocol_seed": on}) for each in seeds]
    beside = [_repeat({**each, "protocol_seed": idle}, {"control": "idle validators"}) for each in seeds]
    return [block for pair in zip(own, beside, strict=True) for blocks in pair for block in blocks]


def validators(quick: bool) -> list[Block]:
    """What validators cost and spare: pairs a step, draws in k steps, by 6 and 10 peers, under two attacks.

    Reduced: 300 steps with batches of 64. Three draws; the quick form is one, with six peers. Validators contribute:
    where an even number of peers has idle ones, the bound on m leaves one pair.
    """
    axes: Axes = {**_reduced(quick), "validate_every": [1, 2, 4], "validators_contribute": ["on"]}
    sizes: list[Axes] = [
        {**axes, "peers": [6], "validators": [1, 2]},
        {**axes, "peers": [10], "validators": [1, 2, 3]},
    ]
    blocks = []
    for size, attackers in zip(sizes[:1] if quick else sizes, (2, 4), strict=False):
        attacked: Axes = {"attack": ["sign_flip", "constant_direction"], "byzantine": [attackers]}
        blocks += [Block({**size, **_NOBODY}, {}), Block({**size, **attacked}, {})]
    return blocks


def windows(quick: bool) -> list[Block]:
    """`--undo` with 16 peers of which 7 attack, by the length of its window, five attacks; bans remove.

    Reduced: 300 steps with batches of 32. Three draws; the quick form is one, with two windows and attacks.
    """
    axes: Axes = {**_reduced(quick), "peers": [16], "batch_size": [32], "on_ban": ["remove"]}
    attacked: Axes = {"attack": ATTACKS[1:3] if quick else ATTACKS, "byzantine": [7]}
    kept = [0, 40] if quick else [0, 10, 20, 40, 80]
    return [Block({**axes, **_NOBODY}, {}), Block({**axes, **attacked, "undo": kept}, {})]


def timing(quick: bool) -> list[Block]:
    """What attackers get out of choosing when: schedules by attacks by strengths, with undo as it is by default, and
    without.

    Reduced as `validators`, attacked from step 30 on, under eleven draws: as many as it takes to tell one of 37
    strategies from no harm at all. `below_v2` is never caught, and has nothing to choose. The quick form is one draw of
    two attacks on four schedules.
    """
    chosen = ["sign_flip", "constant_direction", "below_tau:share=0.5", "below_tau"]
    draws = tuple(range(1, 2 if quick else 12))
    reduced: Axes = {**_reduced(quick), "on_ban": ["remove"], "attack_start": [30], "protocol_seed": draws}
    axes: Axes = {**reduced, "undo": ["auto"]}
    attacked: Axes = {"attack": chosen[::3] if quick else chosen, "byzantine": [2]}
    both = "together&beyond_undo"
    blocks = [
        Block({**axes, **_NOBODY}, {}),
        Block(
            {**axes, **attacked, "attack_when": ["always", both] if quick else ["always", *both.split("&"), both]}, {}
        ),
        Block({**axes, **attacked, "attack_last": [10, 30]}, {}),
    ]
    if quick:
        return blocks
    bare: Axes = {**reduced, **attacked, "undo": ["off"]}
    return [
        *blocks,
        Block({**axes, "attack": ["below_v2"], "byzantine": [2]}, {}),
        Block({**bare, "attack_when": ["always", "together"]}, {}),
        Block({**bare, "attack_last": [30]}, {}),
    ]


def strength(quick: bool) -> list[Block]:
    """Attacks on the aggregation by their strength, as a share of the aggregate's length; reduced as `validators`."""
    scales = (0.1, 1) if quick else (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
    axes = _reduced(quick)
    attacks = [f"{attack}:scale={scale}" for attack in ("shift_aggregate", "cancelling_shift") for scale in scales]
    return [Block({**axes, **_NOBODY}, {}), Block({**axes, "attack": ["|".join(attacks)], "byzantine": [2]}, {})]


def text(quick: bool) -> list[Block]:
    """A small transformer that predicts characters, under every attack on gradients; 300 steps with batches of 16."""
    from btard.node.adversary.registry import ATTACKS as KNOWN

    known = [entry.name for entry in KNOWN if entry.facts.get("acts_on") == "gradient"]
    axes: Axes = {**_reduced(quick), "task": ["transformer_lm"], "batch_size": [16]}
    chosen = ["sign_flip", "noise"] if quick else known
    return [Block({**axes, **_NOBODY}, {}), Block({**axes, "attack": chosen, "byzantine": [2]}, {})]


def topologies(quick: bool) -> list[Block]:
    """The protocol beside trusted servers, rings, plain all-reduce and ByRDiE, without momentum, under two attacks."""
    axes: Axes = {**_reduced(quick), "momentum": [0.0]}
    attacked: Axes = {"attack": ["sign_flip", "label_flip"], "byzantine": [2]}
    defended: Axes = {"topology": ["butterfly", "parameter_server"], "rule": ["centered_clip"]}
    plain: Axes = {"topology": ["ring", "none", "byrdie"], "rule": ["mean"]}
    return [Block({**axes, **kind, **who}, {}) for kind in (defended, plain) for who in (_NOBODY, attacked)]


TUNING, FINAL = "tuning", "final"
STRENGTHS: Mapping[str, tuple[str, ...]] = {
    "sign_flip": tuple(f"sign_flip:scale={scale}" for scale in (0.5, 1, 10, 1000)),
    "alie": tuple(f"alie:z={z}" for z in (0.5, 1, 1.5, 3)),
    "ipm": tuple(f"ipm:eps={eps}" for eps in (0.1, 0.5, 1.5, 10)),
}
"""Attacks by how strong they are, the weakest first."""


def tuned(quick: bool) -> list[Block]:
    """The first phase of a comparison of rules, each under the strength of each attack that hurts it most: every
    strength once, judged by accuracy on 10,000 training images that are held out. `finals` are the runs that follow.

    Six rules with 2 attackers of 8, by bans on and off, and by IID and Dirichlet data. Reduced: 100 steps with batches
    of 32, attacked from step 20 on. The quick form has two rules, two strengths of one attack, IID data and bans off.
    """
    held_out: Axes = {"task": ["mnist_held_out"], "imports": [str(Path(__file__).with_name("mnist_held_out.py"))]}
    attacks = STRENGTHS["alie"][2:] if quick else list(itertools.chain(*STRENGTHS.values()))
    attacked: Axes = {"attack": attacks, "byzantine": [2]}
    return [Block({**_by_rule(quick), **attacked, **held_out, "seed": [0]}, {"phase": TUNING})]


def finals(quick: bool, tuning: Sequence[tuple[Experiment, float | None]]) -> list[Block]:
    """The second phase of `tuned`: each attack at the strength that left a rule with the least accuracy on the held-out
    images, beside clean runs, on all training images and judged by the test images. Five seeds that the first phase did
    not have; the quick form has two.

    Args:
        quick: the plan's short form.
        tuning: every run of the first phase, and its final accuracy.

    Raises:
        ConfigError: a run of the first phase ended without an accuracy.
    """
    setting: Axes = {**_by_rule(quick), "task": ["mnist_cnn"], "seed": ["1..2" if quick else "1..5"]}
    blocks = [Block({**setting, **_NOBODY}, {"phase": FINAL})]
    for (rule, validators, split, _), attack in strongest(tuning).items():
        at: Axes = {"rule": [rule], "validators": [validators], "split": [split]}
        blocks.append(Block({**setting, **at, "attack": [attack], "byzantine": [2]}, {"phase": FINAL}))
    return blocks


def strongest(tuning: Sequence[tuple[Experiment, float | None]]) -> dict[tuple[str, int, str, str], str]:
    """Of each attack the strength with the least accuracy by rule, validators, split and the attack's name; the weaker
    one of two that do the same.

    Raises:
        ConfigError: a run ended without an accuracy.
    """
    found: dict[tuple[str, int, str, str], tuple[float, str]] = {}
    for made, accuracy in tuning:
        assert made.attack is not None, "every run of the first phase is attacked"
        if accuracy is None:
            raise ConfigError(
                f"plan 'tuned': {made.rule} under {made.attack} ended without an accuracy, so no strength can be "
                "chosen; use another --out"
            )
        key = (made.rule, made.validators, made.split, made.attack.partition(":")[0])
        if key not in found or accuracy < found[key][0]:
            found[key] = (accuracy, made.attack)
    return {key: attack for key, (_, attack) in found.items()}


def _by_rule(quick: bool) -> Axes:
    """What both phases of `tuned` share; where somebody validates, everybody contributes all the same, so that each
    rule sees eight rows at first."""
    rules = ["centered_clip", "median", "trimmed_mean:f=2", "krum:f=2", "cge:f=2", "nnm+trimmed_mean:f=2"]
    return {
        "backend": ["simulated"],
        "peers": [8],
        "tau": [1.0],
        "steps": [100],
        "batch_size": [32],
        "attack_start": [20],
        "eval_every": [20],
        "undo": [0],
        "validators_contribute": ["on"],
        "rule": rules[::5] if quick else rules,
        "validators": [0] if quick else [0, 1],
        "split": ["iid"] if quick else ["iid", "dirichlet:alpha=0.3"],
    }


def heterogeneity(quick: bool) -> list[Block]:
    """Number of attackers by how unlike the peers' data are, for two attacks, all else at its default.

    Simulated. The quick form is a tenth of the steps, with the two outer splits.
    """
    splits = ["iid", "dirichlet:alpha=1", "dirichlet:alpha=0.3", "classes:k=2"]
    axes: dict[str, Sequence[object]] = {
        "attack": ["sign_flip", "alie:z=1.5"],
        "split": splits[::3] if quick else splits,
        "byzantine": [0, 1, 2],
        "attack_start": [3 if quick else 30],
        "steps": [30 if quick else 300],
        "batch_size": [64],
        "backend": ["simulated"],
        "seed": [0] if quick else ["0..2"],
    }
    return [Block(axes, {})]


def _clean(quick: bool) -> Block:
    """What the others are compared to."""
    return Block({**_short(quick), "byzantine": [0]}, {"label": "clean"})


def _reduced(quick: bool) -> Axes:
    """The report's setting for 300 steps with batches of 64, three draws; the quick form has one."""
    return {**_short(True), "backend": ["simulated"], "protocol_seed": REPEATS[:1] if quick else REPEATS}


def _short(quick: bool) -> dict[str, Sequence[object]]:
    """The report's setting; the quick form trains for 300 steps with batches of 64."""
    if not quick:
        return {**REPORT, "seed": ["0..2"]}
    return {**REPORT, "seed": [0], "steps": [300], "batch_size": [64]}


PLANS: dict[str, Callable[[bool], list[Block]]] = {
    "paper": paper, "rules": rules, "starts": starts, "mixed": mixed, "aggregation": aggregation, "sixteen": sixteen,
    "cifar": cifar, "careers": careers, "harm": harm, "contribute": contribute, "heterogeneity": heterogeneity,
    "validators": validators, "windows": windows, "timing": timing, "strength": strength, "text": text,
    "topologies": topologies, "tuned": tuned,
}  # fmt: skip
FOLLOWING: dict[str, Callable[[bool, Sequence[tuple[Experiment, float | None]]], list[Block]]] = {"tuned": finals}
"""What follows from the runs of a plan, each an experiment and its final accuracy."""
FIXED = ("task", "imports", "attack", "byzantine", "role", "seed")
"""Options in which the phases of such a plan differ, so that one value for both would end the comparison."""
