"""Dependencies point one way: every import is looked at, those under TYPE_CHECKING and inside functions too.

import-linter holds the layers (pyproject.toml); here are what it cannot say: which of the standard library the core may
use, and that there is no circle of any kind. A list here can only fall: what is repaired has to be struck.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from functools import cache, lru_cache

import pytest

from tests.development.layers import CONTAINERS, layered
from tests.imports import ROOT, circles, graph, levels, sources, within

CORE = "btard.node.protocol"
PURE = frozenset({"__future__", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "math",
                  "statistics", "struct", "typing"})  # fmt: skip
"""Of the standard library, what has no clock, no socket, no thread, no file and no chance."""
LIBRARIES = frozenset({"blake3", "msgspec", "numpy", "torch"})
BESIDE_THE_CORE = {
    "btard.node.errors": "the tree of errors, which imports nothing",
    "btard.node.limits": "how many peers a run may have, one constant",
    "btard.node.vector_pool": "vectors whose memory is used again: no file, no clock",
}
"""Modules outside the core that it imports, each with its reason."""

FORBIDDEN = (
    ("btard.node", "btard.launcher"),
    ("btard.launcher", "btard.launcher.cli"),
)
"""(importer, what neither it nor anything in it imports but from inside): the command line is nobody's library."""


@cache
def texts() -> dict[str, str]:
    return sources("node", "launcher")


def problems(modules: Mapping[str, str]) -> list[str]:
    """What is wrong with the imports of these modules, a line each."""
    found, imports = [], graph(modules)
    for module, imported in sorted(imports.items()):
        if within(module, CORE):
            found += [f"{module} imports {other}: the core may not" for other in sorted(imported) if not _may(other)]
            if _reaches_out(modules[module]):
                found.append(f"{module} imports or reads what its import statements do not say")
        for importer, other in FORBIDDEN:
            if within(module, importer) and not within(module, other) and not module.endswith(".__main__"):
                found += [f"{module} imports {each}" for each in sorted(imported) if within(each, other)]
    return found + [f"a circle: {', '.join(sorted(ring))}" for ring in circles(imports)]


def stale(modules: Mapping[str, str]) -> list[str]:
    """Listed exceptions that the modules do not need any more."""
    imports = graph(modules)
    core = set().union(*(imported for module, imported in imports.items() if within(module, CORE)))
    return [
        *(f"the core does not import {name} any more; strike it" for name in BESIDE_THE_CORE if name not in core),
        *(f"nothing in the core imports {name}; strike it" for name in PURE
          if name not in {each.partition(".")[0] for each in core}),
    ]  # fmt: skip


@lru_cache(maxsize=256)
def _reaches_out(text: str) -> bool:
    """True where a module imports or reads by calling a built-in function."""
    return any(isinstance(node, ast.Name) and node.id in ("__import__", "eval", "exec", "open")
               for node in ast.walk(ast.parse(text)))  # fmt: skip


def _may(other: str) -> bool:
    return within(other, CORE) or other in BESIDE_THE_CORE or other.partition(".")[0] in PURE | LIBRARIES


def with_line(module: str, line: str) -> dict[str, str]:
    """The sources with one more line at the end of a module."""
    assert module in texts()
    return {**texts(), module: f"{texts()[module]}\n{line}\n"}


def test_imports_are_as_they_should_be() -> None:
    assert problems(texts()) == []


def test_every_module_stands_in_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    told = {each["containers"][0]: each["layers"] for each in contracts if each["type"] == "layers"}
    assert told.keys() == CONTAINERS.keys()
    for package, rows in told.items():
        placed = sorted(name for row in rows for name in re.split(r" [|:] ", row))
        wanted = sorted(name for row in layered(package, texts()) for name in re.split(r" [|:] ", row))
        assert placed == wanted, f"{package}: `python -m tests.development.layers` prints today's"


def test_no_listed_exception_is_left_over() -> None:
    assert stale(texts()) == []


INNER = "def _later() -> None:\n    {}"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}"


@pytest.mark.parametrize("form", ["{}", INNER, TYPES], ids=["at the top", "in a function", "for types alone"])
@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        (
            "btard.node.protocol.peer",
            "import socket, time, threading, random",
            "btard.node.protocol.peer imports random: the core",
        ),
        ("btard.node.protocol.peer", "import threading", "btard.node.protocol.peer imports threading: the core"),
        (
            "btard.node.protocol.state.state",
            "from os import environ",
            "btard.node.protocol.state.state imports os: the core may not",
        ),
        (
            "btard.node.protocol.attempt.attempt",
            "from btard.node.storage import checkpointer",
            "btard.node.protocol.attempt.attempt imports btard.node.storage.checkpointer: the core may not",
        ),
        (
            "btard.node.protocol.attempt.attempt",
            "from btard.node.storage.checkpointer import Keeper",
            "btard.node.protocol.attempt.attempt imports btard.node.storage.checkpointer: the core",
        ),
        (
            "btard.node.protocol.attempt.attempt",
            "from ...storage import checkpointer",
            "btard.node.protocol.attempt.attempt imports btard.node.storage.checkpointer: the core may not",
        ),
        (
            "btard.node.protocol.attempt.attempt",
            "__import__('time')",
            "imports or reads what its import statements do not say",
        ),
        (
            "btard.launcher.report.run_page",
            "import btard.launcher.cli.main",
            "btard.launcher.report.run_page imports btard.launcher.cli",
        ),
        ("btard.launcher.report", "from btard.launcher import cli", "btard.launcher.report imports btard.launcher.cli"),
        (
            "btard.launcher.report",
            "from btard.launcher.cli import main",
            "btard.launcher.report imports btard.launcher.cli",
        ),
        (
            "btard.node.storage.journal",
            "import btard.launcher.files",
            "btard.node.storage.journal imports btard.launcher.files",
        ),
        (
            "btard.node.protocol.wire.messages",
            "from btard.node.protocol import peer",
            "a circle: btard.node.protocol.adjudication.charges, ",
        ),
        (
            "btard.node.errors",
            "from btard.node import storage\nfrom btard.node.storage import journal",
            "a circle: btard.node.errors, btard.node.storage.journal",
        ),
        (
            "btard.node.protocol.state.state",
            "from btard.node.protocol import api",
            "a circle: btard.node.protocol.api, btard.node.protocol.state.state",
        ),
        (
            "btard.node.protocol.wire.messages",
            "from btard.node.protocol.wire import encoding",
            "a circle: btard.node.protocol.wire.encoding, btard.node.protocol.wire.messages",
        ),
    ],
)
def test_an_import_that_breaks_a_rule_is_seen(module: str, line: str, words: str, form: str) -> None:
    if module not in texts():
        pytest.fail(f"{module} has moved: name its new place")
    found = problems(with_line(module, form.format(line)))
    assert any(words in each for each in found), found


def test_levels_put_each_module_above_what_it_imports() -> None:
    """What the contracts in pyproject.toml are read from."""
    found = levels({"a": {"b", "os"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"d"}})
    assert found == [[frozenset("d")], [frozenset("bc"), frozenset("e")], [frozenset("a")]]
