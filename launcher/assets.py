"""Finds the data that ships beside the code: `deploy/` and `dashboards/`, in the wheel or in the clone."""

from __future__ import annotations

from pathlib import Path

from btard.node.errors import BackendError

_PACKAGE = Path(__file__).resolve().parent  # in a clone btard/launcher is a link


def root() -> Path:
    """What relative paths of a compose file start from: the clone, or what the wheel brought along.

    Raises:
        BackendError: neither is there.
    """
    return asset("deploy").parent


def asset(*parts: str) -> Path:
    """The file or folder called `parts`, for example `asset("deploy", "prometheus")`.

    Raises:
        BackendError: it is neither in the installed package nor in a clone around it.
    """
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise BackendError(f"{name} is missing from this installation at {_PACKAGE}; install again: pip install btard")
