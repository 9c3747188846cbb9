"""What nothing needs is not there, and what is left over from before has to go: lists and budgets that only fall."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

import pytest

from btard import moved
from tests.imports import ROOT, graph, sources

FMT_SKIP = "# fmt" + ": skip"
BUDGET = {"node": 78, "launcher": 120, "tests": 390, "docs": 11}
"""How often the formatter is overruled. Lower it with every one that goes."""

ALIVE: Mapping[str, str] = {
    "btard.node.kernels.dispatch.Portable._should_skip_dynamo": "torch asks it",
    "btard.launcher.cli.flags.GroupedCommand.format_options": "click calls it",
    "btard.node.metrics.http._Request.log_message": "http.server calls it",
    "btard.node.training.datasets.arrays_pickle._ArraysUnpickler.find_class": "pickle calls it",
    "tests.adversary.snapshot._Pickler.reducer_override": "pickle calls it",
    "tests.unit.launcher.monitor.test_grafana._Api.log_message": "http.server calls it",
}
"""Definitions that no name refers to, each with who uses it all the same."""

ONE_IMPORTER: Mapping[str, tuple[str, ...]] = {
    "one of several of its kind, a file each: rules, attacks, models, data sets, exports, figures": (
        "btard.node.aggregation.centered_clip", "btard.node.aggregation.meamed", "btard.node.aggregation.pre.worker_momentum",
        "btard.node.adversary.attacks.false_rule", "btard.node.training.datasets.prepare_cifar10", "btard.node.training.models.pooled_convolution",
        "btard.node.training.models.resnet", "btard.node.training.models.transformer", "btard.node.training.tasks.mnist_cnn", "btard.launcher.backends.simulated",
        "btard.launcher.export.lenet_onnx", "btard.launcher.export.module_onnx",
        "btard.launcher.export.perfetto", "btard.launcher.export.tensorboard_logs", "btard.launcher.figures.printed",
    ),
    "a command or a process, which its importer starts": (
        "btard.node.kernels.building",
        "btard.node.baselines.comparison", "btard.node.metrics.healthcheck", "btard.node.plugins.check", "btard.launcher.bench.command",
        "btard.launcher.bench.worker", "btard.launcher.cli.main", "btard.launcher.run.cleaning", "btard.launcher.cli.ending", "btard.launcher.cli.doctor",
        "btard.launcher.cli.commands", "btard.launcher.cli.node", "btard.launcher.emit.emitters", "btard.launcher.report.command", "btard.launcher.sweep.command",
    ),
    "a borderline to a system outside: sockets, files, kernel": (
        "btard.node.transport.channels", "btard.node.transport.connection_monitor", "btard.node.transport.bulk_tokens",
        "btard.node.storage.own_address", "btard.launcher.run.collecting",
        "btard.launcher.emit.pods", "btard.launcher.containers.roles", "btard.launcher.containers.netns", "btard.launcher.containers.netqueue",
        "btard.launcher.containers.shaper",
    ),
    "a calculation of its own, tested without its importer": (
        "btard.node.aggregation.clip_solver", "btard.node.kernels.dispatch", "btard.node.transport.slow_sender_guard", "btard.node.drivers.bootstrap", "btard.node.metrics.collectors", "btard.node.transport.rtt_probes", "btard.node.vector_pool",
        "btard.node.transport.address_records", "btard.node.protocol.evidence.explanation",
        "btard.launcher.report.claims", "btard.launcher.report.compare", "btard.launcher.report.front", "btard.launcher.report.harm", "btard.launcher.report.replay", "btard.launcher.report.strategies", "btard.launcher.report.tuned", "btard.launcher.run.loaded",
        "btard.launcher.run.undo_window", "btard.launcher.bench.kinds", "btard.launcher.bench.vectors", "btard.launcher.bench.measure", "btard.launcher.bench.training",
    ),
    "a part of a whole, which owns what it decides by": ("btard.node.protocol.attempt.lifecycle",),
    "cut off to be short: to be joined with its importer, or composed, when the modules move": (
        "btard.node.adversary.commits", "btard.node.adversary.memory", "btard.node.verify.final_parameters", "btard.node.storage.durability", "btard.node.metrics.worker_metrics",
        "btard.launcher.run.scenario",
    ),
}  # fmt: skip
"""Modules that one other imports, by the reason to keep them apart for now."""

MOVED: Mapping[str, str] = moved.MODULES
"""Old module -> new one. No text but decisions and the changelog names the old one again."""

RENAMED: Mapping[str, str] = {
    "Arbitration": "Dispute",
    "Candidate": "StateSyncClient",
    "Cargo": "Transfers",
    "Cue": "ScheduledEvent",
    "Desk": "NodeTotals",
    "Director": "Scheduler",
    "Disputing": "DisputeRouter",
    "Exposition": "MetricsEndpoint",
    "Folder": "Retention",
    "Gate": "ZapAuthenticator",
    "Guard": "SlowSenderGuard",
    "Hearing": "Round",
    "Keeper": "Checkpointer",
    "Keeping": "DurableMachine",
    "Lesson": "Snapshot",
    "LessonArrived": "SnapshotArrived",
    "Lines": "ConnectionMonitor",
    "Mailroom": "Admission",
    "Meter": "MetricsRecorder",
    "Monitor": "LiveView",
    "Play": "Player",
    "Porch": "StateSyncServer",
    "Quota": "FlowControl",
    "Readings": "Collectors",
    "RoundTrips": "RttProbes",
    "Seat": "PeerState",
    "Settling": "AttemptLifecycle",
    "Shelf": "StateCodec",
    "Station": "PrometheusSession",
    "Teach": "SendSnapshot",
    "Tokens": "BulkTokens",
    "Truth": "GroundTruth",
    "Union": "ViewMerge",
}
"""Old identifier -> new one: the glossary. No definition bears the old one again."""

HISTORY = ("docs/adr/", "CHANGELOG.md", "tests/test_tidy.py", "tests/test_package.py")
_TEXTS = (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".pml")
# A definition with another decorator is used by it: it is registered, or a fixture.
_PLAIN = frozenset({"property", "staticmethod", "classmethod", "cache", "lru_cache", "cached_property", "dataclass",
                    "contextmanager", "abstractmethod", "overload", "override", "final", "total_ordering",
                    "runtime_checkable", "setter", "wraps"})  # fmt: skip


@cache
def texts() -> dict[str, str]:
    return sources("node", "launcher", "tests", "docs")


@cache
def product() -> dict[str, str]:
    return sources("node", "launcher")


@lru_cache(maxsize=2048)
def _definitions(text: str) -> tuple[tuple[str, int, int], ...]:
    """(qualified name, first line, last line) of functions, classes and constants of a module, and of methods."""
    return tuple(_defined(ast.parse(text).body, ""))


def _defined(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, int, int]]:
    for node in body:
        last = node.end_lineno or node.lineno
        match node:
            case ast.ClassDef(name=name, body=inner) if not inside:
                if not _registered(node):
                    yield name, node.lineno, last
                yield from _defined(inner, f"{name}.")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not _registered(node) and not (name.startswith("__") and name.endswith("__")):
                    yield inside + name, node.lineno, last
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if not (
                inside or name.startswith("__")
            ):
                yield name, node.lineno, last
            case ast.If(body=first, orelse=second) if not inside:
                yield from _defined([*first, *second], inside)
            case _:
                pass


def _registered(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in _PLAIN:
            return True
    return False


@lru_cache(maxsize=2048)
def _references(text: str, strings: bool = True) -> tuple[tuple[str, int], ...]:
    """(name, line) of everything that could refer to a definition; a string that is a name counts."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                found.append((name, node.lineno))
            case ast.alias(name=name):
                found += [(part, node.lineno) for part in name.split(".")]
            case ast.Constant(value=str(word)) if strings and len(word) < 100:
                found += [(part, node.lineno) for part in word.replace(":", ".").split(".") if part.isidentifier()]
            case ast.MatchClass(kwd_attrs=names):
                found += [(name, node.lineno) for name in names]
            case _:
                pass
    return tuple(found)


def dead(modules: Mapping[str, str]) -> list[str]:
    """`module.name` of each definition that nothing refers to but itself. By name alone: a namesake keeps it alive."""
    # The lists above and the examples below must not keep alive what they name.
    words = {module: _references(text, module != __name__) for module, text in modules.items()}
    count = Counter(name for found in words.values() for name, _ in found)
    found = []
    for module, text in sorted(modules.items()):
        for qualified, first, last in _definitions(text):
            name = qualified.rpartition(".")[2]
            if _found_by_pytest(module, name):
                continue
            inner = sum(word == name and first <= line <= last for word, line in words[module])
            if count[name] == inner:
                found.append(f"{module}.{qualified}")
    return found


def _found_by_pytest(module: str, name: str) -> bool:
    return module.startswith("tests.") and name.startswith(("test_", "Test", "pytest_", "pytestmark"))


def lonely(modules: Mapping[str, str]) -> dict[str, str]:
    """Modules that one other imports, with it: `__init__` files gather, and do not count as importers."""
    importers: dict[str, set[str]] = {module: set() for module in modules}
    packages = {module for module in modules if any(other.startswith(f"{module}.") for other in modules)}
    for module, imported in graph(modules).items():
        for other in imported & modules.keys():
            if module not in packages:
                importers[other].add(module)
    return {module: min(found) for module, found in importers.items() if len(found) == 1 and module not in packages}


def overruled() -> dict[str, int]:
    return {
        package: sum(
            text.count(FMT_SKIP)
            for module, text in texts().items()
            if module.removeprefix("btard.").split(".")[0] == package
        )
        for package in BUDGET
    }


def written() -> Iterator[tuple[str, str]]:
    """(path, text) of what the repository says today."""
    for file in sorted(ROOT.rglob("*")):
        path = file.relative_to(ROOT).as_posix()
        if file.suffix in _TEXTS and not path.startswith((".", *HISTORY)) and "/." not in path and file.is_file():
            yield path, file.read_text("utf-8")


def old_modules(table: Mapping[str, str], lines: Iterator[tuple[str, str]]) -> list[str]:
    """Where a text names a module by a name that it had: as a file, in an import, or outside code as a dotted name."""
    return [
        f"{path}: {old} is {table[old]} now"
        for path, text in lines
        for pattern in (_FILE, _FROM, *([] if path.endswith(".py") else [_DOTTED]))
        for found in (match[match.lastindex or 0] for match in pattern.finditer(text))
        if (old := re.sub("[/ ]+(?:import +)?", ".", found)) in table
    ]


_FILE = re.compile(r"(?<![\w-])(?<![\w-]/)((?:node|launcher)/[\w/]+)\.py\b")
_FROM = re.compile(r"\bfrom ((?:node|launcher)[\w.]* +import +\w+)|\bimport ((?:node|launcher)\.[\w.]+)")
_DOTTED = re.compile(r"(?<![\w./])((?:node|launcher)\.[\w.]*\w)")


def old_names(table: Mapping[str, str], modules: Mapping[str, str]) -> list[str]:
    """Definitions that bear a name which the glossary has replaced."""
    return [
        f"{module}.{qualified}: {name} is {table[name]} now"
        for module, text in modules.items() for qualified, _, _ in _definitions(text)
        if (name := qualified.rpartition(".")[2]) in table
    ]  # fmt: skip


def test_nothing_is_defined_for_nobody() -> None:
    found = set(dead(texts()))
    assert sorted(found - ALIVE.keys()) == [], "nothing refers to it: delete it"
    assert sorted(ALIVE.keys() - found) == [], "it is not dead any more: strike it from ALIVE"


def test_a_module_with_a_single_importer_is_listed() -> None:
    found, listed = set(lonely(product())), {module for modules in ONE_IMPORTER.values() for module in modules}
    assert sorted(found - listed) == [], "one module imports it: put it there, or give a reason"
    assert sorted(listed - found) == [], "strike it from ONE_IMPORTER"


def test_every_module_of_the_core_has_a_test_module_of_its_name() -> None:
    core, tests = ROOT / "node" / "protocol", ROOT / "tests" / "unit" / "node" / "protocol"
    modules = [path.relative_to(core) for path in core.rglob("*.py") if path.stem != "__init__"]
    assert len(modules) > 30
    assert [str(each) for each in modules if not (tests / each).with_name(f"test_{each.name}").exists()] == []


def test_the_formatter_decides() -> None:
    over = {package: (count, BUDGET[package]) for package, count in overruled().items() if count > BUDGET[package]}
    assert over == {}, "(now, budget): let the formatter decide"


def test_old_names_do_not_come_back() -> None:
    assert old_modules(MOVED, written()) == []
    assert old_names(RENAMED, texts()) == []
    assert [new for new in MOVED.values() if f"btard.{new}" not in texts()] == []


@pytest.mark.parametrize(
    ("module", "line", "name"),
    [
        ("btard.node.errors", "def _nobody_asks() -> None: ...", "_nobody_asks"),
        ("btard.launcher.exits", "NOBODY_READS = 7", "NOBODY_READS"),
        ("btard.node.limits", "class NobodyMakes:\n    def nobody_calls(self) -> int:\n        return self.nobody_calls()",
         "NobodyMakes.nobody_calls"),
        ("tests.waiting", "def nobody_waits() -> None:\n    nobody_waits()", "nobody_waits"),
    ],
)  # fmt: skip
def test_a_dead_definition_is_seen(module: str, line: str, name: str) -> None:
    assert f"{module}.{name}" in dead({**texts(), module: f"{texts()[module]}\n{line}\n"})


def test_a_namesake_in_use_and_what_is_registered_are_alive() -> None:
    assert dead({"node.a": "@attack\nclass A: ...\ndef b() -> None: ...\n", "node.c": "from node.a import b\n"}) == []


def test_a_new_module_for_one_other_is_seen() -> None:
    more = {
        **product(),
        "btard.node.new": "",
        "btard.node.errors": f"{product()['btard.node.errors']}\nfrom btard.node import new\n",
    }
    assert lonely(more).get("btard.node.new") == "btard.node.errors"


def test_an_old_name_is_seen() -> None:
    told = iter(
        [
            ("docs/x.md", "see node/protocol/porch.py"),
            ("node/y.py", "from node.protocol import porch\n"),
        ]
    )
    assert old_modules({"node.protocol.porch": "node.protocol.state_sync.server"}, told) == [
        "docs/x.md: node.protocol.porch is node.protocol.state_sync.server now",
        "node/y.py: node.protocol.porch is node.protocol.state_sync.server now",
    ]
    assert old_names({"Porch": "StateSyncServer"}, {"node.a": "class Porch: ...\n"}) == [
        "node.a.Porch: Porch is StateSyncServer now"
    ]
