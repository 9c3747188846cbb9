"""grafana-api against a small HTTP server that answers as Grafana's documentation of its API states, errors included.

Grafana itself is not needed: https://grafana.com/docs/grafana/latest/developers/http_api/ (annotations, folder,
dashboard).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from btard import Experiment
from btard.launcher.cli.commands import dashboards, files
from btard.launcher.monitor.grafana import Annotator, connect, push
from btard.launcher.run.cluster import run
from btard.node.errors import BackendError, ConfigError
from tests.monitored import Notes
from tests.ports import held_ports

TOKEN = "glsa_secret"
Answer = tuple[int, Any]


class Grafana(ThreadingHTTPServer):
    """What the documented API does, for one token; `failing` answers come first."""

    def __init__(self, *failing: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.failing = list(failing)
        self.asked: list[tuple[str, str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.folders: set[str] = set()
        self.stored: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: str, authorized: bool, body: Any) -> Answer:
        """Status and JSON."""
        self.asked.append((method, path, body))
        if self.failing:
            return self.failing.pop(0)
        if not authorized:
            return 401, {"message": "Invalid API key"}
        match method, path.strip("/").split("/"):
            case "POST", ["api", "annotations"]:
                self.annotations.append(body)
                return 200, {"message": "Annotation added", "id": len(self.annotations)}
            case "PATCH", ["api", "annotations", number]:
                self.annotations[int(number) - 1] |= body
                return 200, {"message": "Annotation patched"}
            case "GET", ["api", "folders", name]:
                return (200, {"uid": name}) if name in self.folders else (404, {"message": "folder not found"})
            case "POST", ["api", "folders"]:
                self.folders.add(body["uid"])
                return 200, {"id": 1, "uid": body["uid"], "title": body["title"]}
            case "POST", ["api", "dashboards", "db"]:
                return self._store(body)
        return 404, {"message": "Not found"}

    def _store(self, body: Any) -> Answer:
        made = body["dashboard"]
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if made["uid"] in self.stored and not body["overwrite"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        self.stored[made["uid"]] = made
        return 200, {"id": 1, "uid": made["uid"], "url": f"/d/{made['uid']}/x", "status": "success", "version": 1}


class _Api(BaseHTTPRequestHandler):
    server: Grafana

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        authorized = self.headers.get("Authorization") in (f"Bearer {TOKEN}", "Basic YWRtaW46eA==")
        status, answer = self.server.answer(self.command, self.path, authorized, body)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PATCH = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def grafana(*failing: Answer) -> Iterator[Grafana]:
    with Grafana(*failing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def attacked(where: Path, observer: Notes, url: str, auth: str | None = TOKEN, steps: int = 8) -> tuple[Any, list[str]]:
    """A simulated run with an attack in step 5, which is the first annotation, and by default a few steps after it;
    returns its summary and notes. In a longer one that attacker is banned, and another's attack goes on."""
    experiment = Experiment(
        task="quadratic", backend="simulated", device="cpu", peers=5, steps=steps, eval_every=steps, run_dir=str(where),
        role=("3=noise:start=5", "4=zero:start=8,stop=9"),
    )  # fmt: skip
    return run(experiment, Annotator(observer, url, auth)).summary, observer.lines


@pytest.mark.slow
def test_attacks_and_bans_become_regions(tmp_path: Path) -> None:
    with grafana() as server:
        made, notes = attacked(tmp_path / "run", Notes(), server.url, steps=30)
    assert [line for line in notes if "warning" in line] == []
    by_tag: dict[str, list[dict[str, Any]]] = {}
    for each in server.annotations:
        assert each["tags"][:2] == ["btard", made.run_id]
        by_tag.setdefault(each["tags"][2], []).append(each)
    assert set(by_tag) == {"attack_started", "banned"}
    assert sorted(each["text"].split(" at ")[0] for each in by_tag["attack_started"]) == [
        "attack noise started", "attack zero started",
    ]  # fmt: skip
    for each in server.annotations:
        assert each["timeEnd"] >= each["time"] > 1e12, "milliseconds since the epoch"
    ban = next(each for each in by_tag["banned"] if each["text"].startswith("attacker 3"))
    (noise,) = (each for each in by_tag["attack_started"] if "noise" in each["text"])
    assert (ban["time"], ban["timeEnd"]) == (noise["time"], noise["timeEnd"]), "its attack lasted until its ban"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "problem"),
    [
        ((500, {"message": "database is locked"}), "answers 500: database is locked"),
        ((403, {"message": "You'll need additional permissions"}), "answers 403: You'll need additional permissions"),
        ((400, {"message": "Failed to save annotation"}), "answers 400: Failed to save annotation"),
        ((502, "<html>bad gateway</html>"), "answers 502: "),
        ((200, "<html>a login page</html>"), "is no Grafana: "),
        ((200, {"message": "no id"}), "is no Grafana: "),
        ((200, ["no", "object"]), "is no Grafana: "),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_error_is_one_warning_and_the_run_goes_on(failing: Answer, problem: str, tmp_path: Path) -> None:
    with grafana(failing) as server:
        made, notes = attacked(tmp_path / "run", Notes(), server.url)
        assert len(server.asked) == 1, "after the first failure nothing more is written"
    assert made.outcome == "finished"
    (warning,) = (line for line in notes if line.startswith("warning"))
    assert problem in warning
    assert warning.endswith("; the run goes on without annotations")


def test_wrong_credentials_are_one_warning(tmp_path: Path) -> None:
    with grafana() as server:
        _, notes = attacked(tmp_path / "run", Notes(), server.url, "glsa_other")
    (warning,) = (line for line in notes if line.startswith("warning"))
    assert "refuses the credentials (401); check GRAFANA_AUTH" in warning


def test_an_unreachable_grafana_is_one_warning(tmp_path: Path) -> None:
    with held_ports(1) as (port,):
        url = f"http://127.0.0.1:{port}"
        made, notes = attacked(tmp_path / "run", Notes(), url)
    assert made.outcome == "finished"
    (warning,) = (line for line in notes if line.startswith("warning"))
    assert f"Grafana at {url} cannot be reached" in warning


def test_a_grafana_that_never_answers_costs_one_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("btard.launcher.monitor.grafana.TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        made, notes = attacked(tmp_path / "run", Notes(), f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert made.outcome == "finished"
    (warning,) = (line for line in notes if line.startswith("warning"))
    assert "did not answer within 0.2 s" in warning


@pytest.mark.parametrize(
    ("url", "auth", "problem"),
    [
        ("127.0.0.1:3000", TOKEN, "is no address"),
        ("ftp://host", TOKEN, "is no address"),
        ("http://admin:x@host", TOKEN, "must not hold a password"),
        ("http://host", None, "needs GRAFANA_AUTH"),
        ("http://host", "", "needs GRAFANA_AUTH"),
    ],
)
def test_addresses_that_are_none(url: str, auth: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        connect(url, auth)


def test_an_address_below_a_path_and_a_port_that_is_left_out() -> None:
    assert connect("https://host.example/grafana/", TOKEN).api.url == "https://host.example/grafana/api"
    assert connect("http://[::1]:3000", TOKEN).api.url == "http://[::1]:3000/api"


@pytest.mark.parametrize("auth", [TOKEN, "admin:x"], ids=["token", "password"])
def test_push_writes_all_dashboards_and_may_do_so_again(auth: str) -> None:
    with grafana() as server:
        for _ in range(2):
            urls = push(server.url, auth, files())
        assert urls == [f"{server.url}/d/btard-{name}/x" for name in ("overview", "protocol", "network", "node")]
        assert server.folders == {"btard"}
        for path in files():
            committed = json.loads(path.read_text())
            assert server.stored[committed["uid"]] == {**committed, "id": None}


def test_push_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with grafana() as server:
        monkeypatch.setenv("GRAFANA_AUTH", TOKEN)
        done = CliRunner().invoke(dashboards, ["push", "--grafana", server.url])
        assert done.exit_code == 0, done.output
        assert len(done.output.splitlines()) == 4
        monkeypatch.setenv("GRAFANA_AUTH", "wrong")
        failed = CliRunner().invoke(dashboards, ["push", "--grafana", server.url])
        assert isinstance(failed.exception, BackendError)
    listed = CliRunner().invoke(dashboards, ["list"])
    assert "BTARD Overview: /d/btard-overview" in listed.output
