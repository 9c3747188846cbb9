"""A peer's own directory: its identity, what it has signed before a run, and the run's files.

secrets.json     its keys, mode 600
proposal.json    its newest proposal
genesis.json     the one genesis that it has approved
approval.json    its approval of it
approvals.json   all members' approvals, as they come in
nodes/ID/        journal, evidence, checkpoints and parameters, as in a launcher's run directory
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from btard.node.config import Endpoint, Member, NodeConfig, Secrets
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis.approval import APPROVAL_BYTES, APPROVALS, Approval, approvals_of, approve, decode_approval
from btard.node.genesis.files import read, write
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, decode_genesis
from btard.node.genesis.proposal import PROPOSAL_BYTES, Proposal, decode_proposal, propose

SECRETS, PROPOSAL, GENESIS = "secrets.json", "proposal.json", "genesis.json"
APPROVAL = "approval.json"


def create(directory: Path) -> Member:
    """Make keys from the system's random numbers, and return their public half.

    Raises:
        ConfigError: an identity lies there.
        BackendError: the directory cannot be written.
    """
    path = directory / SECRETS
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{directory} holds an identity; use another directory, its keys are never made anew")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(f"cannot make {directory}: {error.strerror}; use another directory") from error
    secrets = keys.fresh()
    keys.write(path, secrets)
    return keys.public_identity(0, secrets)


@dataclass(frozen=True, slots=True)
class Identity:
    """The owner of a directory.

    Args:
        directory: its own.
        secrets: its keys.
    """

    directory: Path
    secrets: Secrets

    @staticmethod
    def load(directory: Path) -> Identity:
        """The identity in a directory.

        Raises:
            ConfigError: there is none, or its keys are damaged.
        """
        if not (directory / SECRETS).exists():
            raise ConfigError(f"{directory} holds no identity; `btard-node init {directory}` makes one")
        return Identity(directory, keys.load(directory / SECRETS))

    @property
    def public(self) -> Member:
        """The public half of the keys (its id says nothing)."""
        return keys.public_identity(0, self.secrets)

    @property
    def proposal(self) -> Proposal | None:
        """The newest proposal, None before the first.

        Raises:
            ConfigError: its file is damaged.
        """
        data = read(self.directory / PROPOSAL, PROPOSAL_BYTES)
        return decode_proposal(data, str(self.directory / PROPOSAL)) if data is not None else None

    @property
    def approved(self) -> Genesis | None:
        """The genesis that it has approved, None before it has.

        Raises:
            ConfigError: its file is damaged.
        """
        data = read(self.directory / GENESIS, GENESIS_BYTES)
        return decode_genesis(data, str(self.directory / GENESIS)) if data is not None else None

    @property
    def approval(self) -> Approval | None:
        """Its approval, None before it has approved.

        Raises:
            ConfigError: its file is damaged.
        """
        data = read(self.directory / APPROVAL, APPROVAL_BYTES)
        return decode_approval(data, str(self.directory / APPROVAL)) if data is not None else None

    def propose(self, address: Endpoint) -> Proposal:
        """A proposal to be reached at `address`, kept as the newest.

        Raises:
            BackendError: the directory cannot be written.
        """
        proposal = propose(self.secrets, address)
        write(self.directory / PROPOSAL, proposal)
        return proposal

    def place(self, genesis: Genesis, name: str) -> int:
        """Its id in a genesis that may be approved; `name` names the file in a message.

        Raises:
            ConfigError: it is no member, or with other keys; the genesis says of no member where it is; or another
                genesis was approved: the secret coins of two runs with one identity would be the same.
        """
        mine = self.public
        peer = next((member.id for member in genesis.members if member.signing_key == mine.signing_key), None)
        if peer is None:
            raise ConfigError(f"{name} does not name the identity in {self.directory}; was its proposal assembled?")
        if genesis.members[peer].transport_key != mine.transport_key:
            raise ConfigError(f"{name} names peer {peer} with another transport key than that in {self.directory}")
        if not genesis.addresses:
            raise ConfigError(f"{name} says of no peer where it is; `btard-node assemble` makes one that does")
        before = self.approved
        if before is not None and before.digest != genesis.digest:
            raise ConfigError(
                f"the identity in {self.directory} has approved run {before.run_id} (genesis {before.digest[:16]}), "
                f"and {name} is another (genesis {genesis.digest[:16]}); an identity is for one run, make a new one"
            )
        return peer

    def approve(self, genesis: Genesis, name: str) -> Approval:
        """Sign the digest of a genesis, and keep both; errors as for `place`.

        Raises:
            BackendError: the directory cannot be written.
        """
        self.place(genesis, name)
        approval = approve(genesis, self.secrets)
        # The genesis first: it keeps this identity from another one, whatever becomes of the approval.
        write(self.directory / GENESIS, genesis)
        write(self.directory / APPROVAL, approval)
        return approval

    def gather(self, genesis: Genesis, files: tuple[Path, ...]) -> frozenset[int]:
        """Put its own approval and those in `files` to those kept; returns whose are missing.

        Raises:
            ConfigError: it has not approved the genesis itself, or an approval does not hold.
            BackendError: the directory cannot be written.
        """
        own = self.approval
        if own is None:
            raise ConfigError(
                f"{self.directory} has not approved the genesis; `btard-node approve {self.directory} GENESIS` does"
            )
        known = approvals_of(genesis, self.directory)
        known.add(own, str(self.directory / APPROVAL))
        for path in files:
            data = read(path.resolve(), APPROVAL_BYTES)
            if data is None:
                raise ConfigError(f"{path} does not exist; name files that `btard-node approve` printed")
            known.add(decode_approval(data, str(path)), str(path))
        known.keep()
        return known.missing

    def config(self, genesis: Genesis, peer: int, listen: Endpoint, data_directory: Path, **more: object) -> NodeConfig:
        """What its worker needs; `more` are other fields of `NodeConfig`."""
        directory = self.directory.absolute()
        plain = NodeConfig(
            run_id=genesis.run_id,
            node=peer,
            run=genesis.run,
            members=genesis.members,
            secrets_file=str(directory / SECRETS),
            directory=str(directory / "nodes" / str(peer)),
            data_directory=str(data_directory),
            listen=listen,
            addresses=genesis.endpoints,
            checkpoints=True,
            approvals=str(directory / APPROVALS),
        )
        return msgspec.structs.replace(plain, **more)
