"""The specification in docs/spec says what the code does: citations, fields, sizes, vectors, the hand-written peer."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import torch
import zmq
from blake3 import blake3
from nacl.signing import SigningKey

from btard.node.config import WIRE_VERSION, Member, RunConfig
from btard.node.protocol.adjudication import charges
from btard.node.protocol.adjudication.offences import OFFENCES, standing
from btard.node.protocol.evidence import format
from btard.node.protocol.evidence.format import EVIDENCE_VERSION
from btard.node.protocol.state import state
from btard.node.protocol.state_sync import messages as sync
from btard.node.protocol.wire import messages
from btard.node.protocol.wire.messages import BulkKey, BulkKind, Phase
from btard.node.transport import envelope, framing
from docs import generate
from docs.vectors import vectors
from tests.integration import raw_peer
from tests.section9 import ROWS

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "docs" / "spec"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(SPEC.glob("*.md"))}
CITING = ("node", "launcher", "tests", "docs", "dashboards", "deploy")


def cells(page: str, head: str) -> list[list[str]]:
    """The rows of the tables of a page whose header begins with `head`."""
    found: list[list[str]] = []
    inside = False
    for line in PAGES[page].splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if line.startswith(f"| {head} |"):
            inside = True
        elif not row:
            inside = False
        elif inside and set(row[0]) != {"-"}:
            found.append(row)
    return found


def names(cell: str) -> tuple[str, ...]:
    """The fields that a cell lists: what stands in backticks before a colon."""
    return tuple(re.findall(r"`(\w+)`:", cell))


# --- citations ------------------------------------------------------------------------------------------------


def citations() -> Iterator[tuple[str, int]]:
    """(where, section) of every citation of the specification in the repository."""
    for folder in CITING:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".pml", ".yml", ".toml") and path != Path(__file__):
                text = re.sub(r"\s+(?:#\s*)?", " ", path.read_text(encoding="utf-8"))
                for match in re.finditer(r"PROTOCOL,? sections? (\d+)(?:,? and (\d+))?", text):
                    yield from ((str(path.relative_to(ROOT)), int(number)) for number in match.groups() if number)


def sections() -> dict[int, str]:
    """The page of each section of the specification."""
    found = [(int(number), name) for name, text in PAGES.items()
             for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]  # fmt: skip
    assert len(found) == len(dict(found)), "a section stands on two pages"
    return dict(found)


def test_every_section_that_is_cited_is_in_the_specification() -> None:
    cited = list(citations())
    assert len({where for where, _ in cited if where.startswith(("node/", "launcher/"))}) >= 35
    assert [(where, number) for where, number in cited if number not in sections()] == []


def test_a_citation_names_a_section() -> None:
    """`PROTOCOL` alone, or with a place that is no number, leads nowhere."""
    vague = []
    for folder in ("node", "launcher"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
            for match in re.finditer(r"(?:Source:|source=\")[^\"]{0,200}?\bPROTOCOL\b(.{12})", text):
                vague += [] if re.match(r",? sections? \d", match[1]) else [(str(path.relative_to(ROOT)), match[1])]
    assert vague == []


def test_rules_that_are_cited_by_number_exist() -> None:
    rules = set(re.findall(r"^(\d)\. \*\*", PAGES["rules.md"], re.MULTILINE))
    cited = set()
    for folder in CITING:
        for path in (ROOT / folder).rglob("*.py"):
            cited |= set(re.findall(r"PROTOCOL section 10,? rule (\d)", path.read_text(encoding="utf-8")))
    assert cited and cited <= rules == set("12345678")


def test_the_index_lists_every_section_with_its_page() -> None:
    listed = {int(row[0]): re.sub(r".*\((.*)\)", r"\1", row[2]) for row in cells("README.md", "section")}
    assert listed == sections() and sorted(listed) == list(range(1, 17))


# --- what stands in tables ------------------------------------------------------------------------------------


def test_messages_have_the_fields_of_the_types() -> None:
    told = {row[0].strip("`"): (int(row[1]), row[2], names(row[3])) for row in cells("messages.md", "tag")}
    types = {kind.__struct_config__.tag: (phase.value, phase.name, kind.__struct_fields__[2:])
             for kind, phase in messages.PHASE_OF.items()}  # fmt: skip
    assert told == types
    assert {kind.__struct_fields__[:2] for kind in messages.PHASE_OF} == {("slot", "prefix")}
    assert set(messages.PHASE_OF.values()) == set(Phase)


STRUCTURES: dict[str, tuple[Any, ...]] = {
    "messages.md": (
        messages.Slot, messages.Place, messages.Signed, messages.Stub, messages.Endorsed, messages.Missing,
        messages.Verdict, messages.Accusation, messages.Late, messages.Removal, messages.Void,
        messages.Application,
    ),
    "transport.md": (
        framing.Greeting, framing.AddressRecord, framing.Approved, framing.BulkHeader, BulkKey, sync.Snapshot,
        sync.Certified, sync.Past,
    ),
    "evidence.md": (
        format.Evidence, format.Record, format.Held, state.Ban, state.Summary, state.Contribution, state.Register,
        state.Newcomer,
    ),
}  # fmt: skip


@pytest.mark.parametrize("page", STRUCTURES)
def test_structures_have_the_fields_of_the_types(page: str) -> None:
    told = {row[0]: names(row[-1]) for row in cells(page, "structure")}
    assert told == {kind.__name__: kind.__struct_fields__ for kind in STRUCTURES[page]}


def test_charges_have_the_tags_and_fields_of_the_types() -> None:
    told = {row[0]: (row[1].strip("`"), names(row[2])) for row in cells("evidence.md", "charge")}
    types = {kind.__name__: (kind.__struct_config__.tag, kind.__struct_fields__) for kind in get_args(charges.Charge)}
    assert told == types


def test_the_genesis_lists_every_key_with_its_default() -> None:
    rows = cells("genesis.md", "field")
    members, keys = rows[: len(Member.__struct_fields__)], rows[len(Member.__struct_fields__) :]
    assert tuple(row[0].strip("`") for row in members) == Member.__struct_fields__
    told = [(row[0].strip("`"), json.loads(row[2].strip("`"))) for row in keys]
    assert told == list(json.loads(msgspec.json.encode(RunConfig())).items())


def test_offences_stand_in_the_order_of_gravity_with_their_standing() -> None:
    told = [(row[0].strip("`"), row[2]) for row in cells("judging.md", "reason")]
    assert told == [(reason, standing(reason)) for reason in OFFENCES]


def test_the_table_of_attacks_is_the_one_that_is_tested() -> None:
    assert [tuple(row) for row in cells("attacks.md", "attack on the protocol")] == [
        (row.attack, row.outcome) for row in ROWS
    ]


def test_sizes_are_the_formulas() -> None:
    told = {
        row[0].split(" ")[0].rstrip(","): row[1].strip("`").replace("^", "**") for row in cells("messages.md", "body")
    }
    most = re.search(r"A VIEW holds at most `([^`]+)` messages", PAGES["messages.md"])
    assert most is not None
    for peers in (2, 3, 4, 7, 16, 256):
        known: dict[str, int] = {"n": peers}
        for name in ("plain", "evidence", "VIEW"):
            known[name.lower()] = eval(told[name], {}, known)
        assert known["plain"] == messages.plain_bytes(peers) == messages.body_bytes(Phase.CLOSE, peers)
        assert known["evidence"] == messages.evidence_bytes(peers)
        assert known["view"] == messages.view_bytes(peers)
        assert eval(told["HELD"], {}, known) == messages.body_bytes(Phase.HELD, peers)
        assert eval(told["HELD"], {}, known) == messages.body_bytes(Phase.HAVE, peers)
        assert eval(told["REPORT"], {}, known) == messages.body_bytes(Phase.REPORT, peers)
        assert eval(told["control"], {}, known) == messages.control_bytes(peers)
        assert eval(most[1].replace("^", "**"), {}, known) == messages.view_messages(peers)


def test_the_versions_are_those_of_the_code() -> None:
    assert f"Versions: wire {WIRE_VERSION}, evidence {EVIDENCE_VERSION}." in PAGES["README.md"]
    assert f"(1 byte, now `{WIRE_VERSION:02x}`)" in PAGES["transport.md"]
    assert f"`version`: int ({EVIDENCE_VERSION})" in PAGES["evidence.md"]


# --- frames ---------------------------------------------------------------------------------------------------


def test_no_control_message_is_missing_from_the_pages() -> None:
    """What `seal` takes, what `unseal` knows, what the generated page and the specification list."""
    sealed = get_args(get_type_hints(envelope.seal)["content"])
    listed = {int(row[0].strip("`"), 16): row[1] for row in cells("transport.md", "envelope kind")}
    assert len(sealed) == len(generate.kinds()) == len(generate.CONTENTS)
    assert set(generate.kinds()) == set(generate.CONTENTS)
    assert listed == {kind: name for kind, (name, _) in generate.CONTENTS.items()}


def test_no_frame_is_missing_from_the_pages() -> None:
    read = get_args(get_type_hints(framing.decode_control)["return"])
    listed = {int(found[1], 16): row[0] for row in cells("transport.md", "frame")
              if (found := re.match(r"`(\d\d)`", row[1]))}  # fmt: skip
    assert len(read) == len(generate.frames()) == len(generate.FRAMES)
    assert set(generate.frames()) == set(generate.FRAMES)
    assert listed == {first: name for first, (name, _, _) in generate.FRAMES.items()}


def test_tensors_of_every_kind_are_listed() -> None:
    assert [row[0].strip("`") for row in cells("transport.md", "kind")] == [kind.value for kind in BulkKind]


# --- test vectors, computed from the pages alone --------------------------------------------------------------

VECTORS = json.loads((SPEC / "vectors.json").read_text(encoding="utf-8"))


def hashed(domain: str, *fields: bytes | int) -> bytes:
    """H of section 11."""
    raw = (struct.pack("<q", field) if isinstance(field, int) else field for field in fields)
    return blake3(b"".join(struct.pack("<Q", len(field)) + field for field in (domain.encode(), *raw))).digest()


def tensor(domain: str, fields: tuple[bytes | int, ...], values: bytes) -> bytes:
    """T of section 11."""
    raw = (struct.pack("<q", field) if isinstance(field, int) else field for field in fields)
    head = (domain.encode(), *raw, struct.pack("<Q", len(values) // 4))
    return blake3(b"".join(struct.pack("<Q", len(field)) + field for field in head) + values).digest()


def of(*path: str) -> Any:
    """A vector; text in hex as bytes."""
    found: Any = VECTORS
    for name in path:
        found = found[name]
    return found


def raw(*path: str) -> bytes:
    """The same, of hex."""
    return bytes.fromhex(of(*path))


def test_the_vectors_are_what_the_code_computes() -> None:
    assert (SPEC / "vectors.json").read_text(encoding="utf-8") == vectors(), "run `make docs`"


def test_vectors_of_genesis_and_roster() -> None:
    keys = [bytes.fromhex(member["signing_key"]) for member in json.loads(of("genesis", "members"))]
    texts = (of("genesis", name).encode() for name in ("run_id", "configuration", "members"))
    assert hashed("genesis", *texts, str(of("wire_version")).encode()) == raw("genesis", "run")
    assert hashed("roster", *keys, b"active", *of("roster", "active")) == raw("roster", "digest")


def test_vectors_of_messages() -> None:
    key = SigningKey(raw("peer", "signing_seed"))
    tags = []
    for vector in of("bodies"):
        body, place = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["place"])
        tag, slot, prefix, *fields = msgspec.msgpack.decode(body)
        tags.append(tag)
        assert slot[:2] == [raw("genesis", "run"), raw("roster", "digest")] and slot[5] == of("peer", "id")
        assert place == raw_peer.pack([slot, prefix, fields[:2] if tag == "suspect" else None])
        assert hashed("body", body).hex() == vector["digest"]
        covered = b"btard/2/message\x00" + hashed("message", place, hashed("body", body))
        assert key.sign(covered).signature.hex() == vector["signature"]
    assert tags == ["hello", "commit", "agg", "checksums", "report", "close", "suspect", "outcome"]
    view = bytes.fromhex(of("bodies")[6]["bytes"])
    assert key.sign(b"btard/1/endorse\x00" + hashed("endorse", view, raw_peer.pack([0, [2]]))).signature == raw(
        "endorsement"
    )
    bodies = [hashed("body", bytes.fromhex(body)) for body in of("phase", "bodies")]
    assert hashed("phase", of("phase", "name").encode(), *bodies) == raw("phase", "digest")
    assert hashed("transcript", raw("phase", "digest")) == raw("phase", "transcript")


def test_vectors_of_randomness() -> None:
    run, r, me = raw("genesis", "run"), raw("randomness", "r"), of("peer", "id")
    both = hashed("share", raw("randomness", "secret_seed"), 2, 1)
    x, salt = hashed("share x", both), hashed("share salt", both)
    assert (x, salt) == (raw("randomness", "x"), raw("randomness", "salt"))
    assert hashed("randomness", run, 2, 1, me, x, salt) == raw("randomness", "commitment")
    assert hashed("r", 2, 1, *(bytes.fromhex(each) for each in of("randomness", "r_of"))) == r
    assert hashed("genesis r", 5) == raw("randomness", "genesis_r")
    assert hashed("batch", 5, r, 3, me) == raw("randomness", "xi")
    assert sorted(range(10), key=lambda item: hashed("permutation", r, item)) == of(
        "randomness", "permutation_of_0_to_9"
    )
    drawn = (int.from_bytes(hashed("coin audit", r, part)[:8], "little") for part in range(16))
    assert [each < 2**63 for each in drawn] == of("randomness", "coins_audit_half")
    stream = blake3(struct.pack("<Q", 1) + b"z" + r).digest(length=16)
    scale = torch.tensor(1 / math.sqrt((2**32 - 1) / 12), dtype=torch.float32)
    z = torch.tensor(struct.unpack("<8h", stream), dtype=torch.float32) * scale
    assert bytes(z.numpy().data) == raw("randomness", "z")


def test_vectors_of_values() -> None:
    run, me, values = raw("genesis", "run"), of("peer", "id"), raw("values", "float32")
    assert tensor("part", (run, 2, 1, me, 0), values) == raw("values", "part")
    assert tensor("aggregate", (run, 2, 1, me, 1), values) == raw("values", "aggregate")
    assert tensor("parameters", (), values) == raw("values", "parameters")
    assert tensor("probation", (run, 2, me), values) == raw("values", "probation")
    g, z = struct.unpack("<8f", values), struct.unpack("<8f", raw("randomness", "z"))
    square, product = ([0.0] * 8192, [0.0] * 8192)
    for place, (entry, direction) in enumerate(zip(g, z, strict=True)):
        square[place % 8192] += (entry - 1.0) ** 2
        product[place % 8192] += (entry - 1.0) * direction
    norm = math.sqrt(folded(square))
    s = folded(product) * (5.0 / norm) if norm > 5.0 else folded(product)
    claim = of("values", "checksum_against_ones")
    assert (s.hex(), norm.hex()) == (claim["s"], claim["norm"])


def folded(sums: list[float]) -> float:
    """The fold of section 8."""
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [low + high for low, high in zip(sums[:half], sums[half:], strict=True)]
    return sums[0]


def test_vectors_of_the_state() -> None:
    norms = [struct.pack("<2d", *step) for step in ((1.0, 2.0), (0.5, 4.0))]
    summary = msgspec.msgpack.decode(raw("state", "summary"))
    fields = dict(zip(state.Summary.__struct_fields__, summary, strict=True))
    assert hashed("norms", *norms) == raw("state", "norms") == fields["norms"]
    assert fields["parameters"] == raw("values", "parameters") and fields["r"] == raw("randomness", "r")
    assert fields["optimiser"] == tensor("optimiser", (), bytes(32))
    assert fields["window"] == hashed("window", 0, 0)
    assert hashed("state", raw("state", "summary")) == raw("state", "digest")


def test_vectors_of_frames() -> None:
    token = bytes(range(32))
    suspect = of("bodies")[6]
    signed = [bytes.fromhex(suspect["bytes"]), bytes.fromhex(suspect["signature"])]
    key = [3, 1, "aggregate", 2, 2]
    assert raw("frames", "greeting") == bytes((2, of("wire_version"))) + raw_peer.pack(["vectors", token])
    fields = [raw("genesis", "run"), of("peer", "id"), 1, "tcp://node-1:7400", "tcp://[::1]:7401"]
    covered = b"btard/1/address\x00" + hashed(
        "address", *(each.encode() if isinstance(each, str) else each for each in fields)
    )
    signature = SigningKey(raw("peer", "signing_seed")).sign(covered).signature
    assert raw("frames", "address") == b"\x04" + raw_peer.pack([*fields, signature])
    assert raw("frames", "probe") == b"\x03\x00" + struct.pack("<Q", 513)
    assert raw("frames", "signed") == b"\x01\x00" + raw_peer.pack(signed)
    assert raw("frames", "relayed_view") == b"\x01\x01" + raw_peer.pack([signed, [[2, bytes(64)]]])
    assert raw("frames", "request") == b"\x01\x02" + raw_peer.pack(key)
    assert raw("frames", "transcript") == b"\x01\x03" + struct.pack("<II", 300, 1)
    assert raw("frames", "bulk_header") == raw_peer.pack([token, key])


# --- the peer that is written by hand -------------------------------------------------------------------------


@pytest.fixture
def by_hand() -> Iterator[raw_peer.RawPeer]:
    """The hand-written peer in the place of the vectors' peer."""
    peer = raw_peer.RawPeer(of("peer", "id"), "vectors", raw("peer", "signing_seed"), zmq.curve_keypair()[1], {})
    peer.run, peer.roster, peer.fingerprint = raw("genesis", "run"), raw("roster", "digest"), b"environment"
    yield peer
    peer.close()


def test_the_peer_written_by_hand_speaks_this_version(by_hand: raw_peer.RawPeer) -> None:
    """Its greeting is taken: refused, its tensors would be a stranger's, and half of its attacks would try nothing."""
    greeting = framing.decode_control(memoryview(by_hand.greeting(by_hand.token)), 1024)
    assert greeting == framing.Greeting("vectors", by_hand.token)


def test_the_peer_written_by_hand_signs_as_the_vectors_do(by_hand: raw_peer.RawPeer) -> None:
    for vector in of("bodies"):
        body = bytes.fromhex(vector["bytes"])
        assert by_hand.signed(msgspec.msgpack.decode(body)) == [body, bytes.fromhex(vector["signature"])]
    hello = of("bodies")[0]
    assert by_hand.hello() == b"\x01\x00" + raw_peer.pack(
        [bytes.fromhex(hello["bytes"]), bytes.fromhex(hello["signature"])]
    )


def test_the_phases_of_the_peer_written_by_hand_are_the_specifications() -> None:
    told = {row[2]: int(row[1]) for row in cells("messages.md", "tag")}
    for name in ("HELLO", "COMMIT", "SUSPECT", "VIEW", "OUTCOME", "JOIN"):
        assert getattr(raw_peer, name) == told[name]
