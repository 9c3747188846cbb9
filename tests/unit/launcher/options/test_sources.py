"""Where values come from, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from btard.launcher.options import sources
from btard.launcher.options.table import OPTIONS
from btard.launcher.run.experiment import Experiment
from btard.node.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text('steps = 10\nlr = 0.5\ndelivery-bound = "500ms"\nrole = ["4=noise"]\ntau = 3\n')
    return path


def test_a_flag_beats_a_variable_beats_a_file_beats_the_default(config: Path) -> None:
    resolved = sources.resolve({"steps": "30"}, {"BTARD_STEPS": "20", "BTARD_LR": "0.25"}, str(config))
    made = resolved.experiment
    assert (made.steps, made.lr, made.tau, made.batch_size) == (30, 0.25, 3.0, 256)
    assert (made.delivery_bound, made.role) == (0.5, ("4=noise",))
    found = {name: resolved.sources[name] for name in ("steps", "lr", "tau", "batch_size")}
    assert found == {
        "steps": "flag --steps", "lr": "variable BTARD_LR", "tau": f"file {config}", "batch_size": "default"
    }  # fmt: skip


def test_the_file_may_be_named_by_a_variable_and_be_json(tmp_path: Path) -> None:
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({"steps": 7, "download": False, "delta_max": "auto"}))
    made = sources.resolve({}, {"BTARD_CONFIG": str(path)}, None).experiment
    assert (made.steps, made.download, made.delta_max) == (7, False, None)


def test_repeated_options_in_each_place(tmp_path: Path) -> None:
    assert sources.resolve({"role": ("1=a", "2=b")}, {}, None).experiment.role == ("1=a", "2=b")
    assert sources.resolve({}, {"BTARD_ROLE": "1=a; 2=b"}, None).experiment.role == ("1=a", "2=b")
    path = tmp_path / "one.toml"
    path.write_text('role = "1=a"\n')
    assert sources.resolve({}, {}, str(path)).experiment.role == ("1=a",)


def test_a_strange_variable_is_a_warning() -> None:
    (warning,) = sources.resolve({}, {"BTARD_STEP": "1"}, None).warnings
    assert warning == "BTARD_STEP is no option and has no effect; did you mean BTARD_STEPS?"


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"steps": "many"}, {}, "--steps: 'many' is not a whole number"),
        ({}, {"BTARD_STEPS": "many"}, "BTARD_STEPS: 'many' is not a whole number"),
        ({"delivery_bound": "soon"}, {}, "--delivery-bound: 'soon' is not a duration"),
        ({"device": "tpu"}, {}, "--device tpu is not valid; use auto, cpu, cuda"),
        ({"validators_contribute": "yes"}, {}, "--validators-contribute yes is not valid; use auto, on, off"),
        ({"on_ban": "kill"}, {}, "--on-ban kill is not valid; use remove, reform"),
        ({}, {"BTARD_ENCRYPT_BULK": "2"}, "BTARD_ENCRYPT_BULK: '2' is not true or false"),
    ],
)
def test_wrong_text(flags: dict[str, object], environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sources.resolve(flags, environment, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "batch_sice = 3", "unknown key 'batch_sice'; did you mean 'batch_size'?"),
        ("a.toml", "steps = ", "is not valid TOML"),
        ("a.toml", "steps = 3\nsteps = 4", "is not valid TOML"),
        ("a.toml", 'on-ban = "reform"\non_ban = "remove"', "'on_ban' is given twice"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[1]", "must hold a table of options, not a list"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.toml", "steps = true", "steps is not valid"),
        ("a.toml", "steps = 1.5", "steps is not valid"),
        ("a.toml", "role = [1]", "role is not valid"),
        ("a.toml", 'steps = "x"', "'x' is not a whole number"),
        ("a.toml", "\x00", "is not valid TOML"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        sources.resolve({}, {}, str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for name in ("a.toml", "a.json"):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="is not valid"):
            sources.resolve({}, {}, str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        sources.resolve({}, {}, str(tmp_path / "none.toml"))


def test_every_field_is_an_option_and_every_option_a_field() -> None:
    assert sorted(option.field for option in OPTIONS) == sorted(Experiment.__struct_fields__)
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)


def test_shown_values_can_be_read_back(tmp_path: Path) -> None:
    """What --show-config prints is a configuration file of the same experiment."""
    given = {"role": ("4=noise",), "expect": ("steps==1", 'outcome=="finished"'), "tau": "7.5", "timeout": "5m"}
    first = sources.resolve(given, {}, None)
    path = tmp_path / "shown.toml"
    shown = sources.show(first.experiment, first.sources)
    path.write_text("\n".join(f"{name} = {value}  # {source}" for name, value, source in shown))
    assert sources.resolve({}, {}, str(path)).experiment == first.experiment
    defaults = sources.resolve({}, {}, None).experiment
    assert defaults == Experiment()
    assert msgspec.structs.asdict(defaults)["steps"] == 900
