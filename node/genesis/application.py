"""An application to a run that goes on: a key asks for a free id; where the roster is sponsored, a founder vouches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import structs

from btard.node.config import Endpoint, Secrets
from btard.node.crypto.keys import public_identity
from btard.node.crypto.signing import Signer, verify
from btard.node.errors import ConfigError
from btard.node.genesis.files import read
from btard.node.genesis.genesis import Genesis, genesis_roster
from btard.node.genesis.proposal import are_addresses, is_transport_key
from btard.node.protocol.wire.encoding import application_bytes, sponsorship_bytes
from btard.node.protocol.wire.messages import TRIES, Application

APPLICATION_FILE_BYTES = 2000
"""Largest application as a file."""
SUFFIX = ".application"
"""Of files in a member's directory of them."""
_MOST_TAKEN = 1000
_KEY, _SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")

REFUSALS = {
    "closed_roster": "the roster is closed; a genesis with roster = sponsored or open lets newcomers in",
    "malformed": "it is no application of this release; make it again by `btard-node apply`",
    "known_key": "its key, or its transport key, is a member's or a newcomer's; `btard-node init` makes another one",
    "barred_key": f"its key is out: it was wrong on probation, or this is not a new one of {TRIES} applications; make "
    "another by `btard-node apply`, or another identity by `btard-node init`",
    "full": "every id that the genesis has is taken; nobody else can join this run",
    "taken_id": "its id is another's; ask for a free one by `btard-node apply --id`",
    "no_sponsor": "an active founder has to sign for it where the roster is sponsored, and nobody where it is open; "
    "`btard-node sponsor` signs",
    "spent_sponsor": "its sponsor has signed for another key already, and may once a run; ask another founder",
    "bad_signature": "a signature is not valid in this run; make it again by `btard-node apply`, from this genesis",
    "too_many_applications": "too many wait here; hand it to another member",
}
"""Why an application lets nobody in, for people: the reason, and what to do."""


def vouched(run: bytes, founder: int, secret: Secrets, application: Application) -> Application:
    """An application with a founder's word for its key.

    Args:
        run: digest of the genesis.
        founder: whose word it is.
        secret: the founder's.
        application: of the candidate.
    """
    signer = Signer(bytes.fromhex(secret.signing_seed))
    signature = signer.sign(sponsorship_bytes(run, application.key, application.transport))
    return structs.replace(application, sponsor=founder, sponsorship=signature)


def apply(run: bytes, peer: int, secret: Secrets, address: Endpoint, number: int = 0) -> Application:
    """The application of whoever holds `secret`; nobody vouches for it yet.

    Args:
        run: digest of the genesis.
        peer: the free id that it asks for.
        secret: the candidate's.
        address: where it is reached.
        number: how often this key has applied before.
    """
    member = public_identity(peer, secret)
    key, (control, bulk) = bytes.fromhex(member.signing_key), (address.control, address.bulk)
    unsigned = Application(peer, number, key, member.transport_key, control, bulk, None, b"", b"")
    signature = Signer(bytes.fromhex(secret.signing_seed)).sign(application_bytes(run, unsigned))
    return structs.replace(unsigned, signature=signature)


# --- as a file ------------------------------------------------------------------------------------------------


class ApplicationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An application as people pass it on, in JSON; keys, digests and signatures in hex, the transport key in Z85."""

    genesis: str
    peer: int
    number: int
    signing_key: str
    transport_key: str
    control: str
    bulk: str
    sponsor: int | None
    sponsorship: str
    signature: str

    @staticmethod
    def of(genesis: str, application: Application) -> ApplicationFile:
        """As a file of a run; `genesis` is its digest."""
        return ApplicationFile(
            genesis=genesis,
            peer=application.peer,
            number=application.number,
            signing_key=application.key.hex(),
            transport_key=application.transport,
            control=application.control,
            bulk=application.bulk,
            sponsor=application.sponsor,
            sponsorship=application.sponsorship.hex(),
            signature=application.signature.hex(),
        )

    @property
    def application(self) -> Application:
        """What it holds."""
        key, vouched, signature = map(bytes.fromhex, (self.signing_key, self.sponsorship, self.signature))
        return Application(self.peer, self.number, key, self.transport_key, self.control, self.bulk, self.sponsor,
                           vouched, signature)  # fmt: skip


def decode_application(data: bytes, name: str) -> ApplicationFile:
    """Read an application; `name` names its file in a message.

    Raises:
        ConfigError: it is none.
    """
    try:
        if len(data) > APPLICATION_FILE_BYTES:
            raise ValueError(f"it has more than {APPLICATION_FILE_BYTES} bytes")
        found = msgspec.json.decode(data, type=ApplicationFile)
        fits = _KEY.fullmatch(found.signing_key) and _SIGNATURE.fullmatch(found.signature)
        if not fits or (found.sponsorship and not _SIGNATURE.fullmatch(found.sponsorship)):
            raise ValueError("a key or a signature is no lower-case hexadecimal of its length")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no application ({error}); `btard-node apply` makes one") from error
    if not is_reachable(found.transport_key, Endpoint(found.control, found.bulk)):
        raise ConfigError(f"{name} is no application: its transport key or its addresses are none; apply again")
    return found


def is_reachable(transport_key: str, address: Endpoint) -> bool:
    """True for a CURVE key and two addresses that a line can be opened to: nobody has checked a newcomer's."""
    return is_transport_key(transport_key) and are_addresses(address.urls)


def check(file: ApplicationFile, genesis: Genesis, name: str) -> None:
    """What a genesis alone says against an application, but for a sponsor that is still to come.

    Raises:
        ConfigError: what is wrong, and the next command.
    """
    if file.genesis != genesis.digest:
        raise ConfigError(
            f"{name} is for the run of genesis {file.genesis[:16]}, this one is {genesis.digest[:16]}; apply to this "
            "one by `btard-node apply`"
        )
    if (reason := _refused(file, genesis)) is not None:
        raise ConfigError(f"{name}: {REFUSALS[reason]}")


def _refused(file: ApplicationFile, genesis: Genesis) -> str | None:
    run, digest, application = genesis.run, bytes.fromhex(genesis.digest), file.application
    keys = genesis_roster(genesis.members).keys
    transports = {member.transport_key for member in genesis.members}
    if run.roster == "closed":
        return "closed_roster"
    if application.key in keys or application.transport in transports:
        return "known_key"
    if not run.peers <= application.peer < run.members:
        return "taken_id"
    if not 0 <= application.number < TRIES:
        return "barred_key"
    if application.sponsor is not None:
        if run.roster == "open" or not 0 <= application.sponsor < run.peers:
            return "no_sponsor"
        said = sponsorship_bytes(digest, application.key, application.transport)
        if not verify(keys[application.sponsor], said, application.sponsorship):
            return "bad_signature"
    signed = application_bytes(digest, application)
    return None if verify(application.key, signed, application.signature) else "bad_signature"


class Waiting:
    """The applications that lie in a directory, each taken once.

    Args:
        directory: that an owner puts them into.
        genesis: digest of the run's, in hex.
    """

    def __init__(self, directory: Path, genesis: str) -> None:
        self._directory, self._genesis = directory, genesis
        self._taken: set[tuple[str, int]] = set()

    def look(self) -> Iterator[tuple[str, Application | str]]:
        """(name, application or what is wrong with it) of those that are new here."""
        try:
            with os.scandir(self._directory) as entries:
                found = sorted((each.name, each.stat().st_mtime_ns) for each in entries if each.name.endswith(SUFFIX))
        except OSError:  # nobody has left any
            return
        for name, changed in found:
            if (name, changed) not in self._taken and len(self._taken) < _MOST_TAKEN:
                self._taken.add((name, changed))
                yield name, self._read(name)

    def _read(self, name: str) -> Application | str:
        try:
            data = read(self._directory / name, APPLICATION_FILE_BYTES)
            file = decode_application(data or b"", name)
        except ConfigError as error:
            return str(error)
        return file.application if file.genesis == self._genesis else f"{name} is for another run"
