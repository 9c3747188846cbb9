"""The `roles` service: `python -m btard.launcher.containers.roles [deliver]`, once before the nodes start.

It decides who attacks, and puts each node's configuration, with its role, into a volume that no other node mounts.
Without an argument it reads the experiment from `BTARD_*` variables; with `deliver` a launcher hands the whole run over
on standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from btard.launcher import exits
from btard.launcher.containers import bundle, places
from btard.launcher.containers.bundle import Bundle
from btard.node.errors import BtardError, ConfigError

FIRST_ATTACK = "noise"
"""What `docker compose up` shows to whoever has set nothing."""
_FIRST_ATTACKERS = 2
_ATTACK, _ROLE, _BYZANTINE, _PEERS = "BTARD_ATTACK", "BTARD_ROLE", "BTARD_BYZANTINE", "BTARD_PEERS"


def main(arguments: list[str], root: Path = places.ROOT) -> int:
    """Lay the run out; returns the exit code."""
    try:
        if arguments not in ([], ["deliver"]):
            raise ConfigError(f"unknown arguments {' '.join(arguments)!r}; use none, or deliver")
        made = bundle.unpack(sys.stdin.buffer.read()) if arguments else from_environment(os.environ)
        bundle.lay_out(made, root)
    except BtardError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exits.USAGE if isinstance(error, ConfigError) else exits.PREFLIGHT
    attackers = len(made.record.roles)
    print(f"run {made.record.run_id}: {len(made.configs)} nodes, {attackers} of them attackers")  # noqa: T201
    return exits.OK


def from_environment(environment: Mapping[str, str]) -> Bundle:
    """The run that `BTARD_*` variables describe.

    Keys and the peers' randomness are drawn from the system unless `BTARD_PROTOCOL_SEED` is given. An empty variable is
    as good as none, but an empty `BTARD_ATTACK` says that nobody attacks, where without it `FIRST_ATTACK` is shown.

    Raises:
        ConfigError: an option that cannot be run, or another backend.
        BackendError: no such device here, or no space.
    """
    from btard.launcher.options import sources
    from btard.launcher.run import plan, run_directory

    resolved = sources.resolve({}, attacked(environment), None)
    experiment = resolved.experiment
    if experiment.backend == "simulated":  # whose keys would derive from its public seed
        raise ConfigError("BTARD_BACKEND=simulated has no containers; leave it out, or use `btard-launch run`")
    chosen = plan.make(experiment)
    with tempfile.TemporaryDirectory() as scratch:
        experiment = msgspec.structs.replace(experiment, run_dir=f"{scratch}/run")
        made = run_directory.create(
            experiment, chosen.run, chosen.roles, chosen.data_directory, argv=("docker", "compose", "up"),
            sources=resolved.sources, conditions=chosen.conditions,
        )  # fmt: skip
        return bundle.pack(made, monitored=True)


def attacked(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without empty ones, with the first attack where nothing is said of any."""
    made = {name: text for name, text in environment.items() if text.strip() or not name.startswith("BTARD_")}
    if environment.keys().isdisjoint((_ATTACK, _ROLE)):
        from btard.launcher.run.experiment import Experiment
        from btard.launcher.run.roles import majority_limit

        peers = made.get(_PEERS, "")
        most = majority_limit(int(peers) if peers.isdecimal() else Experiment().peers)
        if most > 0:
            made = {_ATTACK: FIRST_ATTACK, _BYZANTINE: str(min(_FIRST_ATTACKERS, most)), **made}
    elif _ATTACK not in made:
        made.pop(_BYZANTINE, None)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
