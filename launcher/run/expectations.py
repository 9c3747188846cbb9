"""`--expect 'field op value'`: checks of summary.json, read by a small parser of our own."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from btard.launcher.run.summary import Summary
from btard.node.errors import ConfigError
from btard.node.nearest import suggestion

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_FORM = re.compile(r"\s*([A-Za-z_]\w*(?:\.[\w-]+)*)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")
_FIELDS = [field.name for field in msgspec.structs.fields(Summary)]
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Expectation:
    """One check: the path of a field, an operator and a JSON value."""

    text: str
    path: tuple[str, ...]
    operator: str
    value: object

    def problem(self, summary: Mapping[str, object]) -> str | None:
        """None if the summary meets it, else what was found instead.

        A list or table compared with a number stands for its length.
        """
        found = _look_up(summary, self.path)
        if found is _MISSING:
            return f"{self.text}: there is no {'.'.join(self.path)}"
        compared = len(found) if _is_number(self.value) and isinstance(found, list | dict) else found
        shown = json.dumps(found)
        try:
            met = _comparable(compared, self.value, self.operator) and _OPERATORS[self.operator](compared, self.value)
        except TypeError:
            met = False
        return None if met else f"{self.text}: it is {shown if len(shown) <= 100 else shown[:97] + '...'}"


def parse(text: str) -> Expectation:
    """Read `field op value`; parts of the field are joined by dots, text values may lack their quotes.

    Raises:
        ConfigError: another form, or a field that summary.json does not have (with the nearest one).
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"--expect {text!r} is not 'field op value'; write for example 'honest_banned==0'")
    path = tuple(match[1].split("."))
    if path[0] not in _FIELDS:
        hint = suggestion(path[0], _FIELDS)
        raise ConfigError(f"--expect {text!r}: summary.json has no field {path[0]!r}; {hint}")
    try:
        value: object = json.loads(match[3])
    except ValueError:
        value = match[3]
    return Expectation(text.strip(), path, match[2], value)


def violations(expected: Sequence[Expectation], summary: Summary) -> list[str]:
    """What the summary does not meet, one line each."""
    fields: dict[str, object] = msgspec.to_builtins(summary)
    problems = [expectation.problem(fields) for expectation in expected]
    return [problem for problem in problems if problem is not None]


def _look_up(place: object, path: Sequence[str]) -> Any:
    for key in path:
        if isinstance(place, dict) and key in place:
            place = place[key]
        elif isinstance(place, list | tuple) and re.fullmatch(r"-?\d+", key) and -len(place) <= int(key) < len(place):
            place = place[int(key)]
        else:
            return _MISSING
    return list(place) if isinstance(place, tuple) else place


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(left: object, right: object, symbol: str) -> bool:
    """Order is for numbers among themselves and texts among themselves; true is no number."""
    if symbol in ("==", "!="):
        return isinstance(left, bool) == isinstance(right, bool) or symbol == "!="
    return (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))
