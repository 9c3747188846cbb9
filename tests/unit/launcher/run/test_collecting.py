"""Collecting peers' files, from honest peers by the real server, and from such that answer what they like."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Thread
from time import time

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from btard.launcher.export import public
from btard.launcher.run import collecting
from btard.launcher.run.collecting import Bounds, collect
from btard.node.errors import ConfigError
from btard.node.genesis.files import write
from btard.node.metrics.http import MetricsEndpoint
from btard.node.storage.public_files import PublicFiles
from tests.ceremony import RUN, Ceremony, ceremony

MADE = ceremony()
GENESIS = msgspec.json.encode(MADE.genesis)
SHORT = Bounds(size=1 << 22, peer_s=20.0, answer_s=5.0)


def owner(where: Path, node: int, made: Ceremony = MADE) -> Path:
    """A peer's directory with a journal, a piece of evidence, and its own approval only."""
    directory = where / f"owner{node}"
    (directory / f"nodes/{node}/evidence").mkdir(parents=True)
    (directory / "secrets.json").write_text("secret")
    write(directory / "genesis.json", made.genesis)
    write(directory / "approvals.json", [made.approvals()[node]])
    (directory / f"nodes/{node}/journal.jsonl").write_text(f'{{"node":{node}}}\n' * 3)
    (directory / f"nodes/{node}/evidence/ban-1-0-3.evidence").write_bytes(bytes(3 << 18))
    return directory


@contextmanager
def serving(directory: Path, node: int) -> Iterator[str]:
    with closing(MetricsEndpoint("127.0.0.1:0", CollectorRegistry(), PublicFiles(directory, node))) as served:
        yield served.address


@contextmanager
def answering(answer: Callable[[str], bytes]) -> Iterator[str]:
    """A peer that answers each path with bytes of its own choice, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line, line.makefile("rb") as request:
                    path = request.readline().split()[1].decode()
                    while request.readline().strip():
                        pass
                    try:
                        line.sendall(answer(path))
                    except OSError:
                        continue

        thread = Thread(target=serve, daemon=True)
        thread.start()
        host, port = server.getsockname()
        yield f"{host}:{port}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def http(body: bytes, length: int | None = None, status: str = "200 OK") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.0 {status}\r\nContent-Length: {size}\r\n\r\n".encode() + body


def test_files_of_several_peers_land_beside_each_other_and_nothing_secret_is_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "_RANGE_BYTES", 1 << 18)  # the evidence comes in three answers
    target, said = tmp_path / "all", list[str]()
    with ExitStack() as stack:
        directories = [owner(tmp_path, node) for node in (0, 2)]
        served = [stack.enter_context(serving(each, node)) for each, node in zip(directories, (0, 2), strict=True)]
        assert collect(served, target, SHORT, said.append) == 0
        assert [line.split(": ")[1][:6] for line in said] == ["peer 0", "peer 2"]
        for directory, node in zip(directories, (0, 2), strict=True):
            for name in ("journal.jsonl", "evidence/ban-1-0-3.evidence"):
                copy, original = (where / f"nodes/{node}/{name}" for where in (target, directory))
                assert copy.read_bytes() == original.read_bytes()
        kept = json.loads((target / "approvals.json").read_bytes())
        assert [each["signing_key"] for each in kept] == [MADE.genesis.members[node].signing_key for node in (0, 2)]
        assert not any("secret" in path.name for path in target.rglob("*"))

        with (directories[0] / "nodes/0/journal.jsonl").open("a") as file:
            file.write("more\n")
        assert collect(served[:1], target, SHORT, said.append) == 0
        assert said[-1].endswith("1 new, 5 bytes")
        assert (target / "nodes/0/journal.jsonl").read_text().endswith("more\n")


def test_a_clock_that_is_off_is_told_with_its_peer(tmp_path: Path) -> None:
    """Which of the two is off nobody knows; what a liar sends as its date harms nobody."""
    said: list[str] = []
    with serving(owner(tmp_path, 2), 2) as served:
        for off_s in (0.0, 3600.0, -3600.0):
            assert collect([served], tmp_path / "all", SHORT, said.append, lambda off_s=off_s: time() + off_s) == 0
    behind, ahead = (f"s {way} this machine's, and so are the times in its journal" for way in ("behind", "ahead of"))
    assert "clock" not in said[0]
    assert said[1].startswith(f"{served}: peer 2 of run ") and re.search(rf"its clock is 3[56][09]\d {behind}", said[1])
    assert re.search(rf"its clock is 3[56][09]\d {ahead}", said[2])
    for date in (b"", b"Date: soon\r\n", b"Date: Mon, 99 Foo 99999 99:99:99 GMT\r\n", b"Date: \xff\r\n"):
        assert collecting._skew(b"HTTP/1.0 200 OK\r\n" + date, 0.0) == ""


def test_an_answer_that_breaks_off_is_gone_on_with(tmp_path: Path) -> None:
    directory = owner(tmp_path, 1)
    listed = msgspec.json.encode(PublicFiles(directory, 1).listed())
    journal = (directory / "nodes/1/journal.jsonl").read_bytes()
    sent = list[int]()

    def answer(path: str) -> bytes:
        if path == "/files":
            return http(listed)
        if not path.endswith("journal.jsonl"):
            return http((directory / path.removeprefix("/files/")).read_bytes())
        first = sum(sent)
        sent.append(7)
        return http(journal[first : first + 7], len(journal) - first, "206 Partial Content")

    with answering(answer) as peer:
        assert collect([peer], tmp_path / "all", SHORT, print) == 0
    assert (tmp_path / "all/nodes/1/journal.jsonl").read_bytes() == journal and len(sent) > 3


def files(*names: str, size: int = 1) -> bytes:
    return msgspec.json.encode([{"name": name, "size": size} for name in names])


HOSTILE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "no HTTP": (lambda path: b"hello\r\n\r\n", "no HTTP within"),
    "no list": (lambda path: http(b"[1]"), "its list of files is none"),
    "deep": (lambda path: http(b"[" * 100_000), "its list of files is none"),
    "endless list": (lambda path: http(bytes(2 << 20)), "has more than the 1048576 bytes asked for"),
    "more said than asked for": (lambda path: http(b"", 1 << 40), "has more than the 1048576 bytes"),
    "endless head": (lambda path: b"HTTP/1.0 200 OK\r\n" + b"x: y\r\n" * 300_000, "no HTTP within"),
    "error": (lambda path: http(b"", status="503 No"), "with status 503"),
    "no length": (lambda path: b"HTTP/1.0 200 OK\r\n\r\n[]", "no HTTP within"),
    "outside": (lambda path: http(files("nodes/1/journal.jsonl", "../../x")), "nothing of this name is public"),
    "secrets": (lambda path: http(files("nodes/1/journal.jsonl", "secrets.json")), "nothing of this name is public"),
    "two nodes": (lambda path: http(files("nodes/1/journal.jsonl", "nodes/2/journal.jsonl")), "of 2 nodes instead"),
    "nobody": (lambda path: http(files("genesis.json")), "of 0 nodes instead"),
    "twice": (lambda path: http(files("genesis.json", "genesis.json")), "names one twice"),
    "very many": (lambda path: http(files(*(f"nodes/1/evidence/{n}.evidence" for n in range(2000)))), "more than 1024"),
    "negative": (lambda path: http(files("nodes/1/journal.jsonl", size=-1)), "negative size"),
    "too large": (lambda path: http(files("nodes/1/journal.jsonl", size=1 << 40)), "`--limit` sets"),
    "no genesis": (lambda path: http(files("nodes/1/journal.jsonl")), "it has no genesis.json"),
    "control characters": (lambda path: http(files("\x1b[2J")), r"\\x1b\[2J: nothing of this name"),
    "empty answers": (
        lambda path: http(files("genesis.json", "nodes/1/journal.jsonl") if path == "/files" else b""),
        "genesis.json breaks off at byte 0 of 1",
    ),
    "from the start again": (
        lambda path: http(files("genesis.json", "nodes/1/journal.jsonl", size=9) if path == "/files" else b"{}"),
        "from the start, not from byte 2",
    ),
    "no such node": (
        lambda path: http(
            files("genesis.json", "nodes/900/journal.jsonl", size=len(GENESIS)) if path == "/files" else GENESIS
        ),
        "files of node 900, and the run has 4 peers",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_peer_answers_costs_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    answer, line = HOSTILE[name]
    said = list[str]()
    with answering(answer) as hostile, serving(owner(tmp_path, 0), 0) as honest:
        assert collect([hostile, honest], tmp_path / "all", SHORT, said.append) == 1
    assert len(said) == 2 and said[1].startswith(f"{honest}: peer 0 of run")
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(said[0])
    assert all(char.isprintable() for char in said[0])
    assert [path.name for path in (tmp_path / "all/nodes").iterdir()] == ["0"]
    assert {path.name for path in tmp_path.iterdir()} == {"all", "owner0"}


def test_a_peer_that_drips_ends_with_its_time(tmp_path: Path) -> None:
    said = list[str]()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        assert collect([f"{host}:{port}"], tmp_path / "all", Bounds(peer_s=0.2), said.append) == 1
    assert "no answer to /files (timed out)" in said[0]


def test_a_newcomers_files_are_collected_and_exported_like_a_founders(tmp_path: Path) -> None:
    made = ceremony(run=msgspec.structs.replace(RUN, roster="open", members=RUN.peers + 1))
    directory, newcomer, target = owner(tmp_path, 0, made), RUN.peers, tmp_path / "all"
    (directory / "nodes/0").rename(directory / f"nodes/{newcomer}")
    with serving(directory, newcomer) as served, serving(owner(tmp_path, 1, made), 1) as founder:
        assert collect([served, founder], target, SHORT, print) == 0
    shared, left_out = public.write(target, tmp_path / "shared")
    assert left_out == []
    for copy in (target, shared):
        for node in (1, newcomer):
            assert [path.name for path in sorted((copy / f"nodes/{node}").rglob("*.*"))] == [
                "ban-1-0-3.evidence",
                "journal.jsonl",
            ]


def test_nobody_takes_anothers_place_or_mixes_runs(tmp_path: Path) -> None:
    other = ceremony(seed=1)
    target, said = tmp_path / "all", list[str]()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    with (
        serving(owner(tmp_path, 1), 1) as honest,
        serving(owner(tmp_path / "b", 1), 1) as impostor,
        serving(owner(tmp_path / "c", 2, other), 2) as stranger,
    ):
        assert collect([honest, impostor, stranger], target, SHORT, said.append) == 2
    assert f"it says that it is peer 1, whose files came from {honest}; one of them is not" in said[1]
    assert f"it is of run {other.genesis.run_id}, and {target} holds run {MADE.genesis.run_id}" in said[2]


def test_approvals_that_do_not_hold_are_refused(tmp_path: Path) -> None:
    directory, said = owner(tmp_path, 1), list[str]()
    forged = msgspec.structs.replace(MADE.approvals()[2], signature="00" * 64)
    write(directory / "approvals.json", [forged])
    with serving(directory, 1) as peer:
        assert collect([peer], tmp_path / "all", SHORT, said.append) == 1
    assert "the signature of peer 2 is not valid" in said[0]
    assert not (tmp_path / "all/approvals.json").exists()


def test_a_directory_that_is_no_collection_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="owner0 holds an identity"):
        collect(["127.0.0.1:1"], owner(tmp_path, 0), SHORT, print)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").write_text("")
    with pytest.raises(ConfigError, match="exists and is no collection"):
        collect(["127.0.0.1:1"], tmp_path / "home", SHORT, print)
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        collect(["nowhere"], tmp_path / "all", SHORT, print)
