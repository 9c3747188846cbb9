"""`import btard`: the public names, one name for each file, and the names of version 0.1."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import btard
from btard import moved
from btard.node.errors import ConfigError
from btard.node.kernels import building
from btard.node.plugins import extensions
from tests.imports import ROOT, sources
from tests.launching import command

DECISION = ROOT / "docs" / "adr" / "0051-packages-by-concept.md"


def python(code: str, *flags: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A program of somebody who works in a clone."""
    return subprocess.run([sys.executable, *flags, "-c", code], cwd=where, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", btard.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(btard, name).__doc__
    assert name in dir(btard)


def test_another_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match="btard has no 'Experimnt'; it has BtardError, Experiment"):
        btard.Experimnt  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_loads_nothing_else() -> None:
    done = python(
        "import sys, btard; print(sorted(m for m in sys.modules if m.startswith('btard.')), 'torch' in sys.modules)"
    )
    assert done.stdout == "[] False\n", done.stderr


@pytest.mark.slow
def test_names_of_version_0_1_are_the_same_objects_with_a_warning() -> None:
    done = python(
        "from node.attacks.registry import attack\nfrom node.aggregation import krum\nfrom launcher import Experiment\n"
        "import node.protocol.seat as seat\n"
        "import btard, btard.node.aggregation as rules, btard.node.protocol.peer_state as state\n"
        "print(attack is btard.attack, krum is rules.krum, Experiment is btard.Experiment, seat is state)\n"
        "print(state.__spec__.name)"
    )
    assert done.stdout.splitlines() == ["True True True True", "btard.node.protocol.peer_state"], done.stderr
    assert "FutureWarning: node.attacks.registry is btard.node.adversary.registry" in done.stderr
    assert "FutureWarning: launcher is btard" in done.stderr


@pytest.mark.slow
def test_no_module_is_loaded_twice_by_a_run() -> None:
    """Not even where everything is loaded: the old names are aliases, the links lead to one file each."""
    names = sorted(name for name in sources("node", "launcher") if not name.endswith(("__main__", "preload")))
    done = python(
        f"import sys, importlib\nfor name in {names}:\n    importlib.import_module(name)\n"
        "from pathlib import Path\nours = {}\n"
        "for name, module in sys.modules.items():\n"
        "    file = getattr(module, '__file__', None)\n"
        f"    if file and Path(file).resolve().is_relative_to({str(ROOT)!r}):\n"
        "        ours.setdefault(str(Path(file).resolve()), []).append(name)\n"
        "print(len(ours) > 300, [names for names in ours.values() if len(names) > 1])"
    )
    assert done.stdout == "True []\n", done.stderr


def test_an_own_file_that_asks_for_an_old_name_is_told_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "node", None)  # type: ignore[arg-type]  # as where btard is installed
    mine = tmp_path / "mine.py"
    mine.write_text("from node.attacks.registry import attack\n")
    words = r"since version 0\.2 node\.attacks\.registry is btard\.node\.adversary\.registry; repair the file"
    with pytest.raises(ConfigError, match=words) as told:
        extensions.load([mine])
    assert str(told.value).count("\n") == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("from btard.node.protocol.api.events import Say", r"api\.events is btard\.node\.protocol\.api now"),
        ("from btard.node.protocol.attempt import timers", r"timers is btard\.node\.protocol\.attempt\.deadlines now"),
    ],
)
def test_an_own_file_that_asks_for_a_joined_module_is_told_where_it_is(tmp_path: Path, line: str, words: str) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=f"{words}; repair the file"):
        extensions.load([mine])


@pytest.mark.slow
def test_the_table_of_old_names_is_the_one_in_the_decision_and_leads_somewhere() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", DECISION.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == {old: f"btard.{new}" for old, new in moved.MODULES.items()}
    assert [new for _, new in rows if new not in sources("node", "launcher")] == []


def build(kind: str, where: Path, into: Path, **variables: str) -> Path:
    """An archive of the project that lies at `where`."""
    hatchling = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)]
    subprocess.run(hatchling, cwd=where, env={**os.environ, **variables}, check=True, capture_output=True)
    (archive,) = (each for each in into.iterdir() if each.suffix in (".whl", ".gz"))
    return archive


def test_a_wheel_from_the_source_archive_is_the_wheel_from_the_clone(tmp_path: Path) -> None:
    """A source archive has the folders once, and no links. Without a compiler a wheel is one of pure Python."""
    with tarfile.open(build("sdist", ROOT, tmp_path / "source")) as archive:
        names = archive.getnames()
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
        archive.extractall(tmp_path / "unpacked")
    assert len(names) == len(set(names)) and not [name for name in names if "/btard/node/" in name]
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheels = [build("wheel", where, tmp_path / where.name, PATH=str(tmp_path)) for where in (unpacked, ROOT)]
    first, second = (sorted(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)
    assert first == second and len(first) > 400
    assert wheels[1].name.endswith("-py3-none-any.whl") and not [name for name in first if name.endswith(".so")]


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@needs_compiler
@pytest.mark.slow
def test_an_editable_installation_builds_the_kernels_where_the_clone_finds_them(tmp_path: Path) -> None:
    wheel = build("wheel:editable", ROOT, tmp_path / "wheel", HOME=str(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
    made = {path.name for path in (tmp_path / ".cache" / "btard" / "kernels").iterdir()}
    assert made == {building.library(files, tmp_path / "again").name for files in building.LIBRARIES}


@needs_compiler
@pytest.mark.slow
@pytest.mark.sockets
@pytest.mark.parametrize("compiler", [True, False], ids=["with a compiler", "without"])
def test_a_run_of_what_was_installed_compiles_nothing(tmp_path: Path, compiler: bool) -> None:
    """Real workers, where a compiler would leave a mark; where there was none at the installation it is asked for."""
    wheel = build("wheel", ROOT, tmp_path / "wheel", **({} if compiler else {"PATH": str(tmp_path)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (described,) = (name for name in archive.namelist() if name.endswith("/WHEEL"))
        assert f"Root-Is-Purelib: {str(not compiler).lower()}" in archive.read(described).decode()
    assert wheel.name.endswith("-none-any.whl") is not compiler
    (tmp_path / "cc").write_text(f"#!/bin/sh\necho called >> {tmp_path}/mark; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    installed = os.pathsep.join([str(tmp_path / "site"), *(path for path in sys.path if path and path != str(ROOT))])
    task = "transformer_lm:context_length=16,width=16,blocks=1"
    words = ("-n", "4", "--task", task, "--steps", "2", "--batch-size", "4", "--run-dir", str(tmp_path / "run"))
    places = {"PYTHONPATH": installed, "PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = command(tmp_path, *words, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "mark").exists() is not compiler
    assert done.stderr.count("torch's passes take their place") == (0 if compiler else 1)
    assert ("no C compiler here" in done.stdout + done.stderr) is not compiler
    assert not list((tmp_path / ".cache" / "btard" / "kernels").glob("*.so"))


@pytest.mark.slow
def test_a_wheel_installs_nothing_beside_btard(tmp_path: Path) -> None:
    build("wheel", ROOT, tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.partition("/")[0] for name in names} == {"btard", f"btard-{project['version']}.dist-info"}
    assert "btard/py.typed" in names
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names if name.endswith(".py")
    }
    assert modules == sources("node", "launcher").keys() | {"btard", "btard.moved"}
    site = tmp_path / "site"
    code = f"import sys; sys.path.insert(0, {str(site)!r})\nimport btard; print(btard.__file__, btard.rule.__name__)"
    assert python(code, "-I", where=tmp_path).stdout == f"{site / 'btard' / '__init__.py'} rule\n"
