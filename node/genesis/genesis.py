"""genesis.json: the public half of a run, whose digest every signature of the run covers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from btard.node.config import LATER_FIELDS, RELEASES, WIRE_VERSION, Endpoint, Member, RunConfig
from btard.node.errors import ConfigError, DataError
from btard.node.genesis.proposal import Proposal
from btard.node.protocol.roster import Roster
from btard.node.protocol.wire.encoding import digest
from btard.node.storage.records import read_regular

GENESIS_FORMAT = 1
GENESIS_BYTES = 16 << 20
_NAME = re.compile("[A-Za-z0-9._-]{1,64}")


class SignedAddress(Endpoint, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a member is reached, with its proposal's signature."""

    signature: str


class Genesis(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All that a third party needs to check a run, and all that a member needs to join it.

    Args:
        format: of the file.
        wire_version: that all members speak.
        run_id: name of the run.
        run: its configuration.
        members: in order of ids.
        addresses: of the members, in that order, each signed by its owner; empty where all are simulated. The digest
            does not cover them: a peer that moves stays the same peer.
    """

    format: int
    wire_version: int
    run_id: str
    run: RunConfig
    members: tuple[Member, ...]
    addresses: tuple[SignedAddress, ...] = ()

    @property
    def digest(self) -> str:
        """What every signature of the run covers, as hex."""
        return genesis_digest(self.run_id, self.run, self.members).hex()

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """The proposals that it was assembled from, in order of ids; none of simulated members."""
        return tuple(
            Proposal(self.wire_version, member.signing_key, member.transport_key, at.control, at.bulk, at.signature)
            for member, at in zip(self.members, self.addresses, strict=False)
        )

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Where the members are reached, by id."""
        return {str(peer): proposal.address for peer, proposal in enumerate(self.proposals)}


def configuration(run: RunConfig) -> bytes:
    """A run's configuration as the genesis covers it: JSON without the fields of `LATER_FIELDS` at their defaults."""
    encode, plain = msgspec.json.Encoder(order="deterministic").encode, RunConfig()
    named = [
        name for name in run.__struct_fields__ if name not in LATER_FIELDS or getattr(run, name) != getattr(plain, name)
    ]
    return b"{" + b",".join(encode(name) + b":" + encode(getattr(run, name)) for name in named) + b"}"


def genesis_digest(run_id: str, run: RunConfig, members: Sequence[Member]) -> bytes:
    """What all peers of a run must agree on before they listen to each other."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    return digest("genesis", run_id.encode(), configuration(run), encode(list(members)), str(WIRE_VERSION).encode())


def genesis_roster(members: Sequence[Member], most: int = 0) -> Roster:
    """The roster of a run's start.

    Args:
        members: the founders.
        most: members that there may ever be; 0: no more than these.
    """
    return Roster.genesis((bytes.fromhex(member.signing_key) for member in members), most)


def assemble(
    run: RunConfig, proposals: Mapping[str, Proposal], name: str | None = None, numbered: bool = False
) -> Genesis:
    """The genesis of a run among the owners of proposals, the same whoever assembles it: ids follow the signing keys.

    Args:
        run: its configuration.
        proposals: by the name of their file; their signatures have been checked.
        name: of the run; None: from the digest of configuration and members.
        numbered: ids follow the order of the proposals instead: a launcher's options name peers by their ids.

    Raises:
        ConfigError: another number of proposals than of peers, two with one key, or a name that is none.
    """
    if len(proposals) != run.peers:
        raise ConfigError(
            f"{len(proposals)} proposals for a run of {run.peers} peers; name every peer's, or set peers = "
            f"{len(proposals)} in the run's file"
        )
    owners: dict[str, str] = {}
    for file, proposal in proposals.items():
        for key in (proposal.signing_key, proposal.transport_key):
            if (other := owners.setdefault(key, file)) != file:
                raise ConfigError(f"{other} and {file} propose one key; every peer makes its own by `btard-node init`")
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r} must be up to 64 letters, digits, dots, hyphens and underscores")
    in_order = list(proposals.values())
    if not numbered:
        in_order.sort(key=lambda proposal: proposal.signing_key)
    members = tuple(Member(peer, each.signing_key, each.transport_key) for peer, each in enumerate(in_order))
    addresses = tuple(SignedAddress(each.control, each.bulk, signature=each.signature) for each in in_order)
    run_id = name or genesis_digest("", run, members).hex()[:16]
    return Genesis(GENESIS_FORMAT, WIRE_VERSION, run_id, run, members, addresses)


def decode_genesis(data: bytes, name: str) -> Genesis:
    """Read a genesis and check that it is one: members are the run's peers, each with an address signed by itself if
    there are addresses.

    Args:
        data: JSON.
        name: of the file, for messages.

    Raises:
        ConfigError: it is damaged, of another version, or an address is not its owner's.
    """
    try:
        genesis = msgspec.json.decode(data, type=Genesis)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is damaged: {error}") from error
    if (genesis.format, genesis.wire_version) != (GENESIS_FORMAT, WIRE_VERSION):
        known = RELEASES.get(genesis.wire_version)
        maker = "the release that made it" if known is None else f"btard {known}"
        raise ConfigError(
            f"{name} has format {genesis.format} and was written by wire version {genesis.wire_version}, this program "
            f"reads {GENESIS_FORMAT} and speaks {WIRE_VERSION}; use {maker}"
        )
    if [member.id for member in genesis.members] != list(range(genesis.run.peers)):
        raise ConfigError(f"{name} is damaged: its members are not the peers 0 to {genesis.run.peers - 1}")
    try:
        found = genesis_roster(genesis.members).keys
    except ValueError:
        found = ()
    if {len(key) for key in found} != {32}:
        raise ConfigError(f"{name} is damaged: a member's signing key is not 32 bytes of hex")
    if len(set(found)) < len(found):
        raise ConfigError(f"{name} is damaged: two members have one signing key")
    if genesis.addresses:
        _check_addresses(genesis, name)
    return genesis


def _check_addresses(genesis: Genesis, name: str) -> None:
    if len(genesis.addresses) != len(genesis.members):
        raise ConfigError(f"{name} has {len(genesis.addresses)} addresses for {len(genesis.members)} members")
    for peer, proposal in enumerate(genesis.proposals):
        if problem := proposal.problem():
            raise ConfigError(f"{name}: peer {peer}: {problem}")
    if len({member.transport_key for member in genesis.members}) < len(genesis.members):
        raise ConfigError(f"{name}: two members have one transport key; every peer makes its own")


def read_genesis(run_dir: Path) -> Genesis:
    """The public half of a run.

    Raises:
        ConfigError: it is missing, damaged or of another version.
    """
    path = run_dir / "genesis.json"
    try:
        return decode_genesis(read_regular(run_dir, path.name, GENESIS_BYTES), str(path))
    except (OSError, DataError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{run_dir} is not a run directory: {path.name} cannot be read ({problem}); name one below runs/"
        ) from error
