"""Address records: a peer that starts at another address says so under its key, and others pass it on.

Number 0 is the address that everybody's configuration has, and is never sent. A peer that starts at another address
than before signs the next number (node/storage/own_address.py counts). Whoever dials a peer anew shows it its own
record and those of others that it knows, so two that have both moved find each other by a third.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from btard.node.config import Endpoint
from btard.node.crypto.signing import Signer, verify
from btard.node.protocol.wire.encoding import digest, number
from btard.node.transport.addresses import split
from btard.node.transport.arrivals import RefusedError
from btard.node.transport.framing import AddressRecord


def signing_bytes(record: AddressRecord) -> bytes:
    """What the signature of a record covers: every other field, under a domain of its own."""
    endpoints = (record.control.encode(), record.bulk.encode())
    fields = (record.run, number(record.peer), number(record.counter), *endpoints)
    return b"btard/1/address\x00" + digest("address", *fields)


class AddressBook:
    """The newest address record of each peer that has moved, our own included.

    Args:
        me: our genesis id.
        signing_seed: our secret key.
        signing_keys: the others' public keys by genesis id: at most one record of each is kept.
        run: digest of the run's genesis.
    """

    def __init__(self, me: int, signing_seed: bytes, signing_keys: Mapping[int, bytes], run: bytes) -> None:
        self._me, self._signer, self._keys, self._run = me, Signer(signing_seed), dict(signing_keys), run
        self._records: dict[int, AddressRecord] = {}

    def know(self, peer: int, signing_key: bytes | None) -> None:
        """A newcomer's key, in the place of one that had its id before; None: nobody has the id any more."""
        self._records.pop(peer, None)
        self._keys.pop(peer, None)
        if signing_key is not None:
            self._keys[peer] = signing_key

    def announce(self, counter: int, endpoint: Endpoint) -> None:
        """Our own address and its number; 0 is what all know already."""
        if counter > 0:
            unsigned = AddressRecord(self._run, self._me, counter, endpoint.control, endpoint.bulk, b"")
            signature = self._signer.sign(signing_bytes(unsigned))
            self._records[self._me] = msgspec.structs.replace(unsigned, signature=signature)

    def endpoint(self, peer: int) -> Endpoint | None:
        """Where a peer says that it has moved to; None if it has not."""
        record = self._records.get(peer)
        return None if record is None else record.endpoint

    def for_peer(self, peer: int) -> list[AddressRecord]:
        """What to show a peer: all records but its own, ours first."""
        newest = sorted(self._records.values(), key=lambda record: (record.peer != self._me, record.peer))
        return [record for record in newest if record.peer != peer]

    def learn(self, via: int, record: AddressRecord) -> bool:
        """Take a record that a peer has shown; false if it is no news.

        Raises:
            RefusedError: of another run, of nobody in the roster, no valid endpoint, older than what its own peer has
                shown before, or without a valid signature; with a sentence for people where a mistake may be behind it.
        """
        known = self._records.get(record.peer)
        if record == known:
            return False
        if record.run != self._run:
            raise RefusedError("address_of_another_run", via)
        if record.peer != self._me and record.peer not in self._keys:
            raise RefusedError("address_of_a_stranger", via)
        urls = record.endpoint.urls
        if len(set(urls)) < len(urls) or any(split(url) is None for url in urls):
            named = ", ".join(repr(url[:80]) for url in urls)
            raise RefusedError("address_malformed", via, _NONE.format(via=via, peer=record.peer, urls=named))
        if known is not None and record.counter <= known.counter and via != record.peer:
            return False  # it has not heard the newer one yet
        if not verify(self._signing_key(record.peer), signing_bytes(record), record.signature):
            raise RefusedError("address_forged", via)
        if record.peer == self._me:
            raise RefusedError("address_of_ours_is_older", via, _OURS.format(peer=self._me, number=record.counter))
        if known is not None and record.counter <= known.counter:
            text = _OLDER.format(peer=record.peer, number=record.counter, known=known.counter)
            raise RefusedError("address_older", via, text)
        self._records[record.peer] = record
        return True

    def _signing_key(self, peer: int) -> bytes:
        return self._signer.public if peer == self._me else self._keys[peer]


_NONE = (
    "peer {via} shows an address record of peer {peer} with {urls} in place of one tcp://HOST:PORT or two different "
    "ones; peer {peer} is not dialled there"
)
_OLDER = (
    "peer {peer} shows address record {number} and record {known} is known: it is not dialled there; its directory is "
    "an older copy, start it with the newest one"
)
_OURS = (
    "the others know address record {number} of peer {peer}, which is newer than what our directory says: they do not "
    "dial us here; our directory is an older copy, start with the newest one"
)
