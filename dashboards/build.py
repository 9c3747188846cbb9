"""Builds the dashboards' JSON: `python -m dashboards.build` writes it, `--check` compares it with what is there.

Needs grafana-foundation-sdk, a development dependency; what it writes is committed.
"""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.contents import CONTENTS
from dashboards.parts import asked_of_prometheus, frame, node_choice, panel

HERE = Path(__file__).parent


def text(name: str) -> str:
    """The JSON of one dashboard."""
    made = frame(name)
    if name == "node":
        made.with_variable(node_choice())
    number = count(1)
    for row in CONTENTS[name]:
        title = dashboard.Row(row.question).id(next(number))
        panels = [panel(show, row.guide).id(next(number)) for show in row.panels]
        if row.folded:
            for each in panels:
                title.with_panel(each)
        made.with_row(title)
        for each in () if row.folded else panels:
            made.with_panel(each)
    content = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    own = asked_of_prometheus()
    for annotation in content["annotations"]["list"]:
        annotation |= own.get(annotation["name"], {})
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write all dashboards, or say which differ."""
    differing = []
    for name in CONTENTS:
        path = HERE / f"{name}.json"
        if arguments == ["--check"]:
            differing += [path.name] if not path.exists() or path.read_text() != text(name) else []
        else:
            path.write_text(text(name))
    if differing:
        print(f"{', '.join(differing)} differ from what the code builds; run python -m dashboards.build")  # noqa: T201
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
