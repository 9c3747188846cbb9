"""`btard-launch collect`: the public files of other peers, for whoever verifies a run, as each of them serves its own.

A peer that is asked may be Byzantine, and nothing in between is authenticated. So all that comes is bounded in size and
time, every name is one of those that are public, a peer's files land in its own folder and nobody else's, and what they
prove is for `verify` to say. A journal goes on where an earlier collection ended; a line that breaks off costs nothing
that has come.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic, time

import msgspec

from btard.launcher.files import as_json, disk_error, write_atomically
from btard.node.config import split_address
from btard.node.errors import BackendError, BtardError, ConfigError, DataError
from btard.node.genesis import identity
from btard.node.genesis.approval import APPROVALS, Approvals
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, decode_genesis, read_genesis
from btard.node.storage.public_files import OF_A_RUN, PublicFile, node_of
from btard.node.storage.records import read_regular, shown

SOURCES = "collected.json"
"""From which address each node's files came."""
_LIST_BYTES = 1 << 20
_HEAD_BYTES = 8192
_RANGE_BYTES = 1 << 20
"""So much is asked for at once: a peer answers a request within seconds or not at all."""
_MOST_FILES = 1024
"""A peer lists up to 1,000 pieces of evidence, and five other files."""
_ATTEMPTS = 3
"""How often one range is asked for that brings nothing."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,15})\r\n", re.IGNORECASE)
_DATE = re.compile(rb"\r\ndate: *([ -~]{1,40})\r\n", re.IGNORECASE)
_SKEW_S = 60.0
"""A clock that is off by more is worth a word: nothing in the protocol reads it, and people read times in journals."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer may cost.

    Args:
        size: bytes of all its files.
        peer_s: longest time for all of them.
        answer_s: longest time for one answer, from the connection to its last byte.
    """

    size: float = 1 << 30
    peer_s: float = 600.0
    answer_s: float = 10.0


def collect(peers: Sequence[str], target: Path, bounds: Bounds, say: Say, clock: Callable[[], float] = time) -> int:
    """Fetch the files of peers into a directory that `verify` reads; returns how many of them failed.

    Args:
        peers: HOST:PORT of each, as `btard-node run --http` serves it.
        target: a new directory, or that of an earlier collection of the same run.
        bounds: for each peer.
        say: gets a line for each peer.
        clock: seconds since the epoch.

    Raises:
        ConfigError: an address is none, or the directory holds something else.
        BackendError: the directory cannot be written.
    """
    for peer in peers:
        split_address(peer)
    if (target / identity.SECRETS).exists():
        raise ConfigError(f"{target} holds an identity; collect into another directory")
    if target.exists() and not (target / SOURCES).exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is no collection; name a new directory")
    failed = 0
    for peer in peers:
        try:
            say(_Collection(target, peer, bounds, clock).fetch())
        except BackendError:
            raise
        except BtardError as error:
            failed += 1
            say(f"{peer}: {error}")
    return failed


class _Collection:
    """One peer's files on their way into a directory."""

    def __init__(self, target: Path, peer: str, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._target, self._peer, self._bounds, self._clock = target, peer, bounds, clock
        self._clock_is = ""
        self._end = monotonic() + bounds.peer_s

    def fetch(self) -> str:
        """All of them; returns what came, in words.

        Raises:
            DataError, ConfigError: what the peer serves is not to be had or not in order.
            BackendError: the directory cannot be written.
        """
        listed = self._listed()
        node, genesis = self._checked(listed)
        sources = self._sources()
        if (other := sources.get(str(node), self._peer)) != self._peer:
            raise DataError(
                f"it says that it is peer {node}, whose files came from {other}; one of them is not, or it has moved: "
                "collect it into another directory"
            )
        self._make(self._target / "nodes" / str(node) / "evidence")
        write_atomically(self._target / SOURCES, as_json({**sources, str(node): self._peer}), option="--into")
        write_atomically(self._target / identity.GENESIS, as_json(genesis), option="--into")
        came, new = 0, 0
        for file in listed:
            if file.name not in OF_A_RUN:
                got = self._file(file)
                came, new = came + got, new + (got > 0)
        self._approvals(listed, genesis)
        told = f"{self._peer}: peer {node} of run {genesis.run_id}, {len(listed)} files, {new} new, {came} bytes"
        return told + self._clock_is

    def _listed(self) -> list[PublicFile]:
        data = self._get("/files", 0, _LIST_BYTES)
        try:
            listed = msgspec.json.decode(data, type=list[PublicFile])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DataError(
                f"its list of files is none ({shown(error)}); does `btard-node run --http` serve there?"
            ) from error
        if len(listed) > _MOST_FILES or len({file.name for file in listed}) < len(listed):
            raise DataError(f"its list has more than {_MOST_FILES} files, or names one twice")
        if any(file.size < 0 for file in listed):
            raise DataError("its list has a file of a negative size")
        if (total := sum(file.size for file in listed)) > self._bounds.size:
            raise DataError(f"its files have {total} bytes; `--limit` sets how many may come")
        return listed

    def _checked(self, listed: Sequence[PublicFile]) -> tuple[int, Genesis]:
        """Whose files they are, and of which run: of one node, and of the run that is collected here."""
        nodes = {node_of(file.name) for file in listed} - {None}
        if len(nodes) != 1:
            raise DataError(f"it has files of {len(nodes)} nodes instead of one")
        (node,) = nodes
        assert node is not None
        data = self._whole(next((file for file in listed if file.name == identity.GENESIS), None), GENESIS_BYTES)
        genesis = decode_genesis(data, f"its {identity.GENESIS}")
        if node >= genesis.run.capacity:
            raise DataError(f"it has files of node {node}, and the run has {genesis.run.capacity} peers")
        if (self._target / identity.GENESIS).exists() and (mine := read_genesis(self._target)).digest != genesis.digest:
            raise DataError(f"it is of run {genesis.run_id}, and {self._target} holds run {mine.run_id}")
        return node, genesis

    def _sources(self) -> dict[str, str]:
        try:
            data = read_regular(self._target, SOURCES, _LIST_BYTES)
            return msgspec.json.decode(data, type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (DataError, msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"{self._target / SOURCES} is damaged ({error}); collect into a new directory") from error

    def _file(self, file: PublicFile) -> int:
        """Bring a node's file up to date; returns how many bytes came. A journal grows, anything else is replaced."""
        path = self._target / file.name
        have = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        if have == file.size:
            return 0
        grows = file.name.endswith("/journal.jsonl")
        if grows and have > file.size:
            raise DataError(f"{file.name} has shrunk from {have} to {file.size} bytes")
        here, at = (path, have) if grows else (path.with_name(f".{path.name}"), 0)
        try:
            with here.open("ab" if grows else "wb") as copy:
                for piece in self._pieces(file, at):
                    copy.write(piece)
            here.replace(path)
        except OSError as error:
            raise disk_error(error, path, "--into") from error
        return file.size - at

    def _whole(self, file: PublicFile | None, limit: int) -> bytes:
        if file is None:
            raise DataError(f"it has no {identity.GENESIS}")
        if file.size > limit:
            raise DataError(f"{file.name} has {file.size} bytes, {limit} at most may come")
        return b"".join(self._pieces(file, 0))

    def _pieces(self, file: PublicFile, at: int) -> Iterator[bytes]:
        """A file from byte `at` on, as its answers bring it; one that brings nothing is asked for again."""
        failures = 0
        while at < file.size:
            piece = self._get(f"/files/{file.name}", at, min(_RANGE_BYTES, file.size - at))
            at, failures = at + len(piece), 0 if piece else failures + 1
            if failures == _ATTEMPTS:
                raise DataError(f"{file.name} breaks off at byte {at} of {file.size}; collect again")
            yield piece

    def _get(self, path: str, first: int, most: int) -> bytes:
        left_s = self._end - monotonic()
        if left_s <= 0:
            raise DataError(f"it took longer than {self._bounds.peer_s:g} s (--timeout); collect again to go on")
        head, body = _get(self._peer, path, first, most, min(self._bounds.answer_s, left_s))
        self._clock_is = _skew(head, self._clock()) or self._clock_is
        return body

    def _approvals(self, listed: Sequence[PublicFile], genesis: Genesis) -> None:
        """Add the approvals that it has to those that are here, if they hold."""
        file = next((file for file in listed if file.name == APPROVALS), None)
        if file is None:
            return
        path, received = self._target / APPROVALS, self._target / f".{APPROVALS}"
        data = self._whole(file, GENESIS_BYTES)
        members = (genesis.run_id, genesis.run, genesis.members)
        known = Approvals(*members, path)
        try:
            write_atomically(received, data, option="--into")
            theirs = Approvals(*members, received)
        finally:
            received.unlink(missing_ok=True)
        for peer, signature in theirs.signatures.items():
            known.take(peer, signature)
        known.keep()

    def _make(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, directory, "--into") from error


def _skew(head: bytes, now_s: float) -> str:
    """What to say of a peer's clock, by the date in its answer; nothing where it is right, or the answer has none."""
    found = _DATE.search(head + b"\r\n")
    try:
        ahead_s = parsedate_to_datetime(found[1].decode()).timestamp() - now_s if found is not None else 0.0
    except (ValueError, OverflowError):
        return ""
    way = "ahead of" if ahead_s > 0 else "behind"
    off = f"; its clock is {abs(ahead_s):.0f} s {way} this machine's, and so are the times in its journal"
    return off if abs(ahead_s) > _SKEW_S else ""


def _get(peer: str, path: str, first: int, most: int, within_s: float) -> tuple[bytes, bytes]:
    """The head of a peer's answer, and up to `most` bytes of what it serves, from byte `first` on: fewer where the line
    broke off.

    Raises:
        DataError: nobody answers, the answer is not one to this request, or too large.
    """
    end = monotonic() + within_s
    wanted = f"Range: bytes={first}-{first + most - 1}\r\n" if path != "/files" else ""
    data = bytearray()
    try:
        with socket.create_connection(split_address(peer), timeout=within_s) as line:
            line.sendall(f"GET {path} HTTP/1.0\r\nHost: {peer}\r\n{wanted}\r\n".encode())
            while len(data) <= most + _HEAD_BYTES and (left_s := end - monotonic()) > 0:
                line.settimeout(left_s)
                if not (more := line.recv(1 << 16)):
                    break
                data += more
    except OSError as error:
        if b"\r\n\r\n" not in data:
            raise DataError(
                f"no answer to {path} ({error.strerror or error}); does `btard-node run --http` serve there?"
            ) from error
    head, between, body = bytes(data).partition(b"\r\n\r\n")
    status, length = _STATUS.match(head), _LENGTH.search(head + b"\r\n")
    if not between or status is None or length is None:
        raise DataError(f"its answer to {path} is no HTTP within {_HEAD_BYTES} bytes and {within_s:g} s")
    if int(status[1]) not in (200, 206):
        raise DataError(f"it answers {path} with status {int(status[1])}")
    if first > 0 and int(status[1]) != 206:
        raise DataError(f"it answers {path} from the start, not from byte {first}")
    if max(len(body), int(length[1])) > most:
        raise DataError(f"its answer to {path} has more than the {most} bytes asked for")
    if path == "/files" and len(body) < int(length[1]):
        raise DataError("its list of files breaks off; collect again")
    return head, body
