"""Attacks, rules and tasks from outside this package: files that a user names, and installed packages.

An installed package offers a module under the entry point group `btard.plugins`; it is imported when a registry is read
for the first time. A file is named with `--import`; all peers of a run must hold the same one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from blake3 import blake3

from btard import moved
from btard.node.errors import BtardError, ConfigError, PluginError

GROUP = "btard.plugins"

FAILED = 70
"""Exit code of a process whose attack, rule or task raised or broke its interface: the mistake of its author ends the
run, and must not pass for the silence of a peer."""

_loaded: set[str] = set()
_MODULE = "btard_import_"
_packages: set[str] = set()
"""Top-level names of the installed packages that offered something."""


def label(path: Path) -> str:
    """How peers name a file: its name and a digest of its content.

    Raises:
        ConfigError: it cannot be read, or is no Python file.
    """
    if path.suffix != ".py":
        raise ConfigError(f"--import {path} is no Python file; name one that ends in .py")
    try:
        return f"{path.name} {blake3(path.read_bytes()).hexdigest(length=16)}"
    except OSError as error:
        raise ConfigError(f"--import {path} cannot be read: {error.strerror}; name an existing file") from error


def load(paths: Sequence[Path]) -> None:
    """Run the files, each content once in this process, so that their decorators register what they define.

    Raises:
        ConfigError: one cannot be read, or raises; the message has the line.
    """
    for path in paths:
        found = label(path)
        if found not in _loaded:
            _run(path, f"{_MODULE}{path.stem}_{found.rpartition(' ')[2]}")
            _loaded.add(found)


def require(labels: Sequence[str]) -> None:
    """Refuse to go on without the files that a run was made with.

    Raises:
        ConfigError: one of them has not been loaded, or with another content.
    """
    for wanted in labels:
        if wanted not in _loaded:
            name, _, digest = wanted.rpartition(" ")
            raise ConfigError(
                f"this run was made with --import {name} (content {digest}), which is not loaded here; its run "
                f"directory holds a copy: read imports/{name}, and if you trust it, pass --import with its path"
            )


@cache
def load_installed() -> None:
    """Import what installed packages offer.

    Raises:
        ConfigError: one of them cannot be imported; the message names its package.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            _packages.add(entry.module.partition(".")[0])
            entry.load()
        except BtardError:
            raise
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else "an installed package"
            raise ConfigError(
                f"plug-in {entry.name!r} ({entry.value}) of {package} cannot be imported: "
                f"{type(error).__name__}: {error}{moved.advice(error)}; repair or uninstall it"
            ) from error


def _run(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except ConfigError as error:
        del sys.modules[name]
        raise ConfigError(f"--import {path} failed{_where(error, path)}: {error}") from error
    except Exception as error:
        del sys.modules[name]
        said = f"{type(error).__name__}: {error}{moved.advice(error, _line(error, path)[1])}"
        advice = _beside(error, path) or "repair the file"
        raise ConfigError(f"--import {path} failed{_where(error, path)}: {said}; {advice}") from error


def _beside(error: Exception, path: Path) -> str | None:
    """What to do about a module that a script beside it would find."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or not any((path.parent / each).exists() for each in (name, f"{name}.py")):
        return None
    return (
        f"{name} lies beside it, but a run takes this file alone: install {name} as a package wherever the run is "
        f"computed or verified, or set PYTHONPATH={path.absolute().parent}"
    )


def _where(error: Exception, path: Path) -> str:
    """The last line of the file that the error passed through."""
    number = error.lineno if isinstance(error, SyntaxError) else _line(error, path)[0]
    return f" in line {number}" if number is not None else ""


def _line(error: Exception, path: Path) -> tuple[int | None, str]:
    """Number and text of the last line of a file that an error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1], linecache.getline(str(path), lines[-1] or 0)) if lines else (None, "")


def place(target: object) -> str:
    """Where a function or class is defined, as ` (mine.py line 12)`; empty where that cannot be told."""
    found = inspect.unwrap(getattr(target, "declared", target))  # type: ignore[arg-type]
    code = getattr(getattr(found, "__init__", None) if isinstance(found, type) else found, "__code__", None)
    return f" ({Path(code.co_filename).name} line {code.co_firstlineno})" if code is not None else ""


def foreign(module: object) -> bool:
    """True if a module of this name is a file of `--import`, or belongs to a package that offered something."""
    name = str(module)
    return name.startswith(_MODULE) or name.partition(".")[0] in _packages


def blame(error: BaseException) -> str | None:
    """The innermost line of a plug-in that an error passed through, as `mine.py line 12`; None: it is not a plug-in's.

    A plug-in's mistake must not look like a peer's misconduct; what comes up elsewhere is ours.
    """
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if foreign(frame.f_globals.get("__name__")):
            found = f"{Path(frame.f_code.co_filename).name} line {line}"
    return found


def failed(error: BaseException) -> bool:
    """True if an error is the mistake of an attack, a rule or a task."""
    return isinstance(error, PluginError) or blame(error) is not None


def told(error: BaseException) -> str:
    """An error in one line, with the line of the plug-in that raised it, if one did."""
    text = str(error) if isinstance(error, BtardError) else f"{type(error).__name__}: {error}"
    line = None if isinstance(error, PluginError) else blame(error)
    return f"{line} raised {text}" if line is not None else text
