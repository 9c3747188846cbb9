"""Every panel of every dashboard, drawn from a real run's data by the components that Grafana is made of.

python -m tests.development.panels OUT [--modules DIR] [--dark]

Plays one attacked run with a Prometheus beside it (as the tests do), asks that for every expression, and shows each
dashboard as a page in a real browser: OUT has a picture of each. Says for each panel whether it was drawn, and exits
with 1 if one was not. What `@grafana/ui` cannot draw (state timelines, heatmaps: they are Grafana's own) is named.

DIR is where this was run: npm install @grafana/ui@11.6.1 @grafana/data@11.6.1 react@18.2.0 react-dom@18.2.0
esbuild@0.25.0
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dashboards.build import HERE
from dashboards.exempt import replaced, unfolded
from tests.browser import Browser
from tests.monitored import Monitored, watched

WIDTH = 1600
_SOURCE = Path(__file__).with_suffix(".mjs")
_PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="panels.css"><div id="page"></div>
<script>window.GIVEN = {told}</script><script src="panels.js"></script>"""
_ABSENT = "@grafana/ui draws no "
_DRAWN_WITHIN_S = 60.0


def bundle(modules: Path, out: Path) -> None:
    """One script from the components and our few lines.

    Raises:
        SystemExit: the components are not there.
    """
    esbuild = modules / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        raise SystemExit(f"no components in {modules}: {(__doc__ or '').rpartition('DIR is where this was run: ')[2]}")
    found = modules.resolve() / "node_modules" / "@grafana"
    command = [
        esbuild,
        _SOURCE,
        "--bundle",
        "--format=iife",
        f"--outfile={out}",
        "--log-level=error",
        '--define:process.env.NODE_ENV="production"',
        "--define:global=window",
        # Their other form imports old packages as Node.js does, which gives it objects for some components.
        *(f"--alias:@grafana/{name}={found / name}/dist/cjs/index.cjs" for name in ("data", "ui")),
        *(f"--loader:.{kind}=dataurl" for kind in ("svg", "ttf", "woff2")),
    ]
    subprocess.run(command, check=True, env={**os.environ, "NODE_PATH": str(modules / "node_modules")})


def given(seen: Monitored, name: str, dark: bool) -> dict[str, Any]:
    """What a dashboard's page is told: its panels, and what Prometheus answers to each of their expressions."""
    panels = unfolded(json.loads((HERE / f"{name}.json").read_text()))
    variables = {"run_id": seen.run_id, "compare_run": seen.run_id, "node": "0"}
    found = {
        panel["id"]: [
            seen.ask(replaced(target["expr"], variables), last=target.get("instant", False))
            for target in panel.get("targets", ())
        ]
        for panel in panels
    }
    return {
        "panels": panels,
        "found": found,
        "from_ms": 1000 * seen.began_s,
        "to_ms": 1000 * seen.ended_s,
        "width": WIDTH - 40,
        "dark": dark,
    }


def show(page: Path, where: Path) -> tuple[dict[str, str], bytes]:
    """What became of each panel, and a picture of all."""
    with Browser(where, width=WIDTH, height=4200) as browser:
        browser.open(page)
        end_s = time.monotonic() + _DRAWN_WITHIN_S
        while not (drawn := browser.evaluate("window.drawn")):
            if time.monotonic() > end_s:
                raise SystemExit(f"{page.name} is not drawn: {browser.complaints}")
        return drawn, browser.picture()


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--modules", type=Path, default=Path())
    parser.add_argument("--dark", action="store_true")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    bundle(asked.modules, asked.out / "panels.js")
    bad = 0
    with tempfile.TemporaryDirectory() as scratch, watched(Path(scratch)) as seen:
        for name in sorted(path.stem for path in HERE.glob("*.json")):
            page = asked.out / f"{name}.html"
            told = json.dumps(given(seen, name, asked.dark)).replace("</", "<\\/")
            page.write_text(_PAGE.format(told=told))
            drawn, picture = show(page, Path(scratch))
            (asked.out / f"{name}.png").write_bytes(picture)
            for panel, problem in drawn.items():
                print(f"{name}: {panel}: {problem or 'drawn'}")
            bad += sum(bool(problem) and not problem.startswith(_ABSENT) for problem in drawn.values())
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
