"""Every command in README and docs is one that the program takes; those that run a cluster do run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from btard.launcher.cli import node
from btard.launcher.cli.main import cli, main
from btard.launcher.options import sources
from btard.launcher.options.table import OPTIONS
from btard.launcher.run import plan
from btard.node.config import Plugin
from btard.node.errors import ConfigError
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext
from tests.test_docs import DOCS, ROOT, example

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "security").glob("*.md"))]
LOOPED = {"$attack": "noise", "$seed": "0"}
"""Variables of the shell loops around commands, with a value each."""
OPTIONAL = re.compile(r" \[(-[^\]]*)\]| \[([A-Z]+)\]")
FEWER = {"--steps": "8", "--batch-size": "16", "--eval-every": "8", "--backend": "simulated"}
"""What makes a run of minutes one of seconds; the last word on an option counts."""
MOST_PEERS = 16


@dataclass(frozen=True)
class Line:
    """One command as a page has it, without what the shell does with its output; `refusal` is the error that the page
    shows below it."""

    page: Path
    words: tuple[str, ...]
    refusal: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {shlex.join(self.words)}"


def lines() -> Iterator[Line]:
    """All commands of all pages: lines of code blocks, and whole ones in the text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^    (?:.*; do )?(btard-launch .*)$", text, re.MULTILINE)
        inline = [each.replace("\n", " ") for each in re.findall(r"`(btard-launch [^`]+)`", text)]
        refused = {
            command: " ".join(error.split())
            for command, error in re.findall(
                r"^    (btard-launch .*)\n((?:    error: .*\n)(?:    .*\n)*)", text, re.MULTILINE
            )
        }
        for each in dict.fromkeys(blocks + inline):
            for written in alternatives(each.replace("\\|", "|")):
                yield Line(page, written, refused.get(each, ""))


def alternatives(text: str) -> Iterator[tuple[str, ...]]:
    """The commands that one line stands for: `status|logs|stop [RUN]` are three, and options in brackets are given."""
    text = OPTIONAL.sub(lambda found: f" {found[1] or found[2]}", text)
    words = shlex.split(text, comments=True)
    if "|" in words[1:2][0]:
        yield from ((words[0], name, *words[2:]) for name in words[1].split("|"))
        return
    until = next((place for place, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
    yield tuple(LOOPED.get(word, word) for word in words[:until])


def parsed(line: Line) -> tuple[click.Command, dict[str, Any]]:
    """The command and the options that it would be called with; click refuses what it does not know."""
    words = [*line.words[1:]] if not line.words[1].startswith("-") else ["run", *line.words[1:]]
    context = click.Context(cli, info_name="btard-launch")
    name, found, rest = cli.resolve_command(context, words)
    assert found is not None
    if not rest:  # a text that speaks of the command
        return found, {}
    return found, found.make_context(name, list(rest), parent=context).params


COMMANDS = [line for line in lines() if not {"--help", "-h"} & set(line.words)]
RUNS = [line for line in COMMANDS if line.words[1].startswith("-") or line.words[1] == "run"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages' commands name, as the pages have them."""
    monkeypatch.chdir(tmp_path)
    blocks = ("def overshoot", "def middle", "class Line")
    Path("mine.py").write_text("\n".join(example(DOCS / "extending.md", words) for words in blocks))
    Path("my_attack.py").write_text(example(DOCS / "extending.md", '"modest"'))
    Path("lazy.py").write_text(example(ROOT / "README.md", '"lazy"'))
    # The example's task with pictures that nobody has to fetch.
    own = example(DOCS / "own-model.md", "FashionMNIST(folder")
    fake = own.replace("FashionMNIST(folder, train=train, transform", "FakeData(200, (1, 28, 28), 10, transform")
    Path("fashion.py").write_text(fake.replace("import FashionMNIST", "import FakeData"))
    (loss,) = re.findall(r"^    (from step 20 loss all 1%) ", (DOCS / "faults.md").read_text(), re.MULTILINE)
    Path("flaky.scn").write_text(f"{loss}\n")
    return tmp_path


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) >= 50 and len(RUNS) >= 15
    assert {line.page.name for line in COMMANDS} >= {"README.md", "faults.md", "undo.md", "containers.md"}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_a_command_is_one_that_the_program_takes(line: Line) -> None:
    found, given = parsed(line)
    if found.name in ("run", "plan"):
        options = {option: value for option, value in given.items() if value is not None and value != ()}
        known = {option.field: options[option.field] for option in OPTIONS if option.field in options}
        plan.quick_check(sources.resolve(known, {}, None).experiment)


def test_a_mistake_in_a_page_would_be_found() -> None:
    for words in (
        ("--delay", "50"),
        ("--atack", "noise"),
        ("stauts",),
        ("--backend", "docker"),
        ("export", "--onnx"),
    ):
        with pytest.raises((click.ClickException, ConfigError), match=r"unit|No such option|unknown|Missing parameter"):
            test_a_command_is_one_that_the_program_takes(Line(ROOT / "README.md", ("btard-launch", *words)))


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.usefixtures("scratch", "files")
@pytest.mark.parametrize("line", [line for line in RUNS if "compose" not in line.words], ids=str)
def test_a_run_of_the_pages_runs(line: Line, mnist_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that takes no more than half a minute as it is, the others with fewer steps and in one process."""
    if line.refusal:
        with pytest.raises(SystemExit) as ended:
            main(line.words[1:])
        assert (ended.value.code, capsys.readouterr().err.strip()) == (2, line.refusal)
        return
    words = [word for word in line.words[1:] if word not in ("run", "--monitor")]
    if "--grafana" in words:
        place = words.index("--grafana")
        del words[place : place + 2]
    if any(word.startswith("lazy") for word in words):
        words += ["--import", "lazy.py"]
    if "--init" in words:
        model = Path("runs", "NAME", "model.pt")
        model.parent.mkdir(parents=True)
        task = build_task(Plugin("mnist_cnn"), TaskContext(mnist_directory, 16, "cpu"))
        initial_D = task.initial(0)
        torch.save({each.name: initial_D[each.start : each.stop].view(each.shape) for each in task.layout}, model)
    if "-n" in words:
        place = words.index("-n") + 1
        words[place] = str(min(int(words[place]), MOST_PEERS))
    short = "line" in words
    fewer = {} if short else {**FEWER, "--steps": "24"} if "--scenario" in words else FEWER
    if "-n" not in words and "--peers" not in words and not short:
        fewer = {**fewer, "--attack-start": "2"}
    with pytest.raises(SystemExit) as ended:
        main([*words, *(word for pair in fewer.items() for word in pair), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert '"outcome": "finished"' in said.out


LISTS = [line for line in COMMANDS if line.words[1] in ("attacks", "rules", "tasks", "optimisers", "plan", "dashboards")
         and "push" not in line.words]  # fmt: skip


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("line", [line for line in LISTS if "--import" not in line.words], ids=str)
def test_a_list_of_the_pages_is_shown(line: Line) -> None:
    done = CliRunner().invoke(cli, line.words[1:])
    assert done.exit_code == 0 and done.output, done.output


def node_commands() -> Iterator[Any]:
    """Every `btard-node` of a page: in code blocks they have to be whole, in the text they may lack arguments."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^    (?:.*; )?(btard-node .*)$", text, re.MULTILINE)
        inline = [" ".join(each.split()) for each in re.findall(r"`(btard-node [^`]+)`", text)]
        for whole, found in ((True, blocks), (False, inline)):
            for each in dict.fromkeys(found):
                yield pytest.param(each, whole, id=f"{page.relative_to(ROOT)}: {each}")


def taken_by_node(command: str, whole: bool) -> None:
    """Raises what click says of a command that the program would refuse."""
    ((_, *words),) = alternatives(command)
    context = click.Context(node.cli, info_name="btard-node")
    name, found, rest = node.cli.resolve_command(context, [*words])
    assert found is not None
    try:
        found.make_context(name, list(rest), parent=context)
    except (click.MissingParameter, click.BadOptionUsage):
        if whole:
            raise


NODE_COMMANDS = list(node_commands())


@pytest.mark.parametrize(("command", "whole"), NODE_COMMANDS)
def test_a_command_of_a_peers_owner_is_one_that_the_program_takes(command: str, whole: bool) -> None:
    taken_by_node(command, whole)


def test_a_mistake_in_a_command_of_a_peers_owner_would_be_found() -> None:
    assert len(NODE_COMMANDS) >= 18 and sum(bool(each.values[1]) for each in NODE_COMMANDS) >= 9
    for command in ("btard-node innit peer", "btard-node propose peer", "btard-node run peer --stays"):
        with pytest.raises(click.ClickException, match=r"No such|Missing"):
            taken_by_node(command, whole=True)


def test_extras_that_the_pages_install_exist() -> None:
    """And no page has an extra installed from an index: this package is installed from its clone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [*PAGES, *ROOT.glob("launcher/**/*.py"), ROOT / "Makefile"]
    named = [
        found for path in files for found in re.findall(r"pip install (?:-e )?'?([.\w]+)\[(\w+)\]", path.read_text())
    ]
    assert named and {extra for _, extra in named} <= set(extras)
    assert {what for what, _ in named} == {"."}
