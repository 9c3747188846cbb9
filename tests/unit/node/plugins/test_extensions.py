"""Files and packages with attacks, rules and tasks of a user's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from btard import Experiment, run
from btard.launcher.cli.main import main
from btard.node.adversary.registry import ATTACKS
from btard.node.errors import ConfigError
from btard.node.plugins import extensions
from btard.node.verify import audit
from tests.test_docs import DOCS, example

LAZY = """
from btard.node.adversary.registry import attack

@attack("idle", acts_on="gradient", source="test")
def idle(gradient_D, view, *, share=0.5):
    \"\"\"Contribute a share of the gradient.\"\"\"
    return share * gradient_D
"""


pytestmark = pytest.mark.usefixtures("scratch")


def written(directory: Path, text: str, name: str = "mine.py") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_a_file_registers_what_it_defines_once(tmp_path: Path) -> None:
    path = written(tmp_path, LAZY)
    extensions.load([path, path])
    extensions.load([written(tmp_path, LAZY, "copy.py").rename(path)])
    assert ATTACKS.get("idle").parameters == {"share": 0.5}
    extensions.require([extensions.label(path)])


BROKEN = [
    ("missing", None, "mine.py", "cannot be read: No such file or directory; name an existing file"),
    ("no Python", LAZY, "mine.txt", "is no Python file; name one that ends in .py"),
    ("syntax", "x = 1\ny = (\n", "mine.py", "failed in line 2: SyntaxError"),
    ("it raises", "import math\nmath.sqrt(-1)\n", "mine.py", "failed in line 2: ValueError: "),
    ("a name that is taken", LAZY.replace("idle", "noise"), "mine.py", "attack 'noise' is registered twice"),
]


@pytest.mark.parametrize(("text", "name", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_file_that_cannot_be_used(text: str | None, name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name if text is None else written(tmp_path, text, name)
    with pytest.raises(ConfigError) as caught:
        extensions.load([path])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_beside_the_file_is_not_found_and_what_to_do_is_said(tmp_path: Path) -> None:
    """A script would find it; a run's copy of the file lies elsewhere."""
    (tmp_path / "own_nets").mkdir()
    with pytest.raises(
        ConfigError, match=f"; own_nets lies beside it, .*install own_nets .*set PYTHONPATH={tmp_path}$"
    ):
        extensions.load([written(tmp_path, "from own_nets.deep import net\n")])
    with pytest.raises(ConfigError, match=r"No module named 'other_nets'; repair the file$"):
        extensions.load([written(tmp_path, "import other_nets\n")])


def test_another_content_is_another_file(tmp_path: Path) -> None:
    extensions.load([written(tmp_path, LAZY)])
    with pytest.raises(ConfigError, match=r"made with --import mine.py .* read imports/mine.py"):
        extensions.require([extensions.label(written(tmp_path, LAZY + "# changed"))])


def test_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, LAZY, "offered_plugins.py")
    monkeypatch.syspath_prepend(tmp_path)
    offered = [EntryPoint("mine", "offered_plugins", extensions.GROUP)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: offered if group == extensions.GROUP else [])
    extensions.load_installed.cache_clear()
    monkeypatch.setattr(ATTACKS, "_loaded", False)
    assert ATTACKS.get("idle").source == "test"
    offered.append(EntryPoint("broken", "no_such_module", extensions.GROUP))
    extensions.load_installed.cache_clear()
    with pytest.raises(
        ConfigError, match=r"plug-in 'broken' \(no_such_module\) of .* cannot be imported: ModuleNotFound"
    ):
        extensions.load_installed()
    offered.clear()
    extensions.load_installed.cache_clear()
    extensions.load_installed()


def test_the_command_line_lists_what_a_file_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attacks", "--import", str(written(tmp_path, LAZY))])
    assert ended.value.code == 0
    assert "idle (on gradient): Contribute a share of the gradient." in capsys.readouterr().out


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = tuple(str(written(place, LAZY)) for place in (tmp_path, tmp_path / "other"))
    with pytest.raises(ConfigError, match="two files of one name"):
        run(Experiment(imports=files, task="quadratic"))


@pytest.mark.sockets
def test_the_pages_attack_rule_and_task_run_together_and_are_verified_on_request(tmp_path: Path) -> None:
    """docs/extending.md as one file: the run bans both attackers; a verifier must ask for the file by name."""
    page = DOCS / "extending.md"
    text = "\n".join(example(page, words) for words in ("def overshoot", "def middle", "class Line"))
    mine = written(tmp_path, text)
    made = run(Experiment(imports=(str(mine),), backend="simulated", device="cpu", task="line", rule="middle",
                          attack="overshoot", byzantine=2, attack_start=3, steps=60, batch_size=16, lr=0.1,
                          run_dir=str(tmp_path / "run"), timeout=100))  # fmt: skip
    assert (made.summary.outcome, made.summary.problem) == ("finished", None)
    assert {ban.peer for ban in made.summary.bans} == {4, 5}
    assert made.summary.final_test_accuracy == 1.0
    assert (made.run_dir / "imports" / "mine.py").read_text() == text
    assert all(finding.ok for finding in audit.check_run(made.run_dir))
    extensions._loaded.clear()
    with pytest.raises(ConfigError, match=r"made with --import mine\.py"):
        audit.check_run(made.run_dir)
