"""A ceremony among peers that one launcher starts: each makes its keys where it works, proposes, assembles, approves.

They meet in a directory that all of them see and may write to, `ID.proposal` and `ID.approval` of each; nothing secret
is in it. It need not be trusted: what lies there is signed, each peer assembles the genesis for itself from the options
that it was started with, and a peer whose own proposal was replaced signs nothing.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import msgspec

from btard.node.config import Endpoint, NodeConfig, RunConfig
from btard.node.crypto import keys
from btard.node.errors import BackendError, ConfigError, TransportError
from btard.node.genesis.approval import APPROVAL_BYTES, Approval, Approvals, approvals_of, decode_approval
from btard.node.genesis.files import read, write
from btard.node.genesis.genesis import Genesis, assemble
from btard.node.genesis.identity import GENESIS, Identity
from btard.node.genesis.proposal import PROPOSAL_BYTES, Proposal, decode_proposal

GIVEN = "given.json"
"""In a peer's directory: keys that follow from a seed, to take in place of fresh ones."""
_LOOK_S = 0.01
SAY_S = 10.0
"""How often a peer without a launcher says for whom it waits."""

Pause = Callable[[float], bool]
"""Waits so many seconds at most; true once the peer is to end."""


class Meeting:
    """Where the peers of a run meet; whoever sees it comes to the same genesis.

    Args:
        place: the directory.
        run, run_id: of the run.
    """

    def __init__(self, place: Path, run: RunConfig, run_id: str) -> None:
        self._place, self._run, self._run_id = place, run, run_id

    def proposal(self, peer: int) -> Proposal | None:
        """A peer's, None before it has proposed.

        Raises:
            ConfigError: what lies there is none, or not signed by its owner.
        """
        data = read(self._proposal(peer), PROPOSAL_BYTES)
        return decode_proposal(data, self._named(peer)) if data is not None else None

    def propose(self, peer: int, proposal: Proposal) -> None:
        """Put down a peer's.

        Raises:
            BackendError: the directory cannot be written.
        """
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BackendError(f"cannot make {self._place}: {error.strerror}; check who owns it") from error
        write(self._proposal(peer), proposal)

    def withdraw(self, peer: int) -> None:
        """Take away what lies there as a peer's: it is about to start with another address."""
        self._proposal(peer).unlink(missing_ok=True)

    @property
    def missing(self) -> frozenset[int]:
        """Peers of whom nothing lies there."""
        return frozenset(peer for peer in range(self._run.peers) if not self._proposal(peer).exists())

    def genesis(self) -> Genesis:
        """What the proposals come to, once none is missing.

        Raises:
            ConfigError: as `proposal`, or two of them propose one key.
        """
        found = {self._named(peer): self.proposal(peer) for peer in range(self._run.peers)}
        return assemble(self._run, {name: each for name, each in found.items() if each}, self._run_id, numbered=True)

    def approve(self, peer: int, approval: Approval) -> None:
        """Put down a peer's approval.

        Raises:
            BackendError: the directory cannot be written.
        """
        write(self._approval(peer), approval)

    def unapproved(self, known: Approvals) -> frozenset[int]:
        """Add the approvals that lie there to those known; returns whose are missing.

        Raises:
            ConfigError: one does not hold; it is named.
        """
        for peer in known.missing:
            path = self._approval(peer)
            if (data := read(path, APPROVAL_BYTES)) is not None:
                known.add(decode_approval(data, str(path)), str(path))
        return known.missing

    def _proposal(self, peer: int) -> Path:
        return self._place / f"{peer}.proposal"

    def _approval(self, peer: int) -> Path:
        return self._place / f"{peer}.approval"

    def _named(self, peer: int) -> str:
        return f"the proposal of peer {peer}, {self._proposal(peer)}"


class Minutes:
    """Writes down what a meeting has come to: genesis.json and approvals.json of a run directory.

    Args:
        meeting: where the peers meet.
        run_dir: the run directory.
    """

    def __init__(self, meeting: Meeting, run_dir: Path) -> None:
        self._meeting, self._run_dir = meeting, run_dir
        self._known: Approvals | None = None
        self._complete = False

    def look(self) -> None:
        """Go on where it left off.

        Raises:
            ConfigError: a proposal or an approval does not hold; it is named.
            BackendError: the run directory cannot be written.
        """
        if self._complete:
            return
        if self._known is None:
            if self._meeting.missing:
                return
            genesis = self._meeting.genesis()
            write(self._run_dir / GENESIS, genesis)
            self._known = approvals_of(genesis, self._run_dir)
        if not self._meeting.unapproved(self._known):
            self._known.keep()
            self._complete = True


def attend(
    config: NodeConfig, held: ExitStack, pause: Pause, within_s: float, say: Callable[[str], None] | None = None
) -> NodeConfig | None:
    """A peer's part, from its keys to its approval; started again it does what is left to do.

    Args:
        config: `ceremony` says where; members and the others' addresses are still to come.
        held: keeps the ports that the system has chosen until they are bound.
        pause: waits.
        within_s: longest wait for the others, in seconds.
        say: gets a line every `SAY_S` seconds: for whom we wait.

    Returns:
        The configuration with members and addresses, once all have approved; None: the peer was told to end meanwhile.

    Raises:
        ConfigError: a proposal is not its owner's, this peer's own was replaced, or it has approved another genesis.
        TransportError: peers did not propose or approve in time, and are named; or a port cannot be had.
        BackendError: a directory cannot be written.
    """
    assert config.ceremony is not None
    directory = Path(config.directory)
    owner, meeting = _identity(config), Meeting(Path(config.ceremony), config.run, config.run_id)
    own = meeting.proposal(config.node)
    if own is None:
        own = owner.propose(config.addresses.get(str(config.node)) or _held(config.listen, held))
        meeting.propose(config.node, own)
    wait = _Wait(config.run.peers, pause, monotonic() + within_s, within_s, say)
    if not wait("proposal", lambda: meeting.missing):
        return None
    genesis = meeting.genesis()
    if genesis.proposals[config.node] != owner.proposal:
        raise ConfigError(
            f"nothing was signed: peer {config.node} has not proposed what lies in {config.ceremony} as its proposal"
        )
    owner.place(genesis, config.ceremony)
    meeting.approve(config.node, owner.approval or owner.approve(genesis, config.ceremony))
    write(directory / GENESIS, genesis)  # of the same digest; addresses may be newer
    known = approvals_of(genesis, directory)
    if not wait("approval", lambda: meeting.unapproved(known)):
        return None
    known.keep()
    chosen = any(url.endswith((":*", ":0")) for url in config.listen.urls)
    return msgspec.structs.replace(
        config,
        members=genesis.members,
        addresses=genesis.endpoints,
        listen=own.address if chosen else config.listen,
        ceremony=None,
    )


@dataclass(frozen=True, slots=True)
class _Wait:
    """One peer's patience with the others."""

    peers: int
    pause: Pause
    end_s: float
    within_s: float
    say: Callable[[str], None] | None

    def __call__(self, what: str, missing: Callable[[], frozenset[int]]) -> bool:
        """Until nobody's is missing; False: the peer was told to end meanwhile."""
        say_s = monotonic() + SAY_S
        while absent := missing():
            if self.pause(_LOOK_S):
                return False
            named = ", ".join(f"peer {peer}" for peer in sorted(absent))
            if self.say is not None and monotonic() > say_s:
                self.say(f"waiting for the {what}s of {len(absent)} of {self.peers}: {named}")
                say_s = monotonic() + SAY_S
            if monotonic() > self.end_s:
                raise TransportError(f"no {what} of {named} within {self.within_s:.0f} s; check that they run")
        return True


def _identity(config: NodeConfig) -> Identity:
    """Whose directory it is: keys are made once."""
    directory, file = Path(config.directory), Path(config.secrets_file)
    if not file.exists():
        given = directory / GIVEN
        keys.write(file, keys.load(given) if given.exists() else keys.fresh())
        given.unlink(missing_ok=True)
    return Identity(directory, keys.load(file))


def _held(listen: Endpoint, held: ExitStack) -> Endpoint:
    """Addresses to bind, with the system's ports in place of those left open; nobody else is given them while held.

    Raises:
        TransportError: there is none to be had.
    """
    return Endpoint(*(_held_port(url, held) for url in listen.urls))


def _held_port(url: str, held: ExitStack) -> str:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    if port not in ("*", "0"):
        return url
    try:
        holder = held.enter_context(socket.socket())
        # Linux lets libzmq, which sets it too, listen where somebody else is bound and does not listen.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        found = int(holder.getsockname()[1])
        if sys.platform != "linux":
            holder.close()
    except OSError as error:
        raise TransportError(f"cannot bind a port at {host}: {error.strerror}; check the address") from error
    return f"tcp://{host}:{found}"
