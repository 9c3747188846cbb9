"""Sweeps that ship: the report's experiments, its future work, and the heatmaps.

Source: the report, sections 5.1 (experiments A and B), 5.4 (attacks) and 7 (future work).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ATTACKS = ("noise", "label_shuffle", "sign_flip", "label_flip", "constant_direction")
AGGRESSIVE, MILD, CLEAN = "aggressive", "mild", "clean"


@dataclass(frozen=True, slots=True)
class Block:
    """A product of option values, and what its cells are called.

    Args:
        axes: field of `Experiment` to its values, as a sweep file would write them.
        labels: `scheme` (clean, aggressive, mild, ...) and `control` (what differs from the report's setting).
    """

    axes: Mapping[str, Sequence[object]]
    labels: Mapping[str, str]


def paper(quick: bool) -> list[Block]:
    """The report's plan: a baseline and five attacks, aggressive and mild, three seeds, three protocol seeds each.

    `reform` is the report's rule 2; `remove` and the other controls stand beside it. The quick form is one seed of the
    report's own setting: 11 runs.
    """
    schemes: dict[str, dict[str, Sequence[object]]] = {
        AGGRESSIVE: {"attack": ATTACKS, "byzantine": [2], "attack_every": [1]},
        MILD: {"attack": ATTACKS, "byzantine": [1], "attack_every": [5]},
    }
    fixed: dict[str, Sequence[object]] = {"tau": [5.0], "steps": [900], "attack_start": [100], "on_ban": ["reform"]}
    if quick:
        once: dict[str, Sequence[object]] = {**fixed, "seed": [0]}
        return [
            Block({**once, "byzantine": [0]}, {"scheme": CLEAN}),
            *(Block({**once, **axes}, {"scheme": scheme}) for scheme, axes in schemes.items()),
        ]
    seeds: dict[str, Sequence[object]] = {**fixed, "seed": ["0..2"]}
    repeats: dict[str, Sequence[object]] = {**seeds, "protocol_seed": ["101..103"]}
    blocks = [Block({**repeats, "byzantine": [0]}, {"scheme": CLEAN})]
    blocks += [Block({**repeats, **axes}, {"scheme": scheme}) for scheme, axes in schemes.items()]
    blocks += [
        Block({**repeats, **axes, "on_ban": ["remove"]}, {"scheme": scheme, "control": "remove"})
        for scheme, axes in schemes.items()
    ]
    return blocks + _controls(seeds, schemes)


def _controls(
    seeds: Mapping[str, Sequence[object]], schemes: Mapping[str, Mapping[str, Sequence[object]]]
) -> list[Block]:
    """What the report lacks: no defence, clipping alone, other radii; one protocol seed each."""
    blocks = []
    changed: dict[str, dict[str, Sequence[object]]] = {
        "undefended mean": {"rule": ["mean"], "validators": [0]},
        "clipping without bans": {"validators": [0]},
        "tau 1": {"tau": [1.0]},
        "tau 10": {"tau": [10.0]},
    }
    for control, change in changed.items():
        common = {**seeds, **change, "protocol_seed": [101]}
        blocks.append(Block({**common, "byzantine": [0]}, {"scheme": CLEAN, "control": control}))
        blocks += [
            Block({**common, **axes}, {"scheme": scheme, "control": control}) for scheme, axes in schemes.items()
        ]
    return blocks


PLANS: dict[str, Callable[[bool], list[Block]]] = {"paper": paper}
