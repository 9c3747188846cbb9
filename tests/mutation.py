"""Would the tests notice? Changes the sources one place at a time, and runs the tests of the changed module.

    python -m tests.mutation --table                              # the hand-made mutants of tests/mutants.py
    python -m tests.mutation --sample 500 --seed 1 --record docs/reports/mutants.csv

A mutant lives in a fork: the mutated module's source never touches the disk, and what takes time to import is
imported once. A fork may use 30 s of CPU; one that needs more hangs, which is noticed too, and so is one that waits for
ever. A process that forks should have no threads: a fork inherits their locks as they are. A sample that was
interrupted goes on where it stopped; a smaller one is the beginning of a larger one.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import csv
import gc
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from hashlib import blake2b
from importlib.machinery import ModuleSpec
from itertools import takewhile
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pytest

M = TypeVar("M")

ROOT = Path(__file__).parent.parent
CPU_S = 30
PATIENCE = 20
"""So many times its processor time a fork may take by the clock."""
SHARED = (
    "pytest",
    "hypothesis",
    "tests.conftest",
    "tests.simulation.checkers",
    "btard.launcher.run.summary",
    "btard.node.verify.audit",
)
"""What forks find imported."""

SAMPLED = (
    "btard.node.protocol.adjudication.judging",
    "btard.node.protocol.adjudication.charges",
    "btard.node.protocol.adjudication.complaints",
    "btard.node.protocol.adjudication.offences",
    "btard.node.protocol.attempt.transfers",
    "btard.node.protocol.attempt.attempt",
    "btard.node.protocol.disputes.dispute",
    "btard.node.protocol.disputes.dolev_strong",
    "btard.node.protocol.disputes.previous_attempt",
    "btard.node.protocol.disputes.resolution",
    "btard.node.protocol.router",
    "btard.node.protocol.evidence.format",
    "btard.node.protocol.evidence.verifier",
    "btard.node.protocol.state_sync.probation",
    "btard.node.protocol.wire.certificate",
    "btard.node.verify.audit",
    "btard.launcher.verify.verification",
)
"""Certificates, disputes, verdicts, omissions and `verify`."""
MORE = {
    "btard.node.protocol.adjudication.judging": ("tests/unit/node/protocol/adjudication/test_charges.py",),
    "btard.node.protocol.adjudication.complaints": ("tests/unit/node/protocol/attempt/test_deadlines.py",),
    "btard.node.verify.audit": ("tests/unit/launcher/verify/test_verification.py",),
}
"""Test modules of a module beside that of its name."""
OPTIONS = (
    "-x",
    "-q",
    "-s",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:unraisableexception",
    "-m",
    "not slow and not sockets and not mnist and not containers and not gpu",
)
"""How a module's tests are run, and which."""


# --- mutants ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mutant:
    """One place of a module and what stands there instead.

    Args:
        module: its name.
        number: of the place, in the order in which `places` finds them.
        line, function, operator, before, after: for people.
    """

    module: str
    number: int
    line: int
    function: str
    operator: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant.

    Args:
        result: killed, survived, hung (which a test run notices as well), or unsure (not decided yet).
        by: the first test that failed.
        cpu_s: of its fork.
    """

    result: str
    by: str
    cpu_s: float


FLIPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
SWAPS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


def source_of(module: str) -> str:
    """The module's text."""
    return path_of(module).read_text()


def path_of(module: str) -> Path:
    """Where the module lies."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def own_tests(module: str) -> tuple[str, ...]:
    """The test module of its name, and what else is its own."""
    path = Path("tests", "unit", *module.split(".")[1:])
    return (str(path.with_name(f"test_{path.name}.py")), *MORE.get(module, ()))


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(operator, what stands there instead) for one node of the tree."""
    match node:
        case ast.Compare(ops=ops):
            for place, operator in enumerate(ops):
                changed = copy.deepcopy(node)
                changed.ops[place] = FLIPS[type(operator)]()
                yield "comparison", changed
        case ast.Constant(value=value) if type(value) in (int, float):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.BoolOp(op=ast.And(), values=values):
            yield "and/or", ast.BoolOp(ast.Or(), values)
        case ast.BoolOp(op=ast.Or(), values=values):
            yield "and/or", ast.BoolOp(ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", operand
        case ast.BinOp(op=operator) if type(operator) in SWAPS:
            yield "arithmetic", ast.BinOp(node.left, SWAPS[type(operator)](), node.right)
        case ast.Return(value=ast.expr() as value):
            for other in (None, False):
                if not (isinstance(value, ast.Constant) and value.value is other):
                    yield "return", ast.Return(ast.Constant(other))
        case ast.Expr(value=value) if not isinstance(value, ast.Constant):
            yield "deletion", ast.Pass()
        case ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            yield "deletion", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "deletion", ast.Pass()


def spots(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    """(parent, field, index, node, function) of all that runs: no annotation, no decorator."""

    def walk(parent: ast.AST, function: str) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST):
                    continue
                inner = function
                if isinstance(child, ast.FunctionDef | ast.ClassDef):
                    inner = f"{function}.{child.name}".lstrip(".")
                yield parent, name, index, child, function
                yield from walk(child, inner)

    return walk(tree, "")


def places(module: str) -> list[Mutant]:
    """Every mutant of a module."""
    return [mutant for mutant, _ in _mutants(module)]


def _mutants(module: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Every mutant with its tree, which is the same object each time: use it at once."""
    tree, number = ast.parse(source_of(module)), 0
    for parent, name, index, node, function in list(spots(tree)):
        for operator, other in changes(node):
            if index is None:
                setattr(parent, name, other)
            else:
                getattr(parent, name)[index] = other
            ast.copy_location(other, node)
            before, after = (" ".join(ast.unparse(each).split()) for each in (node, other))
            line = getattr(node, "lineno", 0)
            yield Mutant(module, number, line, function, operator, before[:120], after[:120]), tree
            number += 1
            if index is None:
                setattr(parent, name, node)
            else:
                getattr(parent, name)[index] = node


def compiled(module: str, numbers: Container[int]) -> Iterator[tuple[Mutant, CodeType]]:
    """Mutants of a module with the code that they make of it."""
    for mutant, tree in _mutants(module):
        if mutant.number in numbers:
            yield mutant, compile(ast.fix_missing_locations(tree), str(path_of(module)), "exec")


# --- running ----------------------------------------------------------------------------------------------------


class _Mutated(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from code of ours."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._module, self._code = module, code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        return importlib.util.spec_from_file_location(fullname, path_of(fullname), loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def _bodies(code: CodeType) -> dict[str, CodeType]:
    """Functions by their qualified names; those inside functions come with them."""
    found: dict[str, CodeType] = {}
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= {each.co_qualname: each} if each.co_flags & inspect.CO_OPTIMIZED else _bodies(each)
    return found


def _outside(code: CodeType) -> list[object]:
    """What runs when a module is imported: its own code and that of its classes."""
    parts = [each for each in code.co_consts if isinstance(each, CodeType)]
    plain = [each for each in code.co_consts if not isinstance(each, CodeType)]
    mine: list[object] = [code.co_code, repr(plain), code.co_names]
    return mine + [_outside(each) for each in parts if not each.co_flags & inspect.CO_OPTIMIZED]


class Examination:
    """Runs the tests of a module as they are, and in forks of that moment once more for each mutant.

    A fork begins with what the tests keep (simulated attempts, fixtures of the module), and runs those of them that
    call a function which the mutant changes, the fastest first. What passes them, or changes what an import runs, is
    unsure: `anew` decides.

    Args:
        module: its name.
        tests: a test module.
        mutants: each with its code.
        told: called with what becomes of each.
    """

    def __init__(
        self, module: str, tests: str, mutants: Iterable[tuple[M, CodeType]], told: Callable[[M, Outcome], None]
    ) -> None:
        self._module, self._tests, self._mutants, self._told = module, tests, mutants, told
        self._before = compile(source_of(module), str(path_of(module)), "exec")
        self._failed = ""

    def run(self) -> None:
        """All of it.

        Raises:
            SystemExit: the tests fail as the module is.
        """
        importlib.import_module(self._module)
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            status = _pytest([self._tests], self)
        if status or self._failed:
            raise SystemExit(f"{self._module}: its tests fail as it is; mend them first: pytest {self._tests}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of pytest's own: tests and mutants."""
        held = [
            each
            for each in gc.get_objects()
            if type(each) is FunctionType and each.__code__.co_filename == self._before.co_filename
        ]
        calls = self._observed(session.items, held)
        for mutant, code in self._mutants if not self._failed else ():
            outcome = Outcome("unsure", "", 0.0)
            if _outside(code) == _outside(self._before):
                bodies, before = _bodies(code), _bodies(self._before)
                changed = {name: body for name, body in bodies.items() if body != before.get(name)}
                tests = [item for _, item, names in calls if not names.isdisjoint(changed)]
                outcome = _forked(partial(_mutated, changed, held, tests))
                outcome = replace(outcome, result="unsure") if outcome.result == "survived" else outcome
            self._told(mutant, outcome)
        return True

    def _observed(
        self, items: Sequence[pytest.Item], held: Sequence[FunctionType]
    ) -> list[tuple[float, pytest.Item, set[str]]]:
        """Run each test: (seconds, test, functions of the module that it calls), the fastest first."""
        called: set[str] = set()
        sys.modules[self._module].__dict__["__called__"] = called
        _replace(held, _bodies(compile(_reporting(self._module), self._before.co_filename, "exec")))
        calls = []
        for item in items:
            called.clear()
            began_s = time.process_time()
            self._failed = self._failed or _failure(item)
            calls.append((time.process_time() - began_s, item, set(called)))
        _replace(held, _bodies(self._before))
        return sorted(calls, key=lambda call: call[0])


def _reporting(module: str) -> ast.Module:
    """A module whose functions add their names to `__called__`."""

    def report(parent: ast.Module | ast.ClassDef, within: str) -> None:
        for each in parent.body:
            match each:
                case ast.ClassDef():
                    report(each, f"{within}{each.name}.")
                case ast.FunctionDef():
                    each.body[:0] = ast.parse(f"__called__.add({within + each.name!r})").body

    tree = ast.parse(source_of(module))
    report(tree, "")
    return ast.fix_missing_locations(tree)


def _replace(held: Sequence[FunctionType], bodies: Mapping[str, CodeType]) -> None:
    """Give functions, wherever they are held, other bodies."""
    for function in held:
        body = bodies.get(function.__code__.co_qualname)
        if body is not None and body.co_freevars == function.__code__.co_freevars:
            function.__code__ = body


def _mutated(
    changed: Mapping[str, CodeType],
    held: Sequence[FunctionType],
    tests: Sequence[pytest.Item],
    failed: Callable[[str], None],
) -> None:
    """In a fork: some tests with a mutant's functions."""
    _replace(held, changed)
    for item in tests:
        failed(_failure(item))


def anew(module: str, code: CodeType, tests: Sequence[str]) -> Outcome:
    """What becomes of a mutant where everything is imported again, and nothing kept."""

    def run(failed: Callable[[str], None]) -> None:
        class Reporter:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                failed(report.nodeid if report.failed else "")

            def pytest_collectreport(self, report: pytest.CollectReport) -> None:
                failed(f"{report.nodeid} (import)" if report.failed else "")

        sys.meta_path.insert(0, _Mutated(module, code))
        for name in list(sys.modules):
            if name.split(".")[0] in ("btard", "tests"):
                del sys.modules[name]
        failed("no test" if _pytest(tests, Reporter()) else "")

    for name in SHARED:
        importlib.import_module(name)
    return _forked(run)


def _pytest(tests: Sequence[str], plugin: object) -> int:
    import pytest

    os.chdir(ROOT)
    return int(pytest.main([*OPTIONS, *tests], [plugin]))


def _failure(item: pytest.Item) -> str:
    """Run a test; its name if it fails. What other tests of its module share stays."""
    import pytest
    from _pytest.runner import runtestprotocol

    reports = runtestprotocol(item, log=False, nextitem=item.getparent(pytest.Module))  # type: ignore[arg-type]
    return item.nodeid if any(report.failed for report in reports) else ""


def _forked(tests: Callable[[Callable[[str], None]], None]) -> Outcome:
    """Run tests in a fork; they are given what ends it with the name of one that failed, if it is one."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _in_child(tests, write)
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as report:
        by, end_s = b"", time.monotonic() + PATIENCE * CPU_S
        while select.select([report], [], [], max(0.0, end_s - time.monotonic()))[0]:
            data = report.read(1 << 16)
            by += data
            if not data:
                break
        else:
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
    if os.WIFSIGNALED(status):
        return Outcome("hung", "no end within the limit", cpu_s)
    return Outcome("survived" if os.WEXITSTATUS(status) == 0 else "killed", by.decode(), cpu_s)


def _in_child(tests: Callable[[Callable[[str], None]], None], write: int) -> None:
    """Never returns."""

    def failed(name: str) -> None:
        if name:
            os.write(write, name.encode())
            os._exit(1)

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    gc.disable()  # a fork is short, and a collection would copy its parent's pages
    try:
        tests(failed)
    except BaseException as error:
        failed(f"{type(error).__name__}: {error}")
    os._exit(0)


# --- a sample ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the record; `reason` is written by hand where a mutant survives rightly."""

    module: str
    source: str
    number: int
    line: int
    function: str
    operator: str
    before: str
    after: str
    result: str
    by: str
    reason: str = ""


def sample(seed: int, count: int, modules: Sequence[str]) -> list[Mutant]:
    """Of the first `count` mutants in the order that a seed draws those of some modules."""
    everything = [mutant for module in SAMPLED for mutant in places(module)]
    Random(seed).shuffle(everything)
    return [mutant for mutant in everything[:count] if mutant.module in modules]


def digest_of(module: str) -> str:
    """Which text of a module a line of the record is about."""
    return blake2b(source_of(module).encode(), digest_size=6).hexdigest()


def read(record: Path) -> list[Row]:
    """The record's lines."""
    if not record.exists():
        return []
    with record.open(newline="") as lines:
        return [Row(**{**row, "number": int(row["number"]), "line": int(row["line"])}) for row in csv.DictReader(lines)]


def write(record: Path, rows: Sequence[Row]) -> None:
    """The record, by module and place."""
    record.parent.mkdir(parents=True, exist_ok=True)
    temporary = record.with_suffix(".tmp")
    with temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: (row.module, row.line, row.number)))
    temporary.replace(record)


def run_sample(wanted: Sequence[Mutant], record: Path, again: bool, minutes: float) -> int:
    """Run what the record does not hold yet (`again`: and what survived there); how many survive without a reason."""
    known = {(row.module, row.source, row.number): row for row in read(record)}
    end_s, modules = time.monotonic() + 60 * minutes, tuple(dict.fromkeys(mutant.module for mutant in wanted))

    def told(mutant: Mutant, outcome: Outcome) -> None:
        place = (mutant.module, digest_of(mutant.module), mutant.number)
        reason = known[place].reason if place in known else ""
        known[place] = Row(
            *place,
            mutant.line,
            mutant.function,
            mutant.operator,
            mutant.before,
            mutant.after,
            outcome.result,
            outcome.by,
            reason,
        )
        write(record, list(known.values()))
        print(
            f"{outcome.result:8} {outcome.cpu_s:5.1f} s  {mutant.module}:{mutant.line} {mutant.before} -> "
            f"{mutant.after}",
            file=sys.__stdout__,
            flush=True,
        )

    def left(module: str, results: Container[str | None]) -> set[int]:
        """Mutants of a module that the record says this of; None: nothing."""
        mine = {mutant.number for mutant in wanted if mutant.module == module}
        rows = {number: known.get((module, digest_of(module), number)) for number in mine}
        return {number for number, row in rows.items() if (row.result if row and not row.reason else row) in results}

    for module in modules:
        new = left(module, (None, "survived") if again else (None,))
        for tests in own_tests(module):
            if new and time.monotonic() < end_s:
                mutants = takewhile(lambda _: time.monotonic() < end_s, compiled(module, new))
                Examination(module, tests, mutants, told).run()
                new &= left(module, ("unsure",))
    for module in modules:
        for mutant, code in compiled(module, left(module, ("unsure",))):
            if time.monotonic() < end_s:
                told(mutant, anew(module, code, own_tests(module)))
    rows = [row for row in known.values() if row.source == digest_of(row.module)]
    alive = [row for row in rows if row.result in ("survived", "unsure") and not row.reason]
    print(f"{len(rows)} of {len(wanted)} mutants run on this text: {len(alive)} survive without a reason")
    return len(alive)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--table", action="store_true", help="run the hand-made mutants")
    parser.add_argument("--sample", type=int, default=0, help="how many mutants to draw")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument(
        "--modules", default="", help="only those of these, by the end of their names (comma-separated)"
    )
    parser.add_argument("--record", type=Path, default=ROOT / "docs" / "reports" / "mutants.csv")
    parser.add_argument("--again", action="store_true", help="run survivors without a reason once more")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after so long")
    given = parser.parse_args(arguments)
    if given.table:
        from tests import mutants

        return mutants.run_table()
    names = [name for name in given.modules.split(",") if name]
    modules = [module for module in SAMPLED if not names or module.split(".")[-1] in names]
    return run_sample(sample(given.seed, given.sample, modules), given.record, given.again, given.minutes) and 1


if __name__ == "__main__":
    raise SystemExit(main())
