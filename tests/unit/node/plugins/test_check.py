"""Wrong attacks, rules and tasks of a user's own: none of them starts, and each is told what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from btard import Experiment
from btard.launcher.cli.main import main
from btard.launcher.run import cluster, plan, plugin_trial
from btard.launcher.run.observer import Silent
from btard.node.errors import ConfigError, PluginError
from btard.node.plugins import extensions
from tests import wrong_plugins as wrong
from tests.test_docs import DOCS, example

pytestmark = pytest.mark.usefixtures("scratch")

DYNAMIC = {
    **{name: f"task '{name}'" for name in wrong.TASKS},
    **{name: f"rule '{name}'" for name in wrong.RULES},
    **{name: f"attack '{name}'" for name in wrong.ATTACKS},
}
SAID = {name: row[-1] for table in (wrong.TASKS, wrong.RULES, wrong.ATTACKS) for name, row in table.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, plugin_trial.Found]:
    """All of them in one file, tried out as `btard-launch check` does."""
    path = tmp_path_factory.mktemp("wrong") / "wrong.py"
    path.write_text(wrong.text())
    return {each.name.partition(" (")[0]: each for each in plugin_trial.check_files([str(path)], path.parent)}


def test_there_are_enough_of_them() -> None:
    assert len(DYNAMIC) + len(wrong.STATIC) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMIC)
def test_it_is_refused_for_what_is_wrong_with_it(name: str, found: dict[str, plugin_trial.Found]) -> None:
    problem = found[DYNAMIC[name]].problem
    assert problem is not None and SAID[name] in problem, problem
    assert "\n" not in problem


@pytest.mark.parametrize("name", wrong.STATIC)
def test_it_is_refused_when_its_file_is_imported(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(wrong.static_text(name))
    with pytest.raises(ConfigError, match=r"wrong\.py failed in line \d") as caught:
        plan.make(Experiment(imports=(str(path),), task="quadratic"))
    assert wrong.STATIC[name][-1] in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [{"task": "dropout"}, {"rule": "noisy"}, {"rule": "clipping+noisy"}, {"attack": "sign_flip+half", "byzantine": 2}],
    ids=lambda chosen: "-".join(map(str, chosen.values())),
)
def test_a_run_with_it_does_not_start(chosen: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(wrong.text())
    with pytest.raises(PluginError, match=r"wrong\.py line \d+"):
        plan.make(Experiment(imports=(str(path),), batch_size=4, **{"task": "quadratic", **chosen}))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_says_it_in_one_line_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(wrong.text())
    with pytest.raises(SystemExit) as ended:
        main(["--import", str(path), "--task", "dropout", "--dry-run"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"nn.Dropout {wrong.GLOBAL}" in err


def test_the_pages_examples_pass(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    page = DOCS / "extending.md"
    path.write_text("\n".join(example(page, words) for words in (
        "def overshoot", "def modest", "def middle", "class Line", "class Dropped")))  # fmt: skip
    found = plugin_trial.check_files([str(path)], tmp_path)
    assert [each.problem for each in found] == [None] * 5


@pytest.mark.slow
def test_an_optimiser_of_ones_own_is_tried_out_in_several_processes(tmp_path: Path) -> None:
    """The page's example passes; one whose rate follows from its process has other bits in each."""
    good = example(DOCS / "optimisers.md", "class SignDescent")
    bad = good.replace("SignDescent", "Strayed").replace("sign_descent", "strayed")
    path = tmp_path / "mine.py"
    path.write_text(good + "\nimport os\n" + bad.replace('group["lr"] *', 'group["lr"] * os.getpid() *'))
    passed, strayed = plugin_trial.check_files([str(path)], tmp_path)
    assert passed.name.startswith("optimiser 'sign_descent' (mine.py line") and passed.problem is None
    assert strayed.problem is not None and "getpid() is the process id" in strayed.problem


@pytest.mark.slow
def test_what_ends_its_process_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(wrong.HEAD + "\n\n@task('leaving', source='test')\ndef leaving(context):\n    os._exit(3)\n")
    with pytest.raises(PluginError, match=r"task 'leaving' \(wrong\.py line \d+\) ended its process with exit code 3"):
        plugin_trial.check_files([str(path)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["def broken(:\n", "import no_such_module\n", wrong.static_text("residual")])
def test_check_says_in_one_line_why_a_file_cannot_be_imported(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(path)])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"error: --import {path} failed in line ")


def test_a_run_without_own_plugins_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "Popen", refused)
    plan.make(Experiment(task="quadratic", attack="noise", byzantine=2, data_dir=str(tmp_path)))


def test_blame_names_the_innermost_line_of_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import math\n\ndef wrong():\n    return math.sqrt(-1)\n")
    extensions.load([path])
    (module,) = [each for each in tuple(sys.modules.values()) if getattr(each, "__file__", None) == str(path)]
    try:
        module.wrong()
    except ValueError as error:
        assert extensions.blame(error) == "mine.py line 4"
        assert extensions.told(error).startswith("mine.py line 4 raised ValueError: ")
        assert extensions.failed(error)
    assert not extensions.failed(ValueError("ours"))
    assert extensions.failed(PluginError("it returned None"))


LATE = """
from btard.node.adversary.registry import attack

@attack("late", acts_on="gradient", source="test")
def late(gradient_D, view):
    \"\"\"Raise after the steps that are tried out.\"\"\"
    return gradient_D / 0 if view.step < 5 else [][view.step]
"""


@pytest.mark.sockets
@pytest.mark.parametrize("backend", ["simulated", "local"])
def test_a_plugin_that_raises_during_a_run_ends_it_as_failed(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(LATE)
    told: list[str] = []

    class Told(Silent):
        def note(self, line: str) -> None:
            told.append(line)

    made = cluster.run(
        Experiment(imports=(str(path),), backend=backend, device="cpu", task="quadratic", attack="late", byzantine=2,
                   attack_start=5, steps=60, batch_size=4, run_dir=str(tmp_path / "run"), timeout=100),
        Told(),
    )  # fmt: skip
    assert made.summary.outcome == "failed"
    assert "mine.py line 7 raised IndexError: list index out of range" in str(made.summary.problem)
    assert made.summary.bans == [] and made.summary.gone == []
    assert sum("Traceback (most recent call last)" in line for line in told) == 1
    assert any("return gradient_D / 0 if" in line for line in told)
