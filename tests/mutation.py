"""Would the tests notice? Changes the sources one place at a time, and runs the tests of the changed module.

    python -m tests.mutation --table                              # the hand-made mutants of tests/mutants.py
    python -m tests.mutation --sample 500 --seed 1 --record docs/reports/mutants.csv

A mutant lives in a fork: the mutated module's source never touches the disk, and what takes time to import is
imported once. A fork may use 30 s of CPU; one that needs more hangs, which is noticed too, and so is one that waits for
ever. What calls `run` should have no threads: a fork inherits their locks as they are.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from importlib.machinery import ModuleSpec
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, ModuleType

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

_DISPUTES = "tests/simulation/test_protocol_disputes.py"
_EVIDENCE = "tests/unit/node/protocol/evidence/test_verifier.py"
SAMPLED: dict[str, tuple[str, ...]] = {
    "btard.node.protocol.adjudication.accusations": (),
    "btard.node.protocol.adjudication.case": (),
    "btard.node.protocol.adjudication.charges": (),
    "btard.node.protocol.adjudication.complaints": (),
    "btard.node.protocol.adjudication.omission": (),
    "btard.node.protocol.adjudication.verdict": (),
    "btard.node.protocol.attempt.phases": ("tests/simulation/test_protocol_attacks.py",),
    "btard.node.protocol.attempt.transcript": (),
    "btard.node.protocol.disputes.dispute": (_DISPUTES,),
    "btard.node.protocol.disputes.dolev_strong": (_DISPUTES,),
    "btard.node.protocol.disputes.resolution": (_DISPUTES,),
    "btard.node.protocol.evidence.format": (_EVIDENCE,),
    "btard.node.protocol.evidence.replay": (_EVIDENCE,),
    "btard.node.protocol.evidence.verifier": (),
    "btard.node.protocol.state_sync.probation": (),
    "btard.node.verify.audit": (),
}
"""Certificates, disputes, verdicts, omissions and `verify`, with tests that are theirs beside those of their name."""


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
        result: killed, survived, or hung (which a test run notices as well).
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
    path = ROOT / "tests" / "unit" / Path(*module.split(".")[1:])
    return (str(path.with_name(f"test_{path.name}.py").relative_to(ROOT)), *SAMPLED[module])


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


def compiled(mutant: Mutant) -> CodeType:
    """The mutated module."""
    tree = next(tree for each, tree in _mutants(mutant.module) if each.number == mutant.number)
    return compile(ast.fix_missing_locations(tree), str(path_of(mutant.module)), "exec")


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


def _replaced(module: str, code: CodeType) -> bool:
    """Give the functions of an imported module the bodies in `code`, wherever they are held; false if something else
    than bodies has changed, which takes another import."""
    before = compile(source_of(module), str(path_of(module)), "exec")
    if _outside(before) != _outside(code):
        return False
    bodies = dict(_bodies(code))
    for found in gc.get_objects():
        if isinstance(found, FunctionType) and found.__code__.co_filename == code.co_filename:
            body = bodies.get(found.__code__.co_qualname)
            if body is not None and body.co_freevars == found.__code__.co_freevars:
                found.__code__ = body
    return True


def _parts(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


def _bodies(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Functions by their qualified names; those inside functions come with them."""
    for each in _parts(code):
        if each.co_flags & inspect.CO_OPTIMIZED:
            yield each.co_qualname, each
        else:
            yield from _bodies(each)


def _outside(code: CodeType) -> list[object]:
    """What runs when a module is imported: its own code and that of its classes."""
    plain = [each for each in code.co_consts if not isinstance(each, CodeType)]
    mine: list[object] = [code.co_code, repr(plain), code.co_names]
    return mine + [_outside(each) for each in _parts(code) if not each.co_flags & inspect.CO_OPTIMIZED]


def warm(module: str, tests: Sequence[str]) -> None:
    """Run a module's tests as they are, here: whatever they keep (simulated attempts, evidence), forks find.

    Raises:
        SystemExit: they fail.
    """
    import pytest

    for name in (*SHARED, module):
        importlib.import_module(name)
    os.chdir(ROOT)
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
    if status:
        raise SystemExit(f"{module}: its tests fail as it is; mend them first (pytest {' '.join(tests)})")


def outcome_of(module: str, code: CodeType, tests: Sequence[str]) -> Outcome:
    """What becomes of a mutant. What passes with things kept from before runs once more without them."""
    first = run(module, code, tests)
    return run(module, code, tests, cold=True) if first.result == "survived" else first


def run(module: str, code: CodeType | None, tests: Sequence[str], cold: bool = False) -> Outcome:
    """The tests of a module in a fork where `code` is that module (None: as it is); `cold`: all is imported anew."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _in_child(module, code, tests, write, cold)
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
    return Outcome("survived" if os.WEXITSTATUS(status) == 0 else "killed", by.decode().strip(), cpu_s)


def _in_child(module: str, code: CodeType | None, tests: Sequence[str], write: int, cold: bool) -> None:
    """Never returns."""
    import pytest

    class Reporter:
        """Tells the parent which test failed."""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                os.write(write, f"{report.nodeid}\n".encode())

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                os.write(write, f"{report.nodeid} (import)\n".encode())

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.chdir(ROOT)
    if cold or (code is not None and not _replaced(module, code)):
        if code is not None:
            sys.meta_path.insert(0, _Mutated(module, code))
        for name in list(sys.modules):
            if name.split(".")[0] in ("btard", "tests"):
                del sys.modules[name]
    status = 1
    try:
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], [Reporter()]))
    finally:
        os._exit(status)


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
    """The first `count` of all mutants in the order that a seed draws, those of the modules wanted."""
    everything = [mutant for module in SAMPLED for mutant in places(module)]
    Random(seed).shuffle(everything)
    return [mutant for mutant in everything if mutant.module in modules][:count]


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
    with record.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: (row.module, row.line, row.number)))


def run_sample(wanted: Sequence[Mutant], record: Path, again: bool, minutes: float) -> int:
    """Run what the record does not hold yet (`again`: and what survived there); how many survive without a reason."""
    known = {(row.module, row.source, row.number): row for row in read(record)}
    checked: set[str] = set()
    end_s = time.monotonic() + 60 * minutes
    for mutant in wanted:
        key = (mutant.module, digest_of(mutant.module), mutant.number)
        old = known.get(key)
        if old is not None and not (again and old.result == "survived" and not old.reason):
            continue
        if time.monotonic() > end_s:
            break
        tests = own_tests(mutant.module)
        if mutant.module not in checked:
            warm(mutant.module, tests)
            checked.add(mutant.module)
        outcome = outcome_of(mutant.module, compiled(mutant), tests)
        print(f"{outcome.result:8} {outcome.cpu_s:5.1f} s  {mutant.module}:{mutant.line} {mutant.before} -> "
              f"{mutant.after}", flush=True)  # fmt: skip
        row = Row(*key[:2], mutant.number, mutant.line, mutant.function, mutant.operator, mutant.before, mutant.after,
                  outcome.result, outcome.by.split("\n")[0])  # fmt: skip
        known[key] = replace(row, reason=old.reason) if old is not None else row
        write(record, list(known.values()))
    rows = [row for row in known.values() if row.source == digest_of(row.module)]
    alive = [row for row in rows if row.result == "survived" and not row.reason]
    print(f"{len(rows)} of {len(wanted)} mutants run on this text: {len(alive)} survive without a reason")
    return len(alive)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--table", action="store_true", help="run the hand-made mutants")
    parser.add_argument("--sample", type=int, default=0, help="how many mutants to draw")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--modules", default="", help="only these, by the end of their names (comma-separated)")
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
