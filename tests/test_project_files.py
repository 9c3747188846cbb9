"""Files that people and services read about the project agree with each other and with what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_is_stated() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == PROJECT["project"]["version"]
    assert cited["license"] == PROJECT["project"]["license"]
    assert [each["name"] for each in cited["authors"]] == [each["name"] for each in PROJECT["project"]["authors"]]


def test_an_address_is_stated_once_it_is_set_and_none_before() -> None:
    """`homepage` in pyproject.toml decides: nothing invents one."""
    homepage = PROJECT["tool"]["btard"]["homepage"]
    cited, urls = yaml.safe_load(read("CITATION.cff")), PROJECT["project"]["urls"]
    assert cited.get("repository-code", "") == homepage, "repository-code in CITATION.cff"
    assert urls.get("Homepage", "") == homepage, "Homepage in [project.urls]"
    for name in ("SECURITY.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)]+)\)", read(name))
        assert links
        for link in links:
            assert (ROOT / link).is_file() or (homepage and link.startswith(homepage)), f"{link} in {name}"


def test_classifiers_name_each_python_that_is_tried_and_extras_what_is_optional() -> None:
    stated = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    (checked,) = (yaml.safe_load(path.read_text()) for path in WORKFLOWS if path.stem == "check")
    assert stated == checked["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"] and (ROOT / "btard" / "py.typed").exists()
    assert PROJECT["project"]["optional-dependencies"].keys() >= {"export", "monitor", "print"}


def test_the_hook_formats_as_the_project_does() -> None:
    (ruff,) = (each for each in PROJECT["project"]["optional-dependencies"]["dev"] if each.startswith("ruff=="))
    revisions = {
        each["repo"].rpartition("/")[2]: each["rev"]
        for each in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    }
    assert revisions["ruff-pre-commit"] == f"v{ruff.removeprefix('ruff==')}"
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+", revision) for revision in revisions.values()), "each at one version"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", ".ci/run", *(str(path.relative_to(ROOT)) for path in WORKFLOWS)])
def test_targets_that_a_file_calls_exist(name: str) -> None:
    lines = re.findall(r"(?:^|[`\"' ])make ((?:[a-z-]+ ?)+)", read(name))
    called = {word for line in lines for word in line.split()}
    assert called - {"lint", "types", "layers"} <= TARGETS, sorted(called - TARGETS)


def test_folders_and_modules_that_contributing_names_exist() -> None:
    named = re.findall(r"`((?:tests|node|launcher|docs)[/\w]*(?:\*|/[\w*]+)?(?:\.py|\.md)?)`", read("CONTRIBUTING.md"))
    assert len(named) > 10
    for each in named:
        pattern = each.replace("NAME", "*").replace("test_x", "test_*")
        assert list(ROOT.glob(pattern)), each


def test_workflows_check_every_python_and_run_the_whole_at_night() -> None:
    read_yaml = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    matrix = read_yaml["check"]["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={matrix['python'][0]}"
    (newer,) = matrix["include"]
    torch = next(each for each in PROJECT["project"]["dependencies"] if each.startswith("torch>"))
    assert newer["torch"].removeprefix("torch>=") == torch.rpartition("<")[2], "the first one beyond our range"
    assert any(step.get("run") == "bash .ci/run" for step in read_yaml["nightly"]["jobs"]["whole"]["steps"])
