"""A genesis as its members make it, for tests: identities, proposals and approvals, without processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from btard.node.config import Endpoint, NodeConfig, Plugin, RunConfig, Secrets
from btard.node.crypto import keys
from btard.node.genesis.approval import Approval, approve
from btard.node.genesis.ceremony import attend
from btard.node.genesis.genesis import Genesis, assemble
from btard.node.genesis.proposal import Proposal, propose

NODE = (sys.executable, "-c", "from btard.launcher.cli.node import main; main()")
PEERS = 4
RUN = RunConfig(peers=PEERS, task=Plugin("quadratic"), steps=3, batch_size=4, eval_every=2)


@dataclass(frozen=True, slots=True)
class Ceremony:
    """What four owners have made; secrets are in the order of ids."""

    secrets: tuple[Secrets, ...]
    proposals: dict[str, Proposal]
    genesis: Genesis

    def approvals(self) -> list[Approval]:
        """Everybody's, by id."""
        return [approve(self.genesis, secret) for secret in self.secrets]


def ceremony(seed: int = 0, run: RunConfig = RUN, name: str | None = None) -> Ceremony:
    """A ceremony whose keys follow from a seed."""
    _, secrets = keys.generate(seed, run.peers)
    owners = {f"{number}.proposal": propose(secret, address(number)) for number, secret in enumerate(secrets)}
    genesis = assemble(run, owners, name)
    by_key = {keys.public_identity(0, secret).signing_key: secret for secret in secrets}
    return Ceremony(tuple(by_key[member.signing_key] for member in genesis.members), owners, genesis)


def address(number: int) -> Endpoint:
    """Where the owner of a number is."""
    return Endpoint(f"tcp://host{number}.example:7400", f"tcp://host{number}.example:7401")


def path_of(where: Path, number: int) -> Path:
    """An owner's directory."""
    return where / f"owner{number}"


def met(configs: Sequence[NodeConfig], held: ExitStack | None = None) -> tuple[NodeConfig, ...]:
    """Configurations of peers that one launcher starts, after their ceremony.

    Args:
        configs: of all peers of a run.
        held: keeps the ports that they have chosen; None: they are let go.
    """
    with ExitStack() as stack:
        for config in 2 * tuple(configs):  # it proposes, and is told to end; then it approves, and is told to end
            attend(config, held or stack, lambda _: True, 0.0)
        found = [attend(config, held or stack, lambda _: True, 0.0) for config in configs]
    assert None not in found
    return tuple(config for config in found if config is not None)
