"""Grids: what users write, and the cells it stands for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from btard.launcher.options.table import OPTIONS
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import grid, plans, spec
from btard.launcher.sweep.plans import ATTACKS
from btard.launcher.sweep.spec import Sweep
from btard.node.adversary.registry import ATTACKS as KNOWN
from btard.node.aggregation.registry import RULES
from btard.node.baselines.topologies import check
from btard.node.errors import ConfigError

BASE = Experiment()
BY_NAME = {option.field: option for option in OPTIONS}


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("attack", "noise,label_flip", ["noise", "label_flip"]),
        ("attack", "noise:variant=small,scale=2,drop", ["noise:variant=small,scale=2", "drop"]),
        ("attack", "alie:z=1.2,s=3|noise+drop", ["alie:z=1.2,s=3", "noise+drop"]),
        ("byzantine", "0..2", [0, 1, 2]),
        ("byzantine", "0..1,4", [0, 1, 4]),
        ("lr", "0.1,0.05", [0.1, 0.05]),
        ("delta_max", "auto,3", [None, 3.0]),
        ("delivery_bound", "500ms,2s", [0.5, 2.0]),
        ("role", "4=noise:start=3;5=drop|4=drop", [("4=noise:start=3", "5=drop"), ("4=drop",)]),
        ("rule", "centered_clip", ["centered_clip"]),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_values_of_an_option(name: str, text: str, values: list[object]) -> None:
    assert grid.axis(name, text, BY_NAME[name].flag) == values


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("byzantine", "2..0", "empty range"),
        ("byzantine", "two", "--byzantine: 'two' is not a whole number"),
        ("on_ban", "remove,forgive", "use remove, reform"),
        ("run_dir", "here", "use --out"),
        ("expect", "a==1", "no meaning in a sweep; leave it out"),
    ],
)
def test_values_that_cannot_be_read(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        grid.axis(name, text, BY_NAME[name].flag)


def test_the_product_holds_one_clean_cell_per_seed() -> None:
    cells = grid.cells(BASE, {"byzantine": [0, 1, 2], "attack": ["noise", "drop"], "seed": [0, 1]})
    assert len(cells) == 2 * (1 + 2 * 2)
    clean = [cell.experiment for cell in cells if cell.experiment.byzantine == 0]
    assert [(each.attack, each.seed) for each in clean] == [(None, 0), (None, 1)]
    assert grid.varied(cells) == ["attack", "byzantine", "seed"]


@pytest.mark.parametrize(
    ("which", "given", "words"),
    [
        (
            None,
            {"seed": "0..3000000"},
            "--seed 0..3000000 makes 3000001 cells, and a sweep has 100000 at most; use fewer",
        ),
        (None, {"seed": "0..60000,100000..160000"}, "--seed 100000..160000 makes 120002 cells"),
        (None, {"seed": "0..999", "steps": "1..101"}, "sweep 'options' makes 101000 cells"),
        ("paper", {"data_seed": "0..999"}, "sweep 'paper' makes 321000 cells"),
    ],
    ids=["one range", "two ranges", "a product", "blocks of a plan, each of them small enough"],
)
def test_too_many_cells_are_refused_before_any_is_made(
    which: str | None, given: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "Cell", None)
    with pytest.raises(ConfigError) as caught:
        spec.make(which, False, BASE, given)
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match="--seed x --steps makes 100001 cells"):
        grid.cells(BASE, {"seed": range(100_001), "steps": [1]})


def test_as_many_cells_as_a_sweep_may_have() -> None:
    assert len(grid.axis("seed", "1..100000", "--seed")) == grid.MOST_CELLS
    assert grid.size({"seed": range(1000), "steps": range(100)}) == grid.MOST_CELLS
    grid.check_size(grid.MOST_CELLS, "this")


def test_identity_is_what_is_computed_and_not_where() -> None:
    there = Experiment(run_dir="x", data_dir="y", timeout=3.0, base_port=5000, download=False)
    assert grid.identity(there) == grid.identity(BASE)
    others = [Experiment(seed=1), Experiment(steps=899), Experiment(backend="simulated"), Experiment(role=("4=drop",))]
    assert len({grid.identity(each) for each in (BASE, *others)}) == 5


def test_the_paper_plan() -> None:
    quick = spec.make("paper", True, BASE, {}).cells
    assert len(quick) == 11
    assert {cell.labels["scheme"] for cell in quick} == {"clean", "aggressive", "mild"}
    assert {cell.experiment.on_ban for cell in quick} == {"reform"}
    assert all((cell.experiment.steps, cell.experiment.tau) == (900, 5.0) for cell in quick)
    full = spec.make("paper", False, BASE, {}).cells
    main = [cell for cell in full if "control" not in cell.labels]
    assert len(main) == 9 + 2 * len(ATTACKS) * 9
    assert list(full[: len(main)]) == main, "the report's own setting comes first"
    assert full[: len(quick)] == quick, "a quick sweep is the beginning of the full one"
    seeds = [(cell.experiment.protocol_seed, cell.experiment.seed) for cell in main[:: len(quick)]]
    assert seeds == [(repeat, seed) for repeat in (101, 102, 103) for seed in range(3)], "one repeat after the other"
    controls = {cell.labels["control"] for cell in full if "control" in cell.labels}
    assert controls == {"remove", "undefended mean", "clipping without bans", "tau 1", "tau 10"}


def test_every_plan_that_ships_can_be_run() -> None:
    """As far as the configuration goes: every cell is one that a cluster would accept."""
    for name in plans.PLANS:
        for quick in (True, False):
            made = spec.make(name, quick, BASE, {}).cells
            assert made, name
            for cell in made:
                check(cell.experiment.run_config("cpu"))
                cell.experiment.roles()
    everything = {cell.experiment.rule for cell in spec.make("rules", False, BASE, {}).cells}
    assert {entry.name for entry in RULES} <= everything
    assert "nnm+krum" in everything
    attacked = {cell.experiment.attack for cell in spec.make("rules", False, BASE, {}).cells}
    assert {entry.name for entry in KNOWN if entry.facts["acts_on"] in ("gradient", "data")} <= attacked
    assert "mimic" in attacked


@pytest.mark.parametrize(
    ("name", "quick", "full"), [("starts", 5, 3 * 21), ("mixed", 5, 3 * 11), ("aggregation", 9, 3 * 9)]
)
def test_future_work_has_the_reports_setting_and_begins_with_a_clean_run(name: str, quick: int, full: int) -> None:
    for short, count in ((True, quick), (False, full)):
        made = spec.make(name, short, BASE, {}).cells
        assert len(made) == count
        assert made[0].labels == {"label": "clean"}
        clean = [cell for cell in made if not cell.experiment.roles()]
        assert [cell.experiment.seed for cell in clean] == sorted({cell.experiment.seed for cell in made})
        setting = {(cell.experiment.tau, cell.experiment.steps, cell.experiment.attack_start, cell.experiment.on_ban)
                   for cell in made}  # fmt: skip
        assert setting == {(5.0, 300 if short else 900, 100, "reform")}


def test_the_plan_of_both_settings_has_the_runs_of_harm_beside_its_own() -> None:
    for quick, count in ((True, 11), (False, 297)):
        both, harm = (spec.make(name, quick, BASE, {}).cells for name in ("contribute", "harm"))
        idle = {cell.id for cell in both if cell.labels.get("control") == "idle validators"}
        own = [cell for cell in both if not cell.labels.get("control")]
        assert idle == {cell.id for cell in harm if not cell.labels.get("control")}
        assert len(own) == len(idle) == count
        assert {cell.experiment.validators_contribute for cell in own} == {"on"}


def test_options_replace_what_a_plan_says() -> None:
    cells = spec.make("paper", True, BASE, {"steps": "20", "seed": "3..4", "backend": "simulated"}).cells
    assert len(cells) == 22
    assert {(cell.experiment.steps, cell.experiment.backend) for cell in cells} == {(20, "simulated")}


def test_a_file_holds_grids(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nsteps = 10\nseed = "0..1"\n[[grid]]\nlabel = "clean"\n'
        '[[grid]]\nattack = ["noise:variant=small,scale=2", "drop"]\nbyzantine = [1, 2]\n'
    )
    made = spec.make(str(file), False, BASE, {})
    assert (made.name, len(made.cells)) == ("mine", 2 + 8)
    assert made.cells[0].labels == {"label": "clean"}
    same = tmp_path / "mine.json"
    same.write_text(json.dumps({"name": "mine", "steps": 10, "seed": [0, 1], "grid": [{"label": "clean"}]}))
    assert [cell.id for cell in spec.make(str(same), False, BASE, {}).cells] == [cell.id for cell in made.cells[:2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 3", "did you mean 'steps'"),
        ("steps = ", "not valid"),
        ("grid = 3", "grids are written as [[grid]] tables"),
        ('steps = "many"', "not a whole number"),
        ("grid = []", "'grid' is empty; add a [[grid]] table"),
        ('label = "clean"', "'label' names one grid; write it into a [[grid]] table"),
        ('[[grid]]\nname = "mine"', "'name' has no meaning in a [[grid]] table; write it at the top"),
        ("[[grid]]\nseed = 1\n[[grid]]\n[[grid.grid]]", "'grid' has no meaning in a [[grid]] table"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        spec.make(str(file), False, BASE, {})


def test_a_list_of_cells_is_a_part_of_a_sweep(tmp_path: Path) -> None:
    sweep = spec.make("paper", True, BASE, {})
    listed = tmp_path / "part.txt"
    listed.write_text(
        "".join(f"{cell.id}  what it is\n\n" for cell in (sweep.cells[7], sweep.cells[2], sweep.cells[7]))
    )
    part = spec.only(sweep, str(listed))
    assert part == Sweep("paper-quick", (sweep.cells[2], sweep.cells[7])), "in the sweep's order, each once"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n", "names none"),
        (b"0123456789abcdef clean\n", "line 1: '0123456789abcdef' is no cell of this sweep; `--dry-run` lists them"),
        (b"\xff", "is no text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_list_of_cells_that_cannot_be_used(tmp_path: Path, content: bytes | None, words: str) -> None:
    listed = tmp_path / "part.txt"
    if content is not None:
        listed.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        spec.only(spec.make("paper", True, BASE, {}), str(listed))


def test_an_unknown_plan_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        spec.make("papr", False, BASE, {})
    with pytest.raises(ConfigError, match="--quick belongs to a plan"):
        spec.make(None, True, BASE, {})


def test_only_plans_have_a_short_form(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("steps = 3")
    with pytest.raises(ConfigError, match=r"--quick belongs to a plan that ships; leave it out for the file .*mine"):
        spec.make(str(file), True, BASE, {})
