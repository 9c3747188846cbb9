"""A ceremony in a directory: all come to one genesis, each by itself, and whoever's word was replaced signs nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from btard.node.config import Endpoint, NodeConfig
from btard.node.crypto import keys
from btard.node.errors import BackendError, BtardError, ConfigError, TransportError
from btard.node.genesis import ceremony
from btard.node.genesis.approval import approvals_of, approve
from btard.node.genesis.ceremony import GIVEN, Meeting, Minutes, attend
from btard.node.genesis.files import write
from btard.node.genesis.genesis import Genesis, read_genesis
from btard.node.genesis.identity import Identity
from btard.node.genesis.proposal import propose
from tests.ceremony import PEERS, RUN, met

ELSEWHERE = Endpoint("tcp://elsewhere.example:7400", "tcp://elsewhere.example:7401")


def configs(where: Path, run_id: str = "run") -> tuple[NodeConfig, ...]:
    """Of four peers that have not met."""
    made = []
    for node in range(PEERS):
        own = where / "nodes" / str(node)
        own.mkdir(parents=True, exist_ok=True)
        made.append(NodeConfig(run_id, node, RUN, (), f"{own}/secrets.json", str(own), "data", ceremony=f"{where}/met"))
    return tuple(made)


def come(config: NodeConfig) -> NodeConfig | None:
    """What a peer does before it waits for somebody, and whether it still has to."""
    with ExitStack() as held:
        return attend(config, held, lambda _: True, 0.0)


def meeting(where: Path) -> Meeting:
    return Meeting(where / "met", RUN, "run")


def test_all_come_to_one_genesis_and_keep_all_approvals(tmp_path: Path) -> None:
    found = met(configs(tmp_path))
    Minutes(meeting(tmp_path), tmp_path).look()
    genesis = read_genesis(tmp_path)
    assert len({member.transport_key for member in genesis.members}) == PEERS
    assert not approvals_of(genesis, tmp_path).missing
    for config in found:
        own = Path(config.directory)
        mine = Identity.load(own)
        assert (mine.approved, mine.public.signing_key) == (genesis, genesis.members[config.node].signing_key)
        assert not approvals_of(genesis, own).missing
        assert (config.members, config.addresses, config.ceremony) == (genesis.members, genesis.endpoints, None)
        assert config.listen == genesis.proposals[config.node].address
        assert (own / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len({config.listen.control for config in found} | {config.listen.bulk for config in found}) == 2 * PEERS


def test_keys_that_a_seed_determines_are_taken_in_their_order(tmp_path: Path) -> None:
    members, secrets = keys.generate(3, PEERS)
    for config, given in zip(configs(tmp_path), secrets, strict=True):
        keys.write(Path(config.directory) / GIVEN, given)
    assert met(configs(tmp_path))[0].members == members
    assert not list(tmp_path.rglob(GIVEN))


def test_what_is_bound_and_what_is_proposed_may_differ(tmp_path: Path) -> None:
    listen = Endpoint("tcp://0.0.0.0:7400", "tcp://0.0.0.0:7401")
    given = [
        msgspec.structs.replace(
            config,
            listen=listen,
            addresses={str(config.node): Endpoint(f"tcp://node-{config.node}:1", f"tcp://node-{config.node}:2")},
        )
        for config in configs(tmp_path)
    ]
    for config in met(given):
        assert config.listen == listen
        assert config.addresses["2"] == Endpoint("tcp://node-2:1", "tcp://node-2:2")


def test_who_starts_again_is_who_it_was_where_it_was(tmp_path: Path) -> None:
    before = met(configs(tmp_path))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert met(configs(tmp_path)[2:3]) == before[2:3]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_who_starts_elsewhere_proposes_again_and_nobody_approves_again(tmp_path: Path) -> None:
    before = met(configs(tmp_path))
    Minutes(meeting(tmp_path), tmp_path).look()
    genesis, approvals = read_genesis(tmp_path), sorted((tmp_path / "met").glob("*.approval"))
    signed = [path.read_bytes() for path in approvals]
    for peer in range(PEERS - 1):  # the last one is out, and stays away
        meeting(tmp_path).withdraw(peer)
    after = met(configs(tmp_path)[:-1])
    Minutes(meeting(tmp_path), tmp_path).look()
    now = read_genesis(tmp_path)
    assert (now.digest, now.members) == (genesis.digest, genesis.members)
    assert [path.read_bytes() for path in approvals] == signed
    assert all(one.listen != other.listen for one, other in zip(before, after, strict=False))
    assert now.addresses[-1] == genesis.addresses[-1]
    assert {config.node: config.listen for config in after} == {
        peer: now.proposals[peer].address for peer in range(PEERS - 1)
    }


def test_an_identity_does_not_go_to_a_second_run(tmp_path: Path) -> None:
    met(configs(tmp_path))
    for path in (tmp_path / "met").iterdir():
        path.unlink()
    other = configs(tmp_path, "other")
    for config in other:
        assert config.node == PEERS - 1 or come(config) is None
    with pytest.raises(ConfigError, match=r"has approved run run .* an identity is for one run"):
        come(other[-1])
    assert not list((tmp_path / "met").glob("*.approval"))


def anothers(where: Path) -> None:
    write(where / "met/3.proposal", propose(keys.fresh(), ELSEWHERE))


def older(where: Path) -> None:
    """Its own, and signed: another address that it has given up meanwhile."""
    mine = Identity.load(where / "nodes/3")
    newest = mine.proposal
    assert newest is not None
    old = mine.propose(ELSEWHERE)
    mine.propose(newest.address)
    write(where / "met/3.proposal", old)


def swapped(where: Path) -> None:
    two, three = ((where / f"met/{peer}.proposal").read_bytes() for peer in (2, 3))
    (where / "met/2.proposal").write_bytes(three)
    (where / "met/3.proposal").write_bytes(two)


def edited(field: str, value: object) -> Callable[[Path], None]:
    def edit(where: Path) -> None:
        path = where / "met/3.proposal"
        path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), field: value}))

    return edit


def doubled(where: Path) -> None:
    (where / "met/3.proposal").write_bytes((where / "met/1.proposal").read_bytes())


def holding(content: bytes) -> Callable[[Path], None]:
    def hold(where: Path) -> None:
        (where / "met/3.proposal").write_bytes(content)

    return hold


def linked(where: Path) -> None:
    (where / "met/3.proposal").unlink()
    (where / "met/3.proposal").symlink_to(where / "nodes/3/proposal.json")


REPLACED = "nothing was signed: peer 3 has not proposed what lies in"
TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "somebody else's": (anothers, REPLACED),
    "an older one of its own": (older, REPLACED),
    "two exchanged": (swapped, REPLACED),
    "another's a second time": (doubled, "the proposal of peer 1, .* and the proposal of peer 3, .* propose one key"),
    "no proposal": (holding(b"{}"), "the proposal of peer 3, "),
    "too large": (holding(b" " * 2000), r"3\.proposal: its 2000 bytes"),
    "a link": (linked, r"3\.proposal"),
    **{
        f"another {field}": (edited(field, value), "the proposal of peer 3, ")
        for field, value in (
            ("control", "tcp://elsewhere.example:7400"),
            ("bulk", "tcp://elsewhere.example:7401"),
            ("signing_key", "ab" * 32),
            ("transport_key", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"),
            ("signature", "00" * 64),
            ("wire_version", 1),
        )
    },
}


@pytest.mark.parametrize(("tamper", "message"), TAMPERED.values(), ids=TAMPERED)
def test_a_peer_whose_proposal_was_tampered_with_signs_nothing(
    tamper: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    peers = configs(tmp_path)
    for config in peers[1:]:
        assert come(config) is None
    tamper(tmp_path)
    with pytest.raises(BtardError, match=message) as refused:  # whoever comes first, where no honest one could err
        come(peers[0])
        come(peers[3])
    told = str(refused.value)
    assert ("\n" not in told and "peer 3" in told) or "3.proposal" in told
    assert not (tmp_path / "met/3.approval").exists() and Identity.load(tmp_path / "nodes/3").approved is None


def test_a_link_that_somebody_has_put_there_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member may write to the place as well: a peer's own keys must not be what it overwrites."""
    monkeypatch.setattr(secrets, "token_hex", lambda bytes_: "guessed")
    precious = tmp_path / "precious"
    precious.write_text("keys")
    (tmp_path / "met").mkdir()
    for name in ("3.proposal", ".3.proposal.guessed.tmp"):
        (tmp_path / "met" / name).symlink_to(precious)
    with pytest.raises(BtardError, match=r"3\.proposal"):
        come(configs(tmp_path)[3])
    (tmp_path / "met/3.proposal").unlink()
    with pytest.raises(BackendError, match=r"cannot write .*3\.proposal: File exists"):
        come(configs(tmp_path)[3])
    assert precious.read_text() == "keys"


def of_another(where: Path, genesis: Genesis) -> object:
    return approve(msgspec.structs.replace(genesis, run_id="another"), Identity.load(where / "nodes/3").secrets)


def a_strangers(where: Path, genesis: Genesis) -> object:
    return approve(genesis, keys.fresh())


def signed_by_another(where: Path, genesis: Genesis) -> object:
    mine, other = (approve(genesis, Identity.load(where / f"nodes/{peer}").secrets) for peer in (3, 2))
    return msgspec.structs.replace(mine, signature=other.signature)


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (of_another, "approves genesis"),
        (a_strangers, "is of no member of the run"),
        (signed_by_another, "the signature of peer 3 is not valid"),
        (lambda where, genesis: {"genesis": genesis.digest}, "is no approval"),
    ],
    ids=["of another genesis", "a stranger's", "signed by another", "none"],
)
def test_an_approval_that_does_not_hold_is_named_and_nobody_begins(
    forge: Callable[[Path, Genesis], object], message: str, tmp_path: Path
) -> None:
    peers = configs(tmp_path)
    for config in peers:
        assert come(config) is None
    place = meeting(tmp_path)
    assert not place.missing
    write(tmp_path / "met/3.approval", forge(tmp_path, place.genesis()))
    for attempt in (lambda: come(peers[0]), Minutes(place, tmp_path).look):
        with pytest.raises(ConfigError, match=rf"3\.approval.*{message}"):
            attempt()
    assert not (tmp_path / "approvals.json").exists()


def test_who_waits_says_for_whom_and_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceremony, "SAY_S", -1.0)
    said: list[str] = []
    peers = configs(tmp_path)
    for config in peers[::2]:
        assert come(config) is None
    with ExitStack() as held, pytest.raises(TransportError, match="no proposal of peer 1, peer 3 within 0 s"):
        attend(peers[0], held, lambda _: False, 0.01, said.append)
    assert set(said) == {"waiting for the proposals of 2 of 4: peer 1, peer 3"}
    for config in peers[1:]:
        come(config)
    with ExitStack() as held, pytest.raises(TransportError, match="no approval of peer 1, peer 2 within 0 s"):
        attend(peers[0], held, lambda _: False, 0.01, said.append)
    assert said[-1] == "waiting for the approvals of 2 of 4: peer 1, peer 2"


def test_minutes_are_written_once_there_is_something_to_write(tmp_path: Path) -> None:
    peers, minutes = configs(tmp_path), Minutes(meeting(tmp_path), tmp_path)
    minutes.look()
    for config in peers:
        assert not (tmp_path / "genesis.json").exists()
        come(config)
        minutes.look()
    assert (tmp_path / "genesis.json").exists() and not (tmp_path / "approvals.json").exists()
    met(peers)
    minutes.look()
    written = (tmp_path / "approvals.json").read_bytes()
    (tmp_path / "met/0.approval").write_bytes(b"whatever comes later")
    minutes.look()
    assert (tmp_path / "approvals.json").read_bytes() == written
