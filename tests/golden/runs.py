"""The golden runs by name: twenty of the random composer's, and whole ones through the launcher."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import msgspec

from btard import Experiment, run
from tests.golden.told import Cells, Telling, played
from tests.simulation.composer import compose

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 15, 16, 19, 24, 29, 30, 34, 36, 39)
"""Of composition 2: undo, minds, strangers, restarts, slow gradients and two returns are among them."""

_SIMULATED = Experiment(
    backend="simulated", task="quadratic:dimension=24", device="cpu", batch_size=2, steps=14, eval_every=7, seed=3,
    undo=0, delivery_bound=0.5, gradient_bound=1.0,
)  # fmt: skip
_ATTACKED = {"attack": "noise", "byzantine": 2, "attack_start": 2}
_MNIST = {"task": "mnist_cnn", "batch_size": 16, "steps": 6, "eval_every": 6}


def _seed(seed: int) -> Cells:
    return played(compose(seed, 2))


def _launched(experiment: Experiment, scenario: str = "") -> Cells:
    """A run through the launcher, as a user starts it; what is compared is what it left in its directory."""
    with tempfile.TemporaryDirectory() as where, _fixed_name():
        events = Path(where) / "events.scn"
        events.write_text(scenario, encoding="utf-8")
        done = run(
            msgspec.structs.replace(
                experiment, run_dir=f"{where}/run", download=False, scenario=str(events) if scenario else None
            ),
            quiet=True,
        )
        summary = done.summary
        assert (summary.outcome, summary.problem, summary.honest_banned) == ("finished", None, 0)
        telling = Telling()
        timed = experiment.backend != "simulated"
        # Attackers of a real run stop where the honest ones end: how far they come hangs on the machine.
        unsure = set(summary.byzantine) if timed else set()
        telling.directory(done.run_dir, [peer for peer in range(experiment.peers) if peer not in unsure], timed)
        return telling.cells()


@contextmanager
def _fixed_name() -> Iterator[None]:
    """A run's name is part of everything that is signed in it, and made of the time and of chance: here, of neither."""
    with (
        patch.object(time, "strftime", lambda *_: "golden"),
        patch.object(secrets, "token_hex", lambda bytes_: "0" * 2 * bytes_),
    ):
        yield


def _with(**options: object) -> Experiment:
    return msgspec.structs.replace(_SIMULATED, **options)


RUNS: Mapping[str, Callable[[], Cells]] = {
    **{f"seed {seed}": partial(_seed, seed) for seed in SEEDS},
    "main job": partial(_launched, _with(**_ATTACKED, **_MNIST)),
    "main job, quadratic": partial(_launched, _with(**_ATTACKED)),
    "undo": partial(_launched, _with(**{**_ATTACKED, "attack": "sign_flip"}, undo=8)),
    "rejoin": partial(_launched, _with(probation=2), "at step 3 kill 5\nat step 6 restart 5\n"),
    "resume": partial(
        _launched, _with(**_ATTACKED), "at step 5 kill 0,1,2,3\nat 8s restart 0,1,2,3\n"
    ),
    "sockets": partial(
        _launched,
        _with(**_ATTACKED, backend="local", protocol_seed=2, delivery_bound=None, gradient_bound=60.0, timeout=120.0),
    ),
}  # fmt: skip
"""Each run is a function of nothing: its seeds are fixed. `resume`: everybody honest is killed at once, and goes on
from what is on its disk. `sockets`: six real processes, keys and randomness from a fixed seed."""

MNIST = frozenset({"main job"})
"""Need the real images."""

QUICK = (*(f"seed {seed}" for seed in SEEDS if seed != 24), "undo", "rejoin", "resume")
"""What the tests always play."""
