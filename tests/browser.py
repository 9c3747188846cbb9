"""Pages in a real headless browser, driven through its debugging pipe: what a reader sees, hears and presses."""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
_RULER = """(() => {
const box = each => { const r = each.getBoundingClientRect(); return [Math.round(r.width), Math.round(r.height)]; };
const figures = {};
for (const each of document.querySelectorAll('figure')) figures[each.id] =
  [...box(each.querySelector('.wide')), each.querySelectorAll('svg path,svg rect,svg circle,td[class]').length];
return {wide: document.documentElement.scrollWidth - innerWidth, figures};
})()"""
_KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    " ": 32,
    "Tab": 9,
    "n": 78,
    "Home": 36,
    "Enter": 13,
    "+": 187,
    "0": 48,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a browser made of a page.

    Args:
        complaints: errors of the page, and what the console printed.
        figures: by id: width and height in pixels, and number of drawn marks.
        wider: pixels that the page is wider than the window.
        picture: a screenshot, PNG.
    """

    complaints: tuple[str, ...]
    figures: dict[str, tuple[int, int, int]]
    wider: int
    picture: bytes


def chromium() -> str:
    """The browser; a machine without one skips, loudly, and a CI machine fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    problem = "NO BROWSER: the report pages are not tested here; install it with `apt-get install chromium`"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


def axe() -> str:
    """The source of axe-core, which finds what a page bars people from; as `chromium` where it is missing."""
    found = importlib.util.find_spec("axe_core_python")
    if found is not None and found.origin is not None:
        return Path(found.origin).with_name("axe.min.js").read_text()
    problem = "NO AXE: accessibility of the pages is not tested here; `pip install axe-core-python==0.1.0`"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


class Browser:
    """One page, in a browser of its own: commands and events of the Chrome DevTools Protocol, as JSON ended by a zero
    byte, through two pipes.

    Args:
        where: a folder for its profile.
        width, height: of the window, pixels.
        dark, calm: what the reader prefers: dark colours, and less motion.
        scripts: whether pages may run any.
    """

    def __init__(
        self,
        where: Path,
        *,
        width: int = 1100,
        height: int = 1400,
        dark: bool = False,
        calm: bool = False,
        scripts: bool = True,
    ) -> None:
        self._profile = where / "profile"
        self._asked, self._buffer = 0, b""
        self._session: str | None = None
        self.complaints: list[str] = []
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._in, self._out = os.fdopen(ours_in, "rb", 0), os.fdopen(ours_out, "wb", 0)
        # The browser reads descriptor 3 and writes 4.
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]
        command = [chromium(), *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "browser", *command],
            pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for each in (theirs_in, theirs_out, *high):
            os.close(each)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        chosen = {"prefers-color-scheme": "dark" if dark else "light",
                  "prefers-reduced-motion": "reduce" if calm else "no-preference"}  # fmt: skip
        features = [{"name": name, "value": value} for name, value in chosen.items()]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, page: Path) -> None:
        """Show a file, and wait until all of it is there."""
        self._call("Page.navigate", url=page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise's once it is kept."""
        done = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other, wherever the focus is."""
        for key in keys:
            code = {"key": key, "windowsVirtualKeyCode": _KEYS[key]}
            text = "\r" if key == "Enter" else key
            self._call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if len(text) == 1 else {}))
            self._call("Input.dispatchKeyEvent", type="keyUp", **code)

    def document(self) -> str:
        """The page's elements as they are now, without asking the page."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        return str(self._call("DOM.getOuterHTML", nodeId=root)["outerHTML"])

    def picture(self) -> bytes:
        """A screenshot, PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": parameters}
        if self._session is not None:
            asked["sessionId"] = self._session
        self._out.write(json.dumps(asked).encode() + b"\0")
        while (answer := self._next()).get("id") != self._asked:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = self._in.read(1 << 16)
            assert more, "the browser has ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(message["params"]))
        return message


def look(page: Path, where: Path) -> Seen:
    """Open a page and measure it."""
    with Browser(where) as browser:
        browser.open(page)
        seen = browser.evaluate(_RULER)
        figures = {name: tuple(each) for name, each in seen["figures"].items()}
        return Seen(tuple(browser.complaints), figures, seen["wide"], browser.picture())
