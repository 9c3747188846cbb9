"""Prints the layers that import-linter holds (pyproject.toml) as the modules stand today.

python -m tests.development.layers
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tests.imports import Graph, graph, levels, sources, within

CONTAINERS = {
    "btard.node": ("protocol", "adversary.attacks", "aggregation", "kernels", "training.datasets"),
    "btard.node.protocol": (),
    "btard.launcher": ("backends", "bench", "detection", "figures"),
}
"""Each contract's package, and the packages in it that stand as one."""


def layered(container: str, texts: dict[str, str]) -> list[str]:
    """The layers of a package from the top, in import-linter's notation; circles have a line of their own."""
    whole = [f"{container}.{name}" for name in CONTAINERS[container]]

    def name(module: str) -> str:
        return next((package for package in whole if within(module, package)), module).removeprefix(f"{container}.")

    imports = graph(texts)
    # A package of which only the name is there stands nowhere.
    inside = {each for each in imports if each != container and within(each, container)
              and (imports[each] or not any(within(other, each) for other in imports if other != each))}  # fmt: skip
    merged: Graph = {}
    for module in inside:
        below = {name(other) for other in imports[module] & inside} - {name(module)}
        merged.setdefault(name(module), set()).update(below)
    rows = []
    for level in reversed(levels(merged)):
        alone = sorted(next(iter(each)) for each in level if len(each) == 1)
        rows += [" | ".join(alone)] * bool(alone) + [" : ".join(sorted(each)) for each in level if len(each) > 1]
    return rows


def _lines(row: str) -> Iterator[str]:
    if len(row) <= 110:
        yield f'    "{row}",'
        return
    yield '    """\\'
    pieces = textwrap.wrap(row, 110, break_long_words=False, break_on_hyphens=False)
    yield from (f"    {piece} \\" for piece in pieces[:-1])
    yield f'    {pieces[-1]}""",'


if __name__ == "__main__":
    for package in CONTAINERS:
        print(f'containers = ["{package}"]\nlayers = [')
        for each in layered(package, sources("node", "launcher")):
            print("\n".join(_lines(each)))
        print("]")
