"""A hundred composed runs, and every seed that once broke a promise: all promises checked after every step."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.simulation import soak
from tests.simulation.composer import COMPOSITION, candidates, compose, described
from tests.simulation.ledger import Played, table
from tests.simulation.stage import Stage

SEEDS = sorted({*((seed, COMPOSITION) for seed in range(100)), *soak.regressions()})


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "composition"), SEEDS)
def test_every_promise_holds_after_every_step(seed: int, composition: int) -> None:
    soak.hold(seed, composition)


def test_a_seed_composes_the_same_run_again() -> None:
    assert described(compose(7)) == described(compose(7)) != described(compose(8))


@pytest.mark.slow
def test_the_composer_draws_every_attack() -> None:
    stages: list[Stage] = [compose(seed) for seed in range(300)]
    drawn = {plugin.name for stage in stages for role in stage.roles.values() for plugin in role.attacks}
    assert drawn == {entry.name for entry in candidates()}


@pytest.mark.slow
def test_the_newest_composition_is_the_one_before_but_for_the_wire() -> None:
    pairs = [(compose(seed, 2).run, compose(seed, 3).run) for seed in range(60)]
    assert all(replace(new, wire="float32") == old and old.wire == "float32" for old, new in pairs)
    assert 5 <= sum(new.wire == "bf16" for _, new in pairs) <= 20


def test_a_broken_promise_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: int, composition: int) -> Stage:
        stage = compose(3, composition)
        stage.simulation.nodes[stage.witness].peer.shared.stopped = True
        return stage

    monkeypatch.setattr(soak, "compose", broken)
    assert soak.main(["--seeds", "3..4"]) == 1
    assert "python -m tests.simulation.soak --replay 3 --composition 3" in capsys.readouterr().out


@pytest.mark.slow
def test_the_sums_of_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record.jsonl"
    assert soak.main(["--seeds", "0..2", "--record", str(record)]) == 0
    assert soak.main(["--sum", str(record)]) == 0
    assert "2 runs, 0 with a broken promise" in capsys.readouterr().out
    assert "1 with a broken promise" in table([Played(1, "lost", 0.0, {})])
