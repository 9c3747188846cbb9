"""Every import of the packages, read from their source: at the top, under TYPE_CHECKING and inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
Graph = dict[str, set[str]]
"""By module: the modules of the packages, and the others, that it imports."""


def sources(*packages: str) -> dict[str, str]:
    """The text of each module of packages, by its name; `btard` has links to the folders `node` and `launcher`."""
    return {
        (f"btard.{name}" if package in ("node", "launcher") else name): file.read_text("utf-8")
        for package in packages
        for file in sorted((ROOT / package).rglob("*.py"))
        for name in (".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"),)
    }


def graph(texts: Mapping[str, str]) -> Graph:
    """What each module imports. `from a import b` is `a.b` where that is a module, else `a`."""
    return {module: set(_imported(module, text, texts.keys())) - {module} for module, text in texts.items()}


def circles(found: Graph) -> dict[frozenset[str], int]:
    """Modules that reach each other, with the number of imports among them. Empty: there is no circle of any kind."""
    left = dict(found)
    # What imports nothing that is left, or is imported by nothing, is in no circle: few modules remain.
    while ends := [module for module in left if not left[module] & left.keys()]:
        left = {module: left[module] for module in left.keys() - set(ends)}
    while starts := left.keys() - set().union(*left.values()):
        left = {module: left[module] for module in left.keys() - starts}
    reached = {module: _reach(left, module) for module in left}
    rings = {frozenset(other for other in reached[module] if module in reached.get(other, ())) for module in left}
    return {ring: sum(len(found[module] & ring) for module in ring) for ring in rings if ring}


def levels(found: Graph) -> list[list[frozenset[str]]]:
    """The modules from the lowest on, each above all that it imports; those of a circle stand together."""
    ring_of = {module: ring for ring in circles(found) for module in ring}
    groups = {ring_of.get(module, frozenset((module,))) for module in found}
    wants = {group: {ring_of.get(other, frozenset((other,))) for module in group for other in found[module]
                     if other in found} - {group} for group in groups}  # fmt: skip
    placed: list[list[frozenset[str]]] = []
    while wants:
        ready = [group for group, below in wants.items() if not below & wants.keys()]
        placed.append(sorted(ready, key=sorted))
        wants = {group: below for group, below in wants.items() if group not in ready}
    return placed


def within(module: str, package: str) -> bool:
    """True for a package and for what is in it."""
    return module == package or module.startswith(f"{package}.")


def _reach(found: Graph, module: str) -> set[str]:
    """What a module imports, directly or not; itself only if a circle leads back."""
    seen: set[str] = set()
    left = list(found[module])
    while left:
        if (other := left.pop()) not in seen:
            seen.add(other)
            left.extend(found.get(other, ()))
    return seen


@lru_cache(maxsize=1024)
def _statements(text: str) -> tuple[ast.stmt, ...]:
    return tuple(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom))


def _imported(module: str, text: str, known: Set[str]) -> Iterator[str]:
    for node in _statements(text):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=where, names=names, level=level):
                base = where or ""
                if level:
                    # A relative import counts from the package: a module's own, or the `__init__` itself.
                    package = module if _is_package(module, known) else module.rpartition(".")[0]
                    parts = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*parts, *([where] if where else [])])
                for alias in names:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in known else base
            case _:
                pass


def _is_package(module: str, known: Set[str]) -> bool:
    return any(each.startswith(f"{module}.") for each in known)
