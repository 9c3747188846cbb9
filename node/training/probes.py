"""What a run's computations give here on fixed inputs, as digests: equal ones are what "computes the same" means.

A name of a processor says too much (two of them may have the same kernels) and too little (a library chooses by more).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from blake3 import blake3
from torch import Tensor

from btard.node.protocol.rule import Rule
from btard.node.protocol.settings import Optimiser
from btard.node.training.sampling import XI_BYTES, generator_from
from btard.node.training.task import Resizable, Task, lay_out

Probes: TypeAlias = tuple[tuple[str, str], ...]
"""(what was computed, digest of its bits) pairs."""

BATCHES = (2, 7)
"""Sizes of the small batches: pairs for batch norm; 7 leaves a remainder in vectors of every width."""
_OWN = 10**7
"""Parameters times examples up to which a gradient of the run's own batch is probed too: its kernels are those used."""
_LARGE = 10**6
"""Parameters from which on a second small batch costs more than it tells."""
LAYOUT = lay_out((("matrix", (17, 30)), ("bias", (5,))))
"""Of the vector that the update is tried out on, `[515]`."""
_ROW = 509
"""Entries of the rule's rows: a part of the main job has 3,640."""


def of_gradient(task: Task, seed: int, batch_size: int) -> Probes:
    """Gradients of a task at its initial parameters, on small batches and, where that is cheap, on one of the run's.

    Args:
        task: what a run trains; one that cannot take other batches than its own is probed with one of these.
        seed: of the initial parameters.
        batch_size: of the run.
    """
    small = BATCHES if task.dimension <= _LARGE else BATCHES[:1]
    tasks: dict[int, Task] = {
        size: task.resized(size) for size in small if size < batch_size and isinstance(task, Resizable)
    }
    if not tasks or task.dimension * batch_size <= _OWN:
        tasks[batch_size] = task
    initial_D = task.initial(seed)
    found = [(f"the initial parameters of {task.name}", digest(initial_D))]
    for turn, (size, probed) in enumerate(tasks.items(), 1):
        gradient_D, loss = probed.gradient(initial_D, f"probe {turn}".encode().ljust(XI_BYTES))
        name = f"gradient of {task.name}, probe {turn} (batch of {size})"
        found.append((name, digest(gradient_D, torch.tensor(loss, dtype=torch.float64))))
    return tuple(found)


def of_update(name: str, optimiser: Optimiser, steps: int) -> Probes:
    """Two updates of a small vector, at the first step's rate and at a later one's.

    Args:
        name: what a user types.
        optimiser: made for `LAYOUT`.
        steps: of the run, by which a schedule goes.
    """
    values_D = _exact("parameters", LAYOUT[-1].stop)
    state_D = optimiser.initial_state(LAYOUT[-1].stop)
    for step in (0, steps // 3):
        values_D, state_D = optimiser.apply(values_D, state_D, [_exact(f"update {step}", LAYOUT[-1].stop)], step)
    return ((f"the update of {name}", digest(values_D, state_D)),)


def of_rule(name: str, rule: Rule, rows: int, radius: float) -> Probes:
    """The aggregate of fixed rows.

    Args:
        name: what a user types.
        rule: the run's.
        rows: as many as there are peers.
        radius: at which a rule clips that does.
    """
    rows_NP = torch.stack([_exact(f"row {row}", _ROW) for row in range(rows)])
    return ((f"the aggregate of {name}", digest(rule.aggregate(rows_NP, radius).value_P)),)


def of_library(device: str) -> Probes:
    """A matrix product and functions by the library: what no version names, such as a library's own switches."""
    matrix = _exact("matrix", 96 * 513).view(96, 513).to(device)
    return (("matrix products and exp", digest(matrix @ matrix.t(), matrix.log_softmax(dim=0), matrix.exp())),)


def digest(*results: Tensor) -> str:
    """The bits of results as 16 hexadecimal digits."""
    return blake3(b"".join(each.detach().cpu().numpy().tobytes() for each in results)).hexdigest(length=8)


def _exact(purpose: str, count: int) -> Tensor:
    """Fixed numbers in [-1/2, 1/2): whole numbers, scaled by a power of two, so of the same bits everywhere."""
    drawn = torch.randint(-(2**15), 2**15, (count,), generator=generator_from(b"probe", purpose))
    return drawn.float().mul_(2.0**-16)
