"""A sweep in two phases: what the second is made of, when it runs, and the plan that compares tuned attacks."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from btard.launcher import exits
from btard.launcher.cli.main import cli
from btard.launcher.run import plan, plugin_trial
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import command, plans, rows, spec
from btard.launcher.sweep.engine import Wish
from btard.launcher.sweep.grid import Cell, cells
from btard.launcher.sweep.spec import Sweep
from btard.launcher.sweep.store import CELLS, Store
from btard.node.errors import ConfigError, DataError
from btard.node.plugins import extensions
from btard.node.plugins.check import Request
from btard.node.training.datasets import mnist
from btard.node.training.registry import TASKS
from btard.node.training.sampling import Shards
from btard.node.training.task import TaskContext
from btard.node.training.tasks.mnist_cnn import MnistCnn
from tests.sweeping import row

BASE = Experiment(backend="simulated", task="quadratic", device="cpu", steps=6, eval_every=3, protocol_seed=1)
HELD_OUT = 10_000
Finals = Sequence[float | None]


def _after(finals: Finals) -> tuple[Cell, ...]:
    """One cell, of the seed whose run of the first phase ended best."""
    found = [value or 0.0 for value in finals]
    return tuple(cells(BASE, {"seed": [10 + found.index(max(found))]}, {"phase": plans.FINAL}))


def _sweep(after: Callable[[Finals], tuple[Cell, ...]] | None = _after) -> Sweep:
    return Sweep("two", tuple(cells(BASE, {"seed": [0, 1]}, {"phase": plans.TUNING})), after)


def _run(sweep: Sweep, out: Path, limit: int | None = None) -> tuple[int, str]:
    text = io.StringIO()
    code = command.run(
        command.extended(sweep, out), Wish(1, limit), out, False, Console(file=text, width=400), ["btard-launch"]
    )
    return code, text.getvalue()


# --- phases -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_second_phase_follows_from_the_first_and_a_sweep_resumes_in_either(tmp_path: Path) -> None:
    out, tried = tmp_path / "two", _sweep()
    code, text = _run(tried, out, limit=1)
    assert (code, [made.labels["phase"] for made in Store(out).rows()]) == (exits.OK, [plans.TUNING])
    assert "two: 2 runs in" in text and "and then 1 that follow from their results" in text
    assert "1 run, 1 left" in text
    assert "1 run that follows is made when all of these are finished: go on with the same command" in text

    code, text = _run(tried, out, limit=1)
    assert "go on with the same command" in text, "the limit ends between the phases"
    assert len(Store(out).rows()) == 2

    code, text = _run(tried, out)
    finals = [made.final_test_accuracy for made in Store(out).rows()[:2]]
    (wanted,) = _after(finals)
    assert [made.cell for made in Store(out).rows()] == [*(cell.id for cell in tried.cells), wanted.id]
    assert code == exits.OK and "two: 3 runs in" in text and "that follow" not in text

    code, text = _run(tried, out)
    assert "3 finished before" in text


@pytest.mark.slow
def test_both_phases_are_one_call(tmp_path: Path) -> None:
    code, text = _run(_sweep(), tmp_path / "two")
    assert code == exits.OK and len(Store(tmp_path / "two").rows()) == 3
    assert text.index("two: 2 runs in") < text.index("two: 3 runs in")
    assert text.count("report: ") == 1


@pytest.mark.slow
def test_nothing_follows_from_a_phase_with_a_failed_run(tmp_path: Path) -> None:
    halting = cells(BASE, {"byzantine": [4], "attack": ["crash"], "attack_start": [2], "allow_majority": [True]})
    sweep = Sweep("two", (*_sweep().cells, *halting), lambda finals: _after(finals[:2]))
    code, text = _run(sweep, tmp_path / "two")
    assert (code, len(Store(tmp_path / "two").rows())) == (exits.FAILED, 2)
    assert "1 run that follows is made when all of these are finished" in text


# --- the plan ---------------------------------------------------------------------------------------------------


def _accuracy(made: Experiment) -> float:
    """The later of two strengths hurts more, except the strongest, which ends as the one before."""
    assert made.attack is not None
    name = made.attack.partition(":")[0]
    place = plans.STRENGTHS[name].index(made.attack)
    return 0.9 - 0.1 * min(place, 2) - 0.01 * made.validators


def test_every_rule_meets_each_attack_at_the_strength_that_hurt_it_most() -> None:
    sweep = spec.make("tuned", False, Experiment(), {})
    more = sweep.after([_accuracy(cell.experiment) for cell in sweep.cells]) if sweep.after else ()
    assert (len(sweep.cells), sweep.following, len(more)) == (6 * 2 * 2 * 12, 480, 480)
    tuning, after = [cell.experiment for cell in sweep.cells], [cell.experiment for cell in more]
    assert {each.seed for each in tuning} == {0} and {each.seed for each in after} == {1, 2, 3, 4, 5}
    assert {each.task for each in tuning} == {"mnist_held_out"} and {each.task for each in after} == {"mnist_cnn"}
    attacked = [each for each in after if each.byzantine]
    assert {each.attack for each in attacked} == {"sign_flip:scale=10", "alie:z=1.5", "ipm:eps=1.5"}, (
        "of equals the weaker"
    )
    places = {(each.rule, each.validators, each.split, each.attack, each.seed) for each in after}
    assert len(places) == 6 * 2 * 2 * (3 + 1) * 5, "clean runs beside them"
    shared = {"task", "imports", "attack", "byzantine", "seed"}
    assert {
        name for name in tuning[0].__struct_fields__ if getattr(tuning[0], name) != getattr(attacked[0], name)
    } <= shared


def test_the_choice_is_each_settings_own() -> None:
    sweep = spec.make("tuned", False, Experiment(), {})

    def first(made: Experiment) -> float:
        weakest = str(made.attack) in {known[0] for known in plans.STRENGTHS.values()}
        return (
            0.1
            if weakest and made.rule == "median" and made.split == "iid" and not made.validators
            else _accuracy(made)
        )

    found = plans.strongest([(cell.experiment, first(cell.experiment)) for cell in sweep.cells])
    assert len(found) == 6 * 2 * 2 * 3
    assert {key for key, attack in found.items() if attack == plans.STRENGTHS[key[-1]][0]} == {
        ("median", 0, "iid", name) for name in plans.STRENGTHS
    }


def test_the_second_phase_can_be_run() -> None:
    for quick, first, following in ((True, 4, 8), (False, 288, 480)):
        sweep = spec.make("tuned", quick, Experiment(), {"steps": "20"})
        assert (len(sweep.cells), sweep.following) == (first, following) and sweep.after is not None
        for cell in (*sweep.cells, *sweep.after([0.5] * first)):
            cell.experiment.run_config("cpu")
            assert (cell.experiment.steps, bool(cell.experiment.roles())) == (20, bool(cell.experiment.byzantine))


def test_a_run_without_an_accuracy_chooses_nothing() -> None:
    sweep = spec.make("tuned", True, Experiment(), {})
    assert sweep.after is not None
    with pytest.raises(
        ConfigError, match=r"centered_clip under alie:z=3 ended without an accuracy, so .* another --out"
    ):
        sweep.after([0.5, None, 0.5, 0.5])


@pytest.mark.parametrize("name", ["task", "seed", "attack", "byzantine"])
def test_what_the_phases_differ_in_is_the_plans(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{name} is what the phases of plan 'tuned' differ in; leave it out$"):
        spec.make("tuned", True, Experiment(), {name: "1"})


def test_a_plan_without_its_data_names_the_command_that_fetches_them(tmp_path: Path) -> None:
    sweep = spec.make("tuned", True, Experiment(data_dir=str(tmp_path)), {})
    with pytest.raises(DataError, match=r"^[^\n]*btard-launch data mnist[^\n]*$"):
        plan.make(sweep.cells[0].experiment)


def test_its_task_is_tried_once_for_all_rules_and_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial takes two processes, and the whole plan has 72 pairs of a rule and an attack."""
    asked: list[bytes] = []

    def examine(request: Request) -> tuple[plugin_trial.Found, ...]:
        asked.append(msgspec.json.encode(request))
        return ()

    monkeypatch.setattr(plugin_trial, "examine", examine)
    cells = spec.make("tuned", True, Experiment(data_dir=str(tmp_path), device="cpu"), {}).cells
    for cell in cells:
        plan.make(cell.experiment)
    assert (len(asked), len(set(asked))) == (len(cells), 1)


@pytest.mark.slow
@pytest.mark.mnist
def test_a_dry_run_lists_the_first_phase_and_then_both(tmp_path: Path, mnist_directory: Path) -> None:
    out = tmp_path / "out"
    arguments = ["sweep", "tuned", "--quick", "--dry-run", "--out", str(out), "--data-dir", str(mnist_directory)]
    listed = CliRunner().invoke(cli, arguments)
    first = [line.split()[0] for line in listed.stdout.splitlines()]
    assert listed.stderr == "4 cells, and when they are finished 8 that follow from their results\n"
    sweep = spec.make("tuned", True, Experiment(), {})
    assert first == [cell.id for cell in sweep.cells] and not out.exists()
    for place, cell in enumerate(sweep.cells):
        where = out / CELLS / cell.id
        where.mkdir(parents=True)
        (where / rows.ROW).write_bytes(msgspec.json.encode(row(cell.experiment, final_test_accuracy=0.9 - place / 100)))
    listed = CliRunner().invoke(cli, arguments)
    assert listed.stderr == "12 cells\n"
    assert [line.split()[0] for line in listed.stdout.splitlines()][:4] == first
    (tmp_path / "part").write_text(listed.stdout.splitlines()[-1])
    part = CliRunner().invoke(cli, [*arguments, "--only", str(tmp_path / "part")])
    assert part.stderr == "1 cell\n", "a list may name what follows, too"


def test_a_row_does_not_say_where_own_files_lie() -> None:
    (cell, *_) = spec.make("tuned", True, Experiment(), {}).cells
    (told,) = rows.options(cell)["imports"]
    assert told.startswith("mnist_held_out.py ") and "/" not in told


@pytest.mark.mnist
def test_the_held_out_images_are_not_trained_on_and_the_test_images_not_looked_at(mnist_directory: Path) -> None:
    extensions.load([Path(plans.__file__).with_name("mnist_held_out.py")])
    whole = mnist.load(mnist_directory)
    made = TASKS.get("mnist_held_out").target(TaskContext(mnist_directory, 16))
    assert (made.train_size, made.test_size) == (60_000 - HELD_OUT, HELD_OUT)
    usual = TASKS.get("mnist_cnn").target(TaskContext(mnist_directory, 16))
    parameters_D = usual.initial(3)
    assert torch.equal(parameters_D, made.initial(3))
    judged = mnist.Mnist(*2 * (whole.train_images[59_900:60_000], whole.train_labels[59_900:60_000]))
    beside = MnistCnn(judged, 16, "cpu", Shards(100))
    assert made.evaluate(parameters_D, HELD_OUT - 100, HELD_OUT) == beside.evaluate(parameters_D, 0, 100)
