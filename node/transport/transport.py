"""The bytes between real peers: CURVE-authenticated control messages and a second channel for tensors.

What a peer sends above its credits is dropped unread (node/transport/flow_control.py). A multi-part message that never
ends is outside all limits of libzmq; node/transport/slow_sender_guard.py closes its connection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import zmq
from torch import Tensor

from btard.node.config import Endpoint, Member, Secrets
from btard.node.errors import LocalProtocolError, TransportError, WireError
from btard.node.genesis.application import is_reachable
from btard.node.genesis.approval import Approvals
from btard.node.protocol.api import BulkKey
from btard.node.protocol.wire.precision import FLOAT32
from btard.node.transport import framing
from btard.node.transport.address_records import AddressBook
from btard.node.transport.addresses import Resolver, host_names
from btard.node.transport.arrivals import AcceptBulk, Arrival, BulkArrival, ControlArrival, RefusedError, accept_any
from btard.node.transport.bulk_tokens import BulkTokens, News
from btard.node.transport.channels import both_bounds, bulk_bounds, control_bounds, guard_of
from btard.node.transport.connection_monitor import ConnectionMonitor
from btard.node.transport.counters import Counters
from btard.node.transport.flow_control import Credits, FlowControl
from btard.node.transport.rtt_probes import RttProbes
from btard.node.transport.sockets import (
    Context,
    Dialler,
    Identity,
    Listener,
    ZapAuthenticator,
    descriptor,
)

Take: TypeAlias = "Callable[[Listener, list[zmq.Frame]], Arrival | None]"
"""What becomes of a message that has come in at a port; raises RefusedError."""


class Transport:
    """All sockets of one node, served by one thread: whoever calls `poll`.

    Args:
        me: our genesis id.
        secrets: our secret keys.
        members: the genesis roster; only its keys are let in.
        listen: what to bind, one port or two; port `*` lets the system choose.
        encrypt_bulk: CURVE on tensors too; without it their sender is known by a token only, and an eavesdropper
            can read both. (What is accepted is bound by a signed digest either way.) At a peer's only port, ours or
            another's, they are encrypted in any case.
        limits: bounds on sizes and queues.
        credits: what each peer may send us; without them there is no limit (tools, tests).
        run_id: peers of another run are not listened to.
        run: digest of the run's genesis, which address records name.
        places: newcomers that may come.
        accept_bulk: asked (sender, key, bytes) before a tensor is kept; may be replaced at any time.
        resolver: of host names; closed with the transport.

    `approvals` of a run that begins with them are set before `connect`: each greeting is followed by those that we
    have, and all are passed on once the last one is here, so a peer that begins has shown everybody why.

    Raises:
        TransportError: an endpoint cannot be bound, or the secrets do not belong to `me`.
    """

    def __init__(
        self,
        me: int,
        secrets: Secrets,
        members: Sequence[Member],
        listen: Endpoint,
        encrypt_bulk: bool = False,
        limits: framing.Limits | None = None,
        credits: Credits | None = None,
        *,
        run_id: str,
        run: bytes = b"",
        places: int = 0,
        accept_bulk: AcceptBulk = accept_any,
        resolver: Resolver | None = None,
    ) -> None:
        self.me, self.limits, self.accept_bulk = me, limits or framing.Limits(), accept_bulk
        self.complain: Callable[[str], None] = lambda line: None
        """Told what people should know of an address record, one line for each peer; may be replaced at any time."""
        self.precision = FLOAT32
        """What entries of parts and aggregates travel as; a run that agrees on another sets it before `connect`."""
        self.counters, self.refusals, self.round_trips = Counters(), dict[int, str](), RttProbes()
        self._run_id, self._places = run_id, places
        self.approvals: Approvals | None = None
        self._watched: ConnectionMonitor | None = None
        self._keys = {member.id: member.transport_key.encode() for member in members}
        secret_key = secrets.transport_secret.encode()
        self._identity = Identity(zmq.curve_public(secret_key), secret_key)
        if self._keys.pop(me, None) != self._identity.public:
            raise TransportError(f"the secrets given are not those of peer {me}; check secrets_file of node {me}")
        self._tokens = BulkTokens(self._keys)
        signing_keys = {member.id: bytes.fromhex(member.signing_key) for member in members if member.id in self._keys}
        self._book = AddressBook(me, bytes.fromhex(secrets.signing_seed), signing_keys, run)
        self._complained: set[int] = set()
        self._sought: dict[int, Endpoint] = {}
        self._reached: set[int] = set()
        self._newcomers: dict[int, Member] = {}
        self.applies = False
        """We are a newcomer: nobody lets us in before a REPORT has introduced us, and our first lines lead nowhere."""
        self._unresolved: dict[int, str] = {}
        self._control_quota = FlowControl(credits.control if credits is not None else None, self._keys)
        self._bulk_quota = FlowControl(credits.bulk if credits is not None else None, self._keys)
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._resolver = resolver or Resolver()
        self._poller.register(self._resolver.descriptor, zmq.POLLIN)
        try:
            self._listen(listen, encrypt_bulk)
        except BaseException:
            self._context.destroy(linger=0)
            self._resolver.close()
            raise

    # --- set-up and end ---------------------------------------------------------------------------------------

    def connect(self, addresses: Mapping[int, Endpoint], moves: int = 0) -> None:
        """Open lines to the peers of `addresses` (ourselves excepted) and greet them; messages wait until they answer.

        A peer whose address changed gets a new line; what still waited on the old one is lost with it. One that is
        known by name is looked up beside the loop, and `greeted` once a probe has been answered at what was found.

        Args:
            addresses: where the peers listen, and how we are reached ourselves.
            moves: how often our own address has changed; all peers are shown a signed record if it has.

        Raises:
            TransportError: an id outside the roster, or an address that is none.
        """
        if self.me in addresses:
            self._book.announce(moves, addresses[self.me])
        for peer, endpoint in sorted(addresses.items()):
            if peer == self.me:
                continue
            if peer not in self._keys:
                raise TransportError(f"peer {peer} has an address but no key; the roster is {sorted(self._keys)}")
            moved = self._book.endpoint(peer)
            if moved is None and not host_names(endpoint):
                self._dial(peer, endpoint)
                continue
            if not self._control.has_line(peer):
                self._hold(peer)
            self._seek(peer, moved or endpoint)

    def follow(self, newcomers: Mapping[int, tuple[Member, Endpoint]]) -> None:
        """Open lines to the newcomers that the agreed state names, and close those to whom it names no more.

        One whose key is another's already, or whose address is none, has a line to nobody: it is silent, and lapses.

        Args:
            newcomers: by id, ourselves included: public keys, and where each is reached.
        """
        for peer, member in tuple(self._newcomers.items()):
            if peer not in newcomers or newcomers[peer][0] != member:
                self._dismiss(peer)
        for peer, (member, endpoint) in sorted(newcomers.items()):
            key, known = member.transport_key.encode(), (*self._keys.values(), self._identity.public)
            if peer in self._newcomers or peer == self.me:
                continue
            self._newcomers[peer] = member
            self._tokens.add(peer)
            self._book.know(peer, bytes.fromhex(member.signing_key))
            self._control_quota.add(peer)
            self._bulk_quota.add(peer)
            if key not in known and is_reachable(member.transport_key, endpoint):
                self._keys[peer] = key
                self._gate.admit(peer, key)
                self.connect({peer: endpoint})
            else:  # what is for it goes nowhere
                self._hold(peer)

    def _hold(self, peer: int) -> None:
        """What is for a peer without an address waits until it has one."""
        self._control.hold(peer)
        self._bulk.hold(peer)

    def _dismiss(self, peer: int) -> None:
        del self._newcomers[peer]
        if peer in self._keys:
            self._gate.dismiss(peer, self._keys.pop(peer))
        self._tokens.forget(peer)
        self._book.know(peer, None)
        self._sought.pop(peer, None)
        self._resolver.settle(peer)
        self._control.hang_up(peer)
        self._bulk.hang_up(peer)

    def watch(self, descriptor: int) -> None:
        """Let `poll` return as soon as this file descriptor (a pipe to the launcher) can be read."""
        self._poller.register(descriptor, zmq.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor, for one that has reached its end: it would be readable for ever."""
        self._poller.unregister(descriptor)

    def lines(self) -> ConnectionMonitor:
        """Watch our lines from now on (before `connect`), for monitoring."""
        self._watched = watched = ConnectionMonitor(self._takers, self._control, self._bulk)
        return watched

    def close(self, linger_s: float | None = None) -> None:
        """Close every socket; waits at most `linger_s` (default: the limit's) for our last messages to leave."""
        if self._context.closed:
            return
        self._guard.stop()
        self._count_closed()
        if self._watched is not None:
            self._watched.close()
        linger_ms = math.ceil(1000 * (self.limits.linger_s if linger_s is None else linger_s))
        self._control.close(linger_ms)
        self._bulk.close(linger_ms)
        for listener in self._takers:
            listener.close()
        self._gate.socket.close(linger=0)
        self._resolver.close()
        self._context.term()

    @property
    def greeted(self) -> frozenset[int]:
        """Peers whose greeting has arrived: their lines to us stand, and we know the token of their tensors. Where we
        have to look for a peer, it has also answered us."""
        return self._tokens.known - (self._sought.keys() - self._reached)

    def silence(self, peer: int) -> str | None:
        """What is known of a peer that is not `greeted`; None before it has an address."""
        said = self.refusals.get(peer) or self._unresolved.get(peer)
        where = self._control.endpoint(peer)
        return said or (None if where is None else f"silent at {where}")

    def progress(self) -> None:
        """We entered a phase of the protocol: everyone may send us some more."""
        self._control_quota.phase()
        self._bulk_quota.phase()

    # --- sending ----------------------------------------------------------------------------------------------

    def send_control(self, to: int, data: bytes) -> None:
        """Queue one control message; never blocks.

        Raises:
            LocalProtocolError: no line to `to` (ourselves included), or an empty or too large message.
        """
        if not 0 < len(data) <= self.limits.control_bytes:
            raise LocalProtocolError(f"control message of {len(data)} bytes; 1 to {self.limits.control_bytes} fit")
        self._send_frame(to, "control", framing.encode_control(data))

    def send_bulk(self, to: int, key: BulkKey, values_P: Tensor) -> None:
        """Queue one tensor (float32 `[P]`, contiguous, CPU); never blocks.

        From 64 KB on float32 is not copied: the queue keeps it alive, and it must not be changed.

        Raises:
            LocalProtocolError: no line to `to`, another kind of tensor, or a too large one.
        """
        payload = framing.bulk_payload(values_P, self.precision.of(key.kind))
        if len(payload) > self.limits.bulk_bytes:
            raise LocalProtocolError(f"tensor of {len(payload)} bytes; at most {self.limits.bulk_bytes} fit")
        header = framing.encode_bulk_header(self._tokens.to(to), key)
        self._send_tensor(to, key.kind.value, header, payload)

    def probe(self) -> None:
        """Ask every peer that has a line for an answer; `round_trips` hears it."""
        for peer in filter(self._control.has_line, self._keys):
            self._send_probe(peer)

    def _send_probe(self, peer: int) -> None:
        self._send_frame(peer, "probe", framing.encode_probe(framing.Probe(False, self.round_trips.ask(peer))))

    def _send_tensor(self, to: int, kind: str, header: bytes, payload: memoryview) -> None:
        if self._bulk.send(to, header, payload):
            self.counters.sent(to, kind, len(header) + len(payload))
        else:
            self.counters.drop("queue_full_bulk", to)

    def _dial(self, peer: int, endpoint: Endpoint) -> None:
        """Open lines to a peer, unless they stand, and say who and where we are."""
        self._bulk.dial(peer, self._keys[peer], endpoint.urls[-1], only=not endpoint.bulk)
        if self._control.dial(peer, self._keys[peer], endpoint.control):
            self._introduce(peer)
            self._control.release(peer)
        self._bulk.release(peer)

    def _introduce(self, peer: int) -> None:
        """Greet a peer on a new line: the records first, so that it need not dial us twice."""
        for record in self._book.for_peer(peer):
            self._send_frame(peer, "address", framing.encode_address(record))
        self._greet(peer)

    def _seek(self, peer: int, endpoint: Endpoint) -> None:
        """Look for a peer until it answers."""
        self._sought[peer] = endpoint
        self._resolver.follow(peer, endpoint)

    def _take_answers(self) -> None:
        """Dial what the resolver has found, and ask there whether it is the peer."""
        for peer, found in self._resolver.answers().items():
            self._unresolved.pop(peer, None)
            try:
                if isinstance(found, Endpoint):
                    self._dial(peer, found)
                    self._send_probe(peer)
                else:
                    self._unresolved[peer] = found.problem
            except TransportError as error:  # an address with a device that this machine does not have
                self._unresolved[peer] = str(error)

    def _greet(self, peer: int) -> None:
        self._send_frame(
            peer, "greeting", framing.encode_greeting(framing.Greeting(self._run_id, self._tokens.to(peer)))
        )

        self._send_approvals(peer)

    def _send_approvals(self, to: int) -> None:
        if self.approvals is not None:
            known = framing.Approved(self.approvals.digest, tuple(sorted(self.approvals.signatures.items())))
            self._send_frame(to, "approvals", framing.encode_approvals(known))

    def _send_frame(self, to: int, kind: str, frame: bytes) -> None:
        if kind != "control" and self._control.holds(to):
            return  # it is greeted once it has an address
        if self._control.send(to, frame):
            self.counters.sent(to, kind, len(frame))
        else:
            self.counters.drop(f"queue_full_{kind}", to)

    # --- receiving --------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> list[Arrival]:
        """Wait at most `timeout_s`, then return what has arrived, control messages first, at most `limits.drain` from
        each port.

        May return early with nothing: after a handshake, a refused frame, or input on a watched descriptor. Nothing
        that a peer sends makes it raise.
        """
        ready = dict(self._poller.poll(max(0, math.ceil(timeout_s * 1000))))
        arrivals: list[Arrival] = []
        if self._resolver.descriptor in ready:
            self._take_answers()
        if self._gate.socket in ready:
            self._gate.answer(self.limits.drain)
        for listener in self._takers:
            if listener.socket in ready:
                self._drain(listener, arrivals)
        self._count_closed()
        return sorted(arrivals, key=lambda arrival: isinstance(arrival, BulkArrival))

    def _drain(self, listener: Listener, arrivals: list[Arrival]) -> None:
        take = self._takers[listener]
        for frames in listener.arrived(self.limits.drain, self.limits.drain_bytes):
            try:
                arrival = take(listener, frames)
            except RefusedError as refused:
                self.counters.drop(refused.reason, refused.via)
                if refused.problem is not None and refused.via is not None and refused.via not in self._complained:
                    self._complained.add(refused.via)
                    self.complain(refused.problem)
            else:
                via = arrival.via if arrival is not None else self._gate.peer_of(frames[0])
                assert via is not None  # greetings and probes end here; their line has proved a key
                self._guard.delivered(descriptor(frames[0]), via)
                if arrival is not None:
                    arrivals.append(arrival)

    def _count_closed(self) -> None:
        if self._guard.failure is not None:
            raise self._guard.failure  # our own mistake: nobody would see a flood any more
        if self._guard.closed:
            self.counters.dropped["connection_closed"] = self._guard.closed

    def _take_either(self, listener: Listener, frames: list[zmq.Frame]) -> Arrival | None:
        return self._take_control(listener, frames) if len(frames) == 1 else self._take_bulk(listener, frames)

    def _take_control(self, _: Listener, frames: list[zmq.Frame]) -> Arrival | None:
        via = self._gate.peer_of(frames[0])
        if via is None:
            raise RefusedError("control_unauthenticated")
        if len(frames) != 1:
            raise RefusedError("control_malformed", via)
        frame = frames[0].buffer
        if not self._control_quota.spend(via, len(frame)):
            raise RefusedError("control_over_quota", via)
        try:
            content = framing.decode_control(frame, self.limits.control_bytes)
        except WireError as error:
            self.refusals[via] = str(error)
            raise RefusedError("control_malformed", via) from error
        kind, arrival = "control", None
        if isinstance(content, framing.Greeting):
            kind = "greeting"
            self._take_greeting(via, content)
        elif isinstance(content, framing.Probe):
            kind = "probe"
            self._take_probe(via, content)
        elif isinstance(content, framing.AddressRecord):
            kind = "address"
            if self._book.learn(via, content) and self._control.has_line(content.peer):
                self._seek(content.peer, content.endpoint)
        elif isinstance(content, framing.Approved):
            kind = "approvals"
            self._take_approvals(via, content)
        else:
            arrival = ControlArrival(via, content)
        self.counters.received(via, kind, len(frame))
        return arrival

    def _take_greeting(self, via: int, greeting: framing.Greeting) -> None:
        if greeting.run_id != self._run_id:
            self.refusals[via] = f"it belongs to run {greeting.run_id!r} and we to {self._run_id!r}"
            raise RefusedError("greeting_of_another_run", via)
        news = self._tokens.learn(via, greeting.token)
        if news is News.FOREIGN:
            raise RefusedError("greeting_with_a_foreign_token", via)
        if news is News.KNOWN or not self._control.has_line(via):
            return
        # A new process behind the peer's key: our greeting may have reached the one before it, and where that one's
        # machine went with it, nothing has told us that our lines lead nowhere.
        told = news is News.FIRST
        if news is News.CHANGED or self.applies:
            self._bulk.redial(via, self._keys[via])
            told = self._control.redial(via, self._keys[via])
        if via in self._sought:  # its name may have another address than when we looked last
            self._seek(via, self._sought[via])
        if told:
            self._introduce(via)
        else:  # who keeps being somebody new is not shown all records each time
            self._greet(via)

    def _take_approvals(self, via: int, approved: framing.Approved) -> None:
        """A signature counts, from any sender; the first that is not valid ends the frame."""
        mine = self.approvals
        if mine is None:
            raise RefusedError("approvals_unasked", via)
        if approved.genesis != mine.digest:
            theirs, ours = approved.genesis.hex()[:16], mine.digest.hex()[:16]
            self.refusals[via] = f"it approves genesis {theirs}, and we {ours}"
            raise RefusedError("approvals_of_another_genesis", via)
        lacked = mine.missing
        for peer, signature in approved.signatures:
            if mine.take(peer, signature) is None:
                raise RefusedError("approval_not_valid", via)
        if lacked and not mine.missing:
            mine.keep()
            for peer in filter(self._control.has_line, self._keys):
                self._send_approvals(peer)

    def _take_probe(self, via: int, probe: framing.Probe) -> None:
        if probe.answer:
            if not self.round_trips.answered(via, probe.stamp):
                raise RefusedError("probe_unasked", via)
            self._reached.add(via)
            self._resolver.settle(via)
        elif self._control.has_line(via):
            self._send_frame(via, "probe", framing.encode_probe(framing.Probe(True, probe.stamp)))

    def _take_bulk(self, listener: Listener, frames: list[zmq.Frame]) -> Arrival:
        proved = self._gate.peer_of(frames[0]) if listener.encrypted else None
        if not 1 < len(frames) <= listener.bounds.frames:
            raise RefusedError("bulk_malformed", proved)
        header_frame, *pieces = [frame.buffer for frame in frames]
        size = sum(map(len, pieces))
        try:
            header = framing.decode_bulk_header(header_frame)
            via = self._tokens.sender(header.token)
            if via is None:
                raise RefusedError("bulk_unknown_token", proved)
            if listener.encrypted and proved != via:
                raise RefusedError("bulk_foreign_token", proved)
            if not self._bulk_quota.spend(via, size):
                raise RefusedError("bulk_over_quota", via)
            if size > self.limits.bulk_bytes or not self.accept_bulk(via, header.key, size):
                raise RefusedError("bulk_unexpected", via)
            tensor = framing.bulk_tensor(pieces, self.precision.of(header.key.kind))
        except WireError as error:
            raise RefusedError("bulk_malformed", proved) from error
        self.counters.received(via, header.key.kind.value, len(header_frame) + size)
        return BulkArrival(via, header.key, tensor)

    def _listen(self, listen: Endpoint, encrypt_bulk: bool) -> None:
        limits, context = self.limits, self._context
        control, bulk, buffer_bytes = control_bounds(limits), bulk_bounds(limits), limits.socket_buffer_bytes
        self._gate = ZapAuthenticator(context, self._keys, self.counters.dropped)
        self._control = Dialler(
            context, self._identity, encrypted=True, queue=limits.control_queue, buffer_bytes=buffer_bytes
        )
        self._bulk = Dialler(
            context, self._identity, encrypted=encrypt_bulk, queue=limits.bulk_queue, buffer_bytes=buffer_bytes
        )
        self._takers: dict[Listener, Take] = {}
        if listen.bulk:
            ours = Listener(context, self._identity, control, listen.control)
            for_bulk = Listener(context, self._identity if encrypt_bulk else None, bulk, listen.bulk)
            self._takers = {ours: self._take_control, for_bulk: self._take_bulk}
            ports = [(ours, [control]), (for_bulk, [bulk])]
        else:
            ours = Listener(context, self._identity, both_bounds(limits), listen.control)
            self._takers = {ours: self._take_either}
            ports = [(ours, [control, bulk])]
        self.bound = Endpoint(*(listener.bound for listener in self._takers))
        for socket in (self._gate.socket, *(listener.socket for listener in self._takers)):
            self._poller.register(socket, zmq.POLLIN)
        self._guard = guard_of(ports, len(self._keys) + self._places)
        self._guard.start()
