"""Where each value comes from: flag, then `BTARD_*` variable, then configuration file, then default."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from btard.launcher.options.table import OPTIONS, Option
from btard.launcher.run.experiment import Experiment
from btard.node.errors import ConfigError
from btard.node.nearest import nearest, suggestion

CONFIG_VARIABLE = "BTARD_CONFIG"
_FIELDS = {field.name: field for field in msgspec.structs.fields(Experiment)}


@dataclass(frozen=True, slots=True)
class Settings:
    """A resolved experiment, where each field's value comes from, and what a user should be warned of."""

    experiment: Experiment
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def resolve(flags: Mapping[str, object], environment: Mapping[str, str], config_file: str | None) -> Settings:
    """Put the four sources together.

    Args:
        flags: field to the text given on the command line (a tuple of texts where the flag repeats, a bool for a
            switch); fields not given are absent.
        environment: the process environment; its `BTARD_CONFIG` names a file where `config_file` is None.
        config_file: a TOML or JSON file, or None.

    Raises:
        ConfigError: a value that cannot be read, an unknown key in the file, or an unreadable file.
    """
    path = config_file or environment.get(CONFIG_VARIABLE)
    what = f"--config {path}"
    table = by_field(read_file(Path(path), what), what) if path else {}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        name = option.field
        if name in flags:
            values[name], sources[name] = from_text(option, flags[name], option.flag), f"flag {option.flag}"
        elif option.variable in environment:
            text = environment[option.variable]
            split = tuple(item.strip() for item in text.split(";") if item.strip()) if option.many else text
            values[name], sources[name] = from_text(option, split, option.variable), f"variable {option.variable}"
        elif name in table:
            values[name], sources[name] = _from_file(option, table[name], str(path)), f"file {path}"
        else:
            sources[name] = "default"
    return Settings(msgspec.convert(values, Experiment), sources, _unknown_variables(environment))


def read_file(path: Path, what: str) -> dict[str, Any]:
    """The table in a TOML (or, ending in .json, JSON) file; `what` names it in a message.

    Raises:
        ConfigError: unreadable or malformed.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        data = path.read_bytes()
        table: Any = json.loads(data) if kind == "JSON" else tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}; name a file of options, TOML or JSON") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not valid {kind}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{what} must hold a table of options, not a {type(table).__name__}")
    return table


def by_field(table: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options of a file, keyed by field; `-` and `_` are alike in keys.

    Raises:
        ConfigError: a key that is no option (with the nearest name), or one given twice.
    """
    known = [option.field for option in OPTIONS]
    result: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{what}: unknown key {key!r}; {suggestion(name, known)}")
        if name in result:
            raise ConfigError(f"{what}: {name!r} is given twice")
        result[name] = value
    return result


def show(experiment: Experiment, sources: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Each option's name, value and source, as `--show-config` prints them."""
    values = {option: getattr(experiment, option.field) for option in OPTIONS}
    return [(option.field.replace("_", "-"), _as_text(option, value), sources.get(option.field, ""))
            for option, value in values.items()]  # fmt: skip


def _as_text(option: Option, value: object) -> str:
    """A value as a user would write it in TOML; None as the word that stands for it."""
    if value is None:
        return '"auto"' if option.metavar.startswith(("auto", "SEED")) else '"none"'
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def from_text(option: Option, given: object, where: str) -> object:
    """A field's value from the text of its option (a tuple of texts where it repeats; a switch's bool as it is).

    Raises:
        ConfigError: the text cannot be read; the message begins with `where`.
    """
    if isinstance(given, bool):
        return given
    texts = given if isinstance(given, tuple) else (given,)
    read = tuple(_parsed(option, str(text), where) for text in texts)
    return typed(option, read if option.many else read[0], where)


def _parsed(option: Option, text: str, where: str) -> object:
    try:
        return option.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _from_file(option: Option, value: object, path: str) -> object:
    """A file may write what text would (`"2s"`, `"auto"`) or the value itself."""
    where = f"--config {path}: {option.field}"
    if option.many:
        return typed(option, [value] if isinstance(value, str) else value, where)
    return typed(option, _parsed(option, value, where) if isinstance(value, str) else value, where)


def typed(option: Option, value: object, where: str) -> object:
    """A value as the field of `Experiment` has it.

    Raises:
        ConfigError: the value is of another kind or not one of the choices.
    """
    try:
        return msgspec.convert(value, _FIELDS[option.field].type)
    except msgspec.ValidationError as error:
        shown = f" {value}" if isinstance(value, str) else ""
        choices = f"; use {option.metavar.replace('|', ', ')}" if shown and "|" in option.metavar else f": {error}"
        raise ConfigError(f"{where}{shown} is not valid{choices}") from error


def _unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Other programs may own BTARD_ names, so a strange one is a warning and not an error."""
    known = [*(option.variable for option in OPTIONS), CONFIG_VARIABLE]
    strange = sorted(name for name in environment if name.startswith("BTARD_") and name not in known)
    meant = {name: nearest(name, known) for name in strange}
    return tuple(
        f"{name} is no option and has no effect" + (f"; did you mean {near}?" if near else "")
        for name, near in meant.items()
    )
