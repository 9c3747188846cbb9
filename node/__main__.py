"""`python -m node CONFIG.json`: one worker, for containers and for hand-started clusters."""

from __future__ import annotations

import sys
from pathlib import Path

from node import config, worker
from node.errors import BtardError


def main() -> int:
    """Run the worker that the given configuration file describes."""
    if len(sys.argv) != 2:
        print("usage: python -m node CONFIG.json (write one with `btard-launch plan`)", file=sys.stderr)  # noqa: T201
        return 2
    try:
        loaded = config.load(Path(sys.argv[1]))
    except BtardError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return worker.main(loaded)


if __name__ == "__main__":
    sys.exit(main())
