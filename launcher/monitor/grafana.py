"""Grafana over its HTTP API: a run's attacks and bans as annotations, and the dashboards.

The client is grafana-api: small, complete for this, and unmaintained since 2020, so what it answers is checked here.

Importing this raises BackendError where the client is not installed (the extra `monitor`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from btard.launcher.monitor.ground_truth import Event, GroundTruth
from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan
from btard.launcher.run.summary import Summary
from btard.node.errors import BackendError, ConfigError

try:
    import requests
    from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
    from grafana_api.grafana_face import GrafanaFace
except ImportError as error:
    raise BackendError(
        "Grafana's API needs the package grafana-api; run `pip install '.[monitor]'` in the clone"
    ) from error

AUTH_VARIABLE = "GRAFANA_AUTH"
FOLDER = "btard"
TIMEOUT_S = 3.0
_NOT_FOUND = 404
_REGIONS = ("banned", "gone", "eliminated")


def connect(url: str, auth: str | None) -> GrafanaFace:
    """A client for the Grafana at `url`; nothing is sent yet.

    Args:
        url: http or https, with a path if Grafana lives below one.
        auth: a service account's token, or USER:PASSWORD.

    Raises:
        ConfigError: the address is none, holds a password, or there is nothing to log in with.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--grafana {url} is no address; use for example http://127.0.0.1:3000")
    if parts.username is not None:
        raise ConfigError(f"--grafana must not hold a password; put USER:PASSWORD into {AUTH_VARIABLE}")
    if not auth:
        raise ConfigError(f"--grafana {url} needs {AUTH_VARIABLE}: a service account's token, or USER:PASSWORD")
    user, colon, password = auth.partition(":")
    path = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return GrafanaFace((user, password) if colon else auth, host=host, port=parts.port, url_path_prefix=path,
                       protocol=parts.scheme, timeout=TIMEOUT_S)  # fmt: skip


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Turn whatever goes wrong with a request into one line.

    Raises:
        BackendError: Grafana cannot be reached, refuses, or answers with something else than its API does.
    """
    try:
        yield
    except GrafanaUnauthorizedError as error:
        raise BackendError(f"Grafana at {url} refuses the credentials (401); check {AUTH_VARIABLE}") from error
    except GrafanaException as error:
        raise BackendError(f"Grafana at {url} answers {error.status_code}: {_said(error)}") from error
    except requests.ConnectionError as error:
        raise BackendError(f"Grafana at {url} cannot be reached; check that it runs there") from error
    except requests.Timeout as error:
        raise BackendError(
            f"Grafana at {url} did not answer within {TIMEOUT_S:g} s; check that it runs there"
        ) from error
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise BackendError(f"what answers at {url} is no Grafana: {error}") from error


class Annotator:
    """An observer that writes a run's attacks and bans to Grafana, on behalf of another that people see.

    After the first failure it writes no more: one warning, and the run goes on.

    Args:
        inner: told of everything, first.
        url, auth: of Grafana; see `connect`.
    """

    def __init__(self, inner: Observer, url: str, auth: str | None) -> None:
        self.inner = inner
        self._url, self._api = url, connect(url, auth)
        self._truth: GroundTruth | None = None
        self._tags: list[str] = []
        self._open: dict[str, tuple[int, Event]] = {}
        self._well = True
        self._last_s = 0.0

    def note(self, line: str) -> None:
        """Pass the line on."""
        self.inner.note(line)

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Follow the run."""
        from btard.launcher.run.run_directory import read_record

        self.inner.began(plan, run_dir, state)
        self._truth = GroundTruth(plan.roles, state)
        self._tags = ["btard", read_record(run_dir).run_id]

    def saw(self, records: Sequence[Record]) -> None:
        """Annotate what is new."""
        self.inner.saw(records)
        self._last_s = max((float(record["time"]) for record in records), default=self._last_s)
        for event in self._truth.saw(records) if self._truth is not None else ():
            self._try(partial(self._annotate, event))

    def ended(self) -> None:
        """Pass it on."""
        self.inner.ended()

    def scored(self, summary: Summary) -> None:
        """End the regions of attacks that went on to the end."""
        self.inner.scored(summary)
        for name in list(self._open):
            number, began = self._open.pop(name)
            self._try(partial(self._extend, number, began, self._last_s))

    def _annotate(self, event: Event) -> None:
        match event.name:
            case "attack_started":
                self._open[event.about] = (self._add(event, event.time_s), event)
            case "attack_stopped" if event.about in self._open:
                self._extend(*self._open.pop(event.about), event.time_s)
            case name if name in _REGIONS:
                self._add(event, event.time_s if event.since_s is None else event.since_s)
            case _:
                pass

    def _add(self, event: Event, begin_s: float) -> int:
        made = self._api.annotations.add_annotation(
            time_from=_ms(begin_s), time_to=_ms(event.time_s), tags=[*self._tags, event.name], text=event.text
        )
        return int(made["id"])

    def _extend(self, number: int, began: Event, end_s: float) -> None:
        self._api.annotations.partial_update_annotation(
            number, time_from=_ms(began.time_s), time_to=_ms(end_s), tags=[*self._tags, began.name], text=began.text
        )

    def _try(self, write: Callable[[], None]) -> None:
        if not self._well:
            return
        try:
            with asking(self._url):
                write()
        except BackendError as error:
            self._well = False
            self.note(f"warning: {error}; the run goes on without annotations")


def push(url: str, auth: str | None, files: Sequence[Path]) -> list[str]:
    """Write dashboards to a Grafana, into the folder BTARD; returns their addresses.

    Raises:
        ConfigError: see `connect`.
        BackendError: Grafana cannot be reached or refuses.
    """
    api = connect(url, auth)
    written = []
    with asking(url):
        _folder(api)
        for path in files:
            content = {**json.loads(path.read_text()), "id": None}
            saved = {"dashboard": content, "folderUid": FOLDER, "overwrite": True}
            made = api.dashboard.update_dashboard({**saved, "message": "btard-launch dashboards push"})
            written.append(url.rstrip("/") + str(made["url"]))
    return written


def _folder(api: GrafanaFace) -> None:
    try:
        api.folder.get_folder(FOLDER)
    except GrafanaClientError as error:
        if error.status_code != _NOT_FOUND:
            raise
        api.folder.create_folder("BTARD", FOLDER)


def _ms(time_s: float) -> int:
    """Grafana's milliseconds since the epoch."""
    return round(1000 * time_s)


def _said(error: GrafanaException) -> str:
    response: Any = error.response
    message = response.get("message") if isinstance(response, dict) else None
    return str(message or error.message)
