"""Pages in a real headless browser: what it complains of, and how large each figure comes out."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--enable-logging=stderr", "--window-size=1100,1400")  # fmt: skip
# Errors from the page's first byte on, and at its end what a reader would see: sizes in pixels.
_EARS = "<script>window.heard=[];addEventListener('error',e=>heard.push(String(e.message||e.target)),true)</script>"
_RULER = """<script>addEventListener('load',()=>{
const box=e=>{const r=e.getBoundingClientRect();return [Math.round(r.width),Math.round(r.height)]};
const seen={heard,wide:document.documentElement.scrollWidth-innerWidth,figures:{}};
for(const f of document.querySelectorAll('figure'))seen.figures[f.id]=
  {box:box(f.querySelector('svg')),marks:f.querySelectorAll('svg path,svg rect,svg circle').length};
const out=document.createElement('pre');out.id='seen';out.textContent=JSON.stringify(seen);document.body.append(out)})
</script>"""


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


def look(page: Path, where: Path) -> Seen:
    """Open a copy of a page that measures itself."""
    copy = where / "measured.html"
    text = page.read_text()
    assert text.count("<head>") == text.count("</body>") == 1
    copy.write_text(text.replace("<head>", "<head>" + _EARS).replace("</body>", _RULER + "</body>"))
    picture = where / "page.png"
    dumped = _open(copy, where, "--dump-dom")
    _open(page, where, f"--screenshot={picture}")
    found = re.search(r'<pre id="seen">(.*?)</pre>', dumped.stdout, re.DOTALL)
    assert found, dumped.stderr
    seen = json.loads(html.unescape(found[1]))
    console = [line for line in dumped.stderr.splitlines() if ":CONSOLE" in line]
    figures = {name: (*each["box"], each["marks"]) for name, each in seen["figures"].items()}
    return Seen((*seen["heard"], *console), figures, seen["wide"], picture.read_bytes())


def _open(page: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = where / "profile"
    command = [chromium(), *_FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    finally:
        shutil.rmtree(profile, ignore_errors=True)
