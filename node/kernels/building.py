"""Builds the kernels' libraries, by the machine's own C compiler, when the package is installed.

A wheel holds them in `node/kernels/built` (hatch_build.py); an editable installation, and a clone that was not
installed, which builds them on first use, have them in the user's cache.

    python node/kernels/building.py DIR

builds all of them into DIR, which is how the container image gets them: the stage that installs has no compiler. Only
the standard library is imported here, so that a place without the package's dependencies can do that.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
BUILT = FOLDER / "built"
"""Libraries built beforehand; it need not be there."""
CACHE = Path("~/.cache/btard/kernels")
PASSES = ("kernels.c",)
PORTABLE = ("portable.c", "portable_kernels.h", "portable_lenet.h", "portable_transformer.h")
LIBRARIES = (PASSES, PORTABLE)
# No fast-math and no contraction: the order of sums and the rounding of products are part of the definition.
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno")
_SHARED = ("-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_LIMIT_S = 300.0  # five seconds of computing, on a machine that does other things too


def compiled(files: Sequence[str]) -> ctypes.CDLL | None:
    """A library that was built beforehand, or is built now; None where neither can be had."""
    try:
        return ctypes.CDLL(str(library(files, CACHE.expanduser())))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def library(files: Sequence[str], directory: Path) -> Path:
    """The path of a library that was built beforehand, else of one in `directory`, where it is built if need be.

    Raises: what `compiler` and `build` raise.
    """
    ready = BUILT / _name(files)
    return ready if ready.exists() else build(compiler(), directory, files)


def compiler() -> str:
    """Path of this machine's C compiler.

    Raises:
        FileNotFoundError: it has none.
    """
    found = next((found for name in _COMPILERS if (found := shutil.which(name)) is not None), None)
    if found is None:
        raise FileNotFoundError("no C compiler here (cc, gcc or clang); install gcc")
    return found


def build(compiler: str, directory: Path, files: Sequence[str]) -> Path:
    """Compile one of this folder's sources into `directory`, unless it lies there; returns the library's path.

    Args:
        compiler: path of a C compiler that takes GCC's options.
        directory: made if it is not there; the library's name is a digest of its sources and options.
        files: the source, then what it includes.

    Raises:
        OSError: the directory cannot be written.
        subprocess.SubprocessError: the compiler failed.
    """
    target = directory / _name(files)
    if not target.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=directory) as aside:
            made = Path(aside) / target.name
            command = [compiler, *FLAGS, *_SHARED, str(FOLDER / files[0]), "-o", str(made), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
            made.replace(target)  # another process may be at it too: either file is whole
    return target


def _name(files: Sequence[str]) -> str:
    """The file of a library: what it computes follows from these sources and options, whoever compiled it."""
    parts = [(FOLDER / name).read_bytes() for name in files]
    parts += [each.encode() for each in (*FLAGS, *_SHARED, platform.machine())]
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest() + ".so"


if __name__ == "__main__":
    for _files in LIBRARIES:
        _made = build(compiler(), Path(sys.argv[1]), _files)
        _made.chmod(0o755)
        sys.stdout.write(f"{_made}\n")
    Path(sys.argv[1]).chmod(0o755)
