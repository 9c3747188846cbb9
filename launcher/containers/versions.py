"""What computes here: `python -m btard.launcher.containers.versions` says it in an image, for a launcher outside."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

import msgspec


class Versions(msgspec.Struct, frozen=True):
    """torch with its build, as an environment's fingerprint names it, and this package; empty: not there."""

    torch: str
    btard: str


def installed(package: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def here() -> Versions:
    """The versions of this interpreter. torch is not imported: that takes seconds."""
    return Versions(_torch(), installed("btard") or "")


def difference(mine: Versions, theirs: Versions) -> str:
    """What differs between a launcher and an image, in words; empty: nothing that is known of both."""
    pairs = [(name, getattr(mine, name), getattr(theirs, name)) for name in Versions.__struct_fields__]
    return ", ".join(
        f"{name} {own} here, {other} there" for name, own, other in pairs if own and other and own != other
    )


def _torch() -> str:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    written = re.search(r"^__version__ = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return written[1] if written is not None else ""


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(here()) + b"\n")
