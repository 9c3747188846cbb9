"""`/metrics` among clients that are slow, greedy or gone."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import enumerate as threads
from time import monotonic
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, Gauge

from btard.node.config import split_address
from btard.node.metrics import http
from btard.node.metrics.http import HEAD_BYTES, THREADS, MetricsEndpoint
from btard.node.storage.public_files import PublicFiles
from tests.scraping import scrape

WATCHDOG_S = 30.0
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def served() -> Iterator[MetricsEndpoint]:
    registry = CollectorRegistry()
    Gauge("answer", "of everything", registry=registry).set(42)
    with closing(MetricsEndpoint("127.0.0.1:0", registry)) as served:
        yield served


def client(served: MetricsEndpoint) -> socket.socket:
    return socket.create_connection(split_address(served.address), WATCHDOG_S)


def until(done: Callable[[], bool], nudge: Callable[[], object] = lambda: None) -> None:
    end = monotonic() + WATCHDOG_S
    while not done():
        assert monotonic() < end
        nudge()


def busy() -> int:
    return sum(thread.name == "scrape" for thread in threads())


def answered(line: socket.socket) -> bytes:
    data = b""
    while more := line.recv(1 << 16):
        data += more
    return data


def value(served: MetricsEndpoint) -> float:
    return scrape(served.address)["answer"][()]


def test_labels_of_a_whole_node_are_in_each_series() -> None:
    registry = CollectorRegistry()
    Gauge("answer", "of everything", registry=registry).set(42)
    Gauge("share", "of a peer", ["peer"], registry=registry).labels("1").set(0.5)
    with closing(MetricsEndpoint("127.0.0.1:0", registry, labels={"run_id": 'a"b', "node": "3"})) as served:
        found = scrape(served.address)
    assert found["answer"] == {(("node", "3"), ("run_id", 'a"b')): 42}
    assert found["share"] == {(("node", "3"), ("peer", "1"), ("run_id", 'a"b')): 0.5}


def test_a_scrape_succeeds_beside_more_clients_that_drip_than_there_are_threads(served: MetricsEndpoint) -> None:
    drips = [client(served) for _ in range(THREADS + 1)]
    for line in drips:
        line.sendall(b"GET /metrics HT")
    until(lambda: busy() == THREADS)

    def drip() -> None:
        for line in drips:
            with suppress(OSError):
                line.send(b"x")

    for _ in range(3):
        drip()
        assert value(served) == 42
    assert busy() <= THREADS
    for line in drips:
        line.close()


def test_clients_that_drip_for_ever_do_not_hold_up_the_end(
    served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 1e6)  # whoever waited for the limit of a request would never end
    drips = [client(served) for _ in range(THREADS + 1)]
    for line in drips:
        line.sendall(b"G")
    until(lambda: busy() == THREADS)
    served.end()
    assert value(served) == 42
    assert select.select([served.last_scrape], [], [], WATCHDOG_S)[0], "the last values were scraped"
    served.close()
    until(lambda: busy() == 0)
    for line in drips:
        line.close()


def test_a_request_has_one_limit_for_all_its_bytes(served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then used to begin the wait anew."""
    monkeypatch.setattr(http, "REQUEST_S", 0.3)
    with client(served) as line:
        line.setblocking(False)
        ended = []

        def drip() -> None:
            with suppress(BlockingIOError):
                try:
                    line.send(b"x")
                    if not line.recv(1):
                        ended.append(True)
                except ConnectionError:
                    ended.append(True)
            select.select([line], [], [], 0.02)

        until(lambda: bool(ended), drip)
    until(lambda: busy() == 0)


def test_whoever_does_not_read_the_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.3)
    monkeypatch.setattr(http, "text", lambda *_: bytes(64 << 20))
    with closing(MetricsEndpoint("127.0.0.1:0", CollectorRegistry())) as served, client(served) as line:
        line.sendall(REQUEST)
        until(lambda: busy() == 1)
        until(lambda: busy() == 0)
        assert not served.scraped_ever


@pytest.mark.parametrize(
    "request_",
    [b"GET /" + b"a" * 2 * HEAD_BYTES, b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_BYTES],
    ids=["line", "headers"],
)
def test_an_oversized_request_is_refused_unread(request_: bytes, served: MetricsEndpoint) -> None:
    with client(served) as line:
        line.sendall(request_[: HEAD_BYTES + 1])
        assert b" 431 " in answered(line).splitlines()[0]
    assert value(served) == 42


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"501"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"GET /metrics?name=x HTTP/1.0\n\n", b"200"),
    ],
    ids=["elsewhere", "post", "no http", "bare"],
)
def test_what_is_answered(request_: bytes, status: bytes, served: MetricsEndpoint) -> None:
    with client(served) as line:
        line.sendall(request_)
        assert status in answered(line)


def test_only_a_scrape_with_the_last_values_ends_the_wait(served: MetricsEndpoint) -> None:
    assert not served.scraped_ever
    value(served)
    until(lambda: served.scraped_ever)
    served.end(2)
    for _ in range(2):
        assert not select.select([served.last_scrape], [], [], 0)[0]
        value(served)
    assert select.select([served.last_scrape], [], [], WATCHDOG_S)[0]


@pytest.mark.slow
def test_it_goes_on_after_clients_that_come_and_go(served: MetricsEndpoint) -> None:
    for _ in range(50):
        client(served).close()
    assert value(served) == 42
    served.close()
    served.close()
    with pytest.raises(OSError, match="refused"):
        client(served)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """The address of a node that serves its files."""
    (tmp_path / "nodes/1").mkdir(parents=True)
    (tmp_path / "nodes/1/journal.jsonl").write_bytes(bytes(range(200)))
    (tmp_path / "secrets.json").write_text("secret")
    with closing(MetricsEndpoint("127.0.0.1:0", CollectorRegistry(), PublicFiles(tmp_path, 1))) as served:
        yield f"http://{served.address}"


@pytest.mark.parametrize(
    ("asked", "status", "wanted"),
    [
        (None, 200, bytes(range(200))),
        ("bytes=0-9", 206, bytes(range(10))),
        ("bytes=150-", 206, bytes(range(150, 200))),
        ("bytes=150-10000", 206, bytes(range(150, 200))),
        ("bytes=200-", 416, None),
        ("bytes=7-3", 416, None),
        ("bytes=-5", 200, bytes(range(200))),
        ("lines=1-2", 200, bytes(range(200))),
    ],
)
def test_files_are_served_whole_and_in_ranges(files: str, asked: str | None, status: int, wanted: bytes | None) -> None:
    request = Request(f"{files}/files/nodes/1/journal.jsonl", headers={} if asked is None else {"Range": asked})
    try:
        with urlopen(request, timeout=WATCHDOG_S) as answer:
            assert (answer.status, answer.read()) == (status, wanted)
            if status == 206 and wanted is not None:
                assert answer.headers["Content-Range"] == f"bytes {wanted[0]}-{wanted[-1]}/200"
    except HTTPError as error:
        assert (error.code, wanted) == (status, None)


def test_the_list_names_what_is_public_and_nothing_else_is_served(files: str, served: MetricsEndpoint) -> None:
    with urlopen(f"{files}/files", timeout=WATCHDOG_S) as answer:
        assert json.load(answer) == [{"name": "nodes/1/journal.jsonl", "size": 200}]
    hidden = (
        f"{files}/files/secrets.json",
        f"{files}/files/nodes/1/../../secrets.json",
        f"{files}/files/",
        f"{files}/x",
    )
    for url in (*hidden, f"http://{served.address}/files", f"http://{served.address}/files/genesis.json"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(url, timeout=WATCHDOG_S)


def test_files_do_not_count_as_scrapes(tmp_path: Path) -> None:
    with closing(MetricsEndpoint("127.0.0.1:0", CollectorRegistry(), PublicFiles(tmp_path, 1))) as served:
        served.end()
        with urlopen(f"http://{served.address}/files", timeout=WATCHDOG_S) as answer:
            assert answer.read() == b"[]"
        assert not served.scraped_ever and not select.select([served.last_scrape], [], [], 0)[0]
