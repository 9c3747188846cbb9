"""A peer's own directory: its identity, what it has signed before a run, and the run's files.

secrets.json     its keys, mode 600
proposal.json    its newest proposal
genesis.json     the one genesis that it has approved
approval.json    its approval of it
approvals.json   all members' approvals, as they come in
application.json a newcomer's own application, in the place of approval and approvals
applications/    others' applications, for this member to introduce
nodes/ID/        journal, evidence, checkpoints and parameters, as in a launcher's run directory
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from btard.node.config import Endpoint, Member, NodeConfig, Secrets
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis.application import (
    APPLICATION_FILE_BYTES,
    REFUSALS,
    SUFFIX,
    ApplicationFile,
    apply,
    check,
    decode_application,
    vouched,
)
from btard.node.genesis.approval import APPROVAL_BYTES, APPROVALS, Approval, approvals_of, approve, decode_approval
from btard.node.genesis.files import read, write
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, decode_genesis
from btard.node.genesis.proposal import PROPOSAL_BYTES, Proposal, decode_proposal, propose

SECRETS, PROPOSAL, GENESIS = "secrets.json", "proposal.json", "genesis.json"
APPROVAL, APPLICATION, APPLICATIONS = "approval.json", "application.json", "applications"


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
        self._of_one_run(genesis, name)
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

    # --- newcomers ------------------------------------------------------------------------------------------------

    @property
    def application(self) -> ApplicationFile | None:
        """Its own application, None before it has applied.

        Raises:
            ConfigError: its file is damaged.
        """
        path = self.directory / APPLICATION
        data = read(path, APPLICATION_FILE_BYTES)
        return decode_application(data, str(path)) if data is not None else None

    def apply(self, genesis: Genesis, name: str, address: Endpoint, peer: int | None, again: bool) -> ApplicationFile:
        """Apply to a run that goes on, and keep both.

        Args:
            genesis: of the run; `name` names its file in a message.
            address: where it is reached.
            peer: the free id that it asks for; None: one that follows from its key.
            again: its probation has lapsed, and this is to count as another application.

        Raises:
            ConfigError: the roster is closed, this identity is a founder or of another run, or has applied too often.
            BackendError: the directory cannot be written.
        """
        before, mine = self.application, self.public
        self._of_one_run(genesis, name)
        wanted = peer
        if wanted is None and before is not None and before.genesis == genesis.digest:
            wanted = before.peer
        if wanted is None:
            room = max(genesis.run.members - genesis.run.peers, 1)
            wanted = genesis.run.peers + int(mine.signing_key, 16) % room
        number = 0 if before is None or before.genesis != genesis.digest else before.number + again
        made = ApplicationFile.of(
            genesis.digest, apply(bytes.fromhex(genesis.digest), wanted, self.secrets, address, number)
        )
        check(made, genesis, f"{self.directory}: this application")
        write(self.directory / GENESIS, genesis)
        write(self.directory / APPLICATION, made)
        return made

    def sponsor(self, file: ApplicationFile, name: str) -> ApplicationFile:
        """Take an application for this member's worker to introduce; where the roster is sponsored and nobody has yet,
        vouch for its key.

        Raises:
            ConfigError: it would let nobody in, by what the genesis and this directory say; or this identity is of no
                run, or no founder, or has vouched for another key.
            BackendError: the directory cannot be written.
        """
        genesis = self.approved
        if genesis is None:
            raise ConfigError(f"{self.directory} is of no run; a member's directory holds the genesis that it approved")
        check(file, genesis, name)
        folder, application = self.directory / APPLICATIONS, file.application
        if genesis.run.roster == "sponsored" and application.sponsor is None:
            mine = self.public.signing_key
            founder = next((each.id for each in genesis.members if each.signing_key == mine), None)
            if founder is None:
                raise ConfigError(f"{name}: {REFUSALS['no_sponsor']}; {self.directory} is no founder's")
            other = next((key for key in self._vouched_for(founder) if key != file.signing_key), None)
            if other is not None:
                raise ConfigError(f"{self.directory} has signed for key {other[:16]}; {REFUSALS['spent_sponsor']}")
            application = vouched(bytes.fromhex(genesis.digest), founder, self.secrets, application)
        taken = ApplicationFile.of(genesis.digest, application)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BackendError(f"cannot make {folder}: {error.strerror}; check who owns it") from error
        write(folder / f"{file.signing_key[:16]}-{file.number}{SUFFIX}", taken)
        return taken

    def _vouched_for(self, founder: int) -> Iterator[str]:
        """Keys for which this founder's word lies in its directory."""
        folder = self.directory / APPLICATIONS
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            data = read(path, APPLICATION_FILE_BYTES)
            file = decode_application(data or b"", str(path))
            if file.sponsor == founder:
                yield file.signing_key

    def address(self, genesis: Genesis, peer: int) -> Endpoint:
        """Where it has said that it is reached, as founder or as newcomer."""
        made = self.application
        return Endpoint(made.control, made.bulk) if made is not None else genesis.proposals[peer].address

    def newcomer(self, genesis: Genesis, name: str) -> int | None:
        """The id that it has applied for in this run; None: it is a founder.

        Raises:
            ConfigError: it is of another run.
        """
        made = self.application
        if made is None:
            return None
        self._of_one_run(genesis, name)
        if made.genesis != genesis.digest:
            raise ConfigError(f"{self.directory} has applied to genesis {made.genesis[:16]}, and {name} is another")
        return made.peer

    def _of_one_run(self, genesis: Genesis, name: str) -> None:
        before = self.approved
        if before is not None and before.digest != genesis.digest:
            raise ConfigError(
                f"the identity in {self.directory} has approved run {before.run_id} (genesis {before.digest[:16]}), "
                f"and {name} is another (genesis {genesis.digest[:16]}); an identity is for one run, make a new one"
            )

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
            applications=str(directory / APPLICATIONS) if genesis.run.roster != "closed" else None,
            approvals=str(directory / APPROVALS),
        )
        return msgspec.structs.replace(plain, **more)
