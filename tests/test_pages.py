"""The pages for readers: all are linked, small enough, and name modules and lines of the paper that are there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LARGEST_BYTES = 400_000
NAMING = ("architecture.md", "glossary.md", "debugging.md")


def linked(page: Path) -> set[Path]:
    """The files that a page links to."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if not target.startswith("http")}


def test_every_page_is_reached_from_the_index() -> None:
    found, todo = set[Path](), [DOCS / "README.md"]
    while todo:
        page = todo.pop()
        if page not in found:
            found.add(page)
            todo += [target for target in linked(page) if target.suffix == ".md" and target.exists()]
    pages = {page.resolve() for page in DOCS.rglob("*.md")}
    assert pages - found == set()
    top = {page.resolve() for page in DOCS.glob("*.md")} - {DOCS / "README.md"}
    assert top - linked(DOCS / "README.md") == set(), "the index itself lists every page beside it"


def test_no_page_is_too_large_to_be_shown() -> None:
    pages = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".json", ".html", ".svg", ".parquet")]
    assert {path.name: size for path in pages if (size := path.stat().st_size) >= LARGEST_BYTES} == {}


@pytest.mark.parametrize("name", NAMING)
def test_modules_that_a_page_names_are_there(name: str) -> None:
    named = re.findall(r"`((?:node|launcher|tests)/[\w/]+(?:\.py|/)?)`", (DOCS / name).read_text(encoding="utf-8"))
    assert named and [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_of_the_core_has_its_group() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The life of a message")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (`[^|]+`) \|", page, re.MULTILINE)
    named = {f"{folder}/{name}" for folder, group in rows for name in re.findall(r"`(\w+)`", group)}
    core = ROOT / "node" / "protocol"
    files = [path.relative_to(core).with_suffix("") for path in core.rglob("*.py") if path.stem != "__init__"]
    assert named == {f"{path.parent}/{path.name}" for path in files}


def commands() -> list[tuple[str, str, str]]:
    """(line of the paper, command that finds it, file) from the architecture page."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The paper's lines")[2]
    return re.findall(r"^\| ([^|]+) \| `([^`]+)` \| `([^`]+)` \|$", text.replace("`'", "'"), re.MULTILINE)


def test_twelve_lines_of_the_paper_are_listed() -> None:
    assert len(commands()) >= 12


@pytest.mark.parametrize(("line", "command", "where"), commands(), ids=[line for line, _, _ in commands()])
def test_a_line_of_the_paper_is_found_by_one_command(line: str, command: str, where: str) -> None:
    arguments = shlex.split(command)
    assert arguments[:2] == ["grep", "-rn"]
    done = subprocess.run([*arguments[:1], "--include=*.py", *arguments[1:]], cwd=ROOT, capture_output=True, text=True)
    files = {found.split(":", 1)[0] for found in done.stdout.splitlines()}
    assert where in files, line
    assert len(files) <= 3, f"{line}: too many hits to be found by one look"
