"""The command around a sweep: what it counts, says and writes down."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from btard.launcher import exits
from btard.launcher.cli.main import cli
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import command, engine, spec
from btard.launcher.sweep.engine import Wish
from btard.launcher.sweep.grid import cells
from btard.launcher.sweep.rows import read_parquet
from btard.launcher.sweep.store import Store, read
from btard.node.errors import BackendError, BtardError, ConfigError, DataError

BASE = Experiment(backend="simulated", task="quadratic", device="cpu", steps=6, eval_every=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retry", "said"),
    [(False, ["[1/1] seed=1:", "1 run, 1 failed", "failed before: the disk is full: free some; see"]),
     (True, ["[2/2] seed=", "2 run; table"])],
)  # fmt: skip
def test_failed_cells_are_explained_and_counted_only_where_they_are_run(
    tmp_path: Path, retry: bool, said: list[str]
) -> None:
    out = tmp_path / "sweep"
    wanted = spec.make(None, False, BASE, {"seed": "0..1"})
    first, _ = wanted.cells
    where = Store(out).attempt(first.id)
    where.mkdir()
    (where / "problem.txt").write_text("the disk is full:\nfree some\n")
    Store(out).reject(where, first.id)
    text = io.StringIO()
    console = Console(file=text, width=400)
    code = command.run(wanted, Wish(1, retry_failed=retry), out, False, console, ["btard-launch", "sweep", "--limit=2"])
    assert code == (exits.OK if retry else exits.FAILED)
    for words in said:
        assert words in text.getvalue()
    assert read(out).argv == ["btard-launch", "sweep"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("paper --quick --slim --cores 2", "paper --quick --slim --cores 2"),
        ("mine.toml --only part.aa --out there --retry-failed", "mine.toml --out there"),
        ("--limit 3 --seed 0..2 --only=- --limit=1 --no-check", "--seed 0..2 --no-check"),
        ("rules --dry-run", "rules"),
    ],
)
def test_the_command_that_repeats_a_sweep_is_that_of_the_whole(given: str, kept: str) -> None:
    assert command.lasting(["btard-launch", "sweep", *given.split()]) == ["btard-launch", "sweep", *kept.split()]


def test_options_that_are_left_out_of_it_exist() -> None:
    """And no other option of the command is meant for one call of it, or takes a value where none is skipped."""
    own = {option.opts[0]: option.is_flag for option in cli.commands["sweep"].params if option.opts[0].startswith("--")}
    assert {name: own[name] for name in command._PASSING} == dict.fromkeys(command._PASSING, True)
    assert {name: own[name] for name in command._PASSING_VALUES} == dict.fromkeys(command._PASSING_VALUES, False)


@pytest.mark.parametrize(
    ("device", "auto", "backend", "wanted"),
    [
        ("cpu", "cuda", "local", 6),
        ("cpu", "cuda", "simulated", 1),
        ("auto", "cpu", "local", 6),
        ("auto", "cpu", "simulated", 1),
        ("auto", "cuda", "local", 16),
        ("auto", "cuda", "simulated", 3),
        ("cuda", "cpu", "local", 16),
    ],
)
def test_a_gpu_holds_one_cluster_of_workers_or_a_simulated_one_in_place_of_each(
    monkeypatch: pytest.MonkeyPatch, device: str, auto: str, backend: str, wanted: int
) -> None:
    monkeypatch.setattr(engine, "_auto_device", lambda: auto)
    (cell,) = cells(Experiment(), {"device": [device], "backend": [backend], "peers": [6]})
    assert engine.cost(cell, 16) == wanted


def test_what_has_no_meaning_in_a_sweep_names_what_has() -> None:
    for arguments, words in {
        ("--expect", "honest_banned==0"): "--expect has no meaning in a sweep; leave it out, and read results.csv",
        ("--run-dir", "there"): "--run-dir has no meaning in a sweep; use --out",
    }.items():
        refused = CliRunner().invoke(cli, ["sweep", *arguments])
        assert isinstance(refused.exception, ConfigError)
        assert words in str(refused.exception)
        assert ("--out" in str(refused.exception)) == (arguments[0] == "--run-dir")


def test_a_directory_that_cannot_be_written_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"Not a directory; use another --out$"):
        Store(tmp_path / "file" / "sweep")
    store = Store(tmp_path / "sweep")
    for name in ("sweep", "0"):  # not writable to root either
        (tmp_path / "sweep" / "claims" / name).mkdir()
    with pytest.raises(BackendError, match=r"claims/sweep: Is a directory; use another --out$"):
        store.enlist("test", [], [])
    with pytest.raises(BackendError, match=r"claims/0: Is a directory; use another --out$"):
        store.claim("0")


@pytest.mark.slow
def test_a_plan_that_changed_half_way_is_told_of(tmp_path: Path) -> None:
    """What was run before stays, as other calls on a directory may have wanted it."""

    def told(seeds: str) -> str:
        text = io.StringIO()
        sweep = spec.make(None, False, BASE, {"seed": seeds})
        assert command.run(sweep, Wish(2), tmp_path / "s", False, Console(file=text, width=400), []) == exits.OK
        return text.getvalue()

    assert "other calls" not in told("0..1") + told("0..2")
    assert "s lists 2 cells of other calls, which stay in table and page; a plan that has changed takes another" in (
        told("2..3")
    )
    assert len(Store(tmp_path / "s").rows()) == 4


@pytest.mark.parametrize("out", [("--out", "/home/me/mine"), ("--out=/home/me/mine",)])
def test_an_archive_does_not_say_where_the_sweep_lay(tmp_path: Path, out: tuple[str, ...]) -> None:
    store = Store(tmp_path)
    store.enlist("mine", [], ["/home/me/bin/btard-launch", "sweep", "harm", *out, "--slim"])
    store.publish()
    archive = read_parquet(tmp_path / "results.parquet")
    assert archive.argv == ["btard-launch", "sweep", "harm", "--slim"] and archive.rows == []
    assert b"/home/me" not in (tmp_path / "results.parquet").read_bytes()


def test_a_sweep_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    Store(tmp_path).enlist("test", [], [])
    file = tmp_path / "sweep.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ConfigError, match=r"sweep.json has format 2, and this version reads 1; use the version that"):
        read(tmp_path)


@pytest.mark.parametrize(("seeds", "said"), [("0", "1 cell\n"), ("0,1", "2 cells\n")])
def test_one_cell_is_one_cell(seeds: str, said: str) -> None:
    listed = CliRunner().invoke(cli, ["sweep", "--task", "quadratic", "--seed", seeds, "--dry-run"])
    assert listed.stderr == said
    assert len(listed.stdout.splitlines()) == len(seeds.split(","))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, BackendError, r"^--device cuda: torch finds no usable GPU here; use --device cpu$"),
        (
            {"device": "cpu"},
            DataError,
            r"^cannot read [^\n]*data_batch_1: [^\n]*; run `btard-launch data cifar10 [^\n]*`$",
        ),
    ],
    ids=["no GPU", "no data"],
)
def test_the_paper_s_own_setting_starts_only_where_all_of_it_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], error: type[BtardError], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = spec.make("cifar", False, Experiment(data_dir=str(tmp_path)), options)
    assert len(wanted.cells) == 7
    with pytest.raises(error, match=said):
        command.run(wanted, Wish(1), tmp_path / "out", False, Console(file=io.StringIO()), [])
    assert not (tmp_path / "out").exists()
